"""Attributes of classes by context: what a biz assigns is its own, and the class is what it was for all else."""

import http.client
import inspect
import io
import pickle
import tarfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from koupleless.context import Scope, entered

MakeBiz = Callable[..., Scope]

pytestmark = [
    pytest.mark.usefixtures("with_guards", "with_stdlib"),
    pytest.mark.filterwarnings("ignore:Python 3.14 will:DeprecationWarning"),  # of archives without a filter
]

REAL: Any = vars(http.client)["HTTPConnection"]


class OfBase(http.client.HTTPConnection):
    """A class of a library of the base."""


def levels() -> Any:
    return (
        http.client.HTTPConnection.debuglevel,
        http.client.HTTPSConnection.debuglevel,
        http.client.HTTPConnection("x").debuglevel,
        OfBase("x").debuglevel,
        REAL.debuglevel,
    )


def test_an_attribute_that_a_biz_assigns_is_its_own_for_all_its_instances(make_biz: MakeBiz) -> None:
    one, two = make_biz("one"), make_biz("two")
    with entered(one):
        http.client.HTTPConnection.debuglevel = 1
        assert levels() == (1, 1, 1, 1, 1)
        http.client.HTTPSConnection.debuglevel = 2
        assert levels() == (1, 2, 1, 1, 1)
    for scope in (two, None):
        with entered(scope):
            assert levels() == (0, 0, 0, 0, 0)
    with entered(one):
        del http.client.HTTPSConnection.debuglevel
        assert levels() == (1, 1, 1, 1, 1)
        one.close()
        http.client.HTTPConnection.debuglevel = 1
        assert levels() == (0, 0, 0, 0, 0)


def test_an_instance_has_its_own(make_biz: MakeBiz) -> None:
    with entered(make_biz()):
        http.client.HTTPConnection.debuglevel = 1
        connection = http.client.HTTPConnection("x")
        connection.set_debuglevel(3)
        assert connection.debuglevel == 3


def test_the_base_assigns_for_itself_and_for_bizs_that_have_not(make_biz: MakeBiz) -> None:
    one, two = make_biz("one"), make_biz("two")
    with entered(one):
        http.client.HTTPConnection.debuglevel = 1
    before = vars(REAL)["debuglevel"]
    http.client.HTTPConnection.debuglevel = 4
    try:
        assert levels() == (4, 4, 4, 4, 4)
        with entered(two):
            assert levels() == (4, 4, 4, 4, 4)
    finally:
        REAL.debuglevel = before


def test_the_stand_in_passes_for_the_class(make_biz: MakeBiz) -> None:
    with entered(make_biz()):
        kind: Any = http.client.HTTPConnection
        made = kind("x")
        assert type(made) is REAL
        assert isinstance(made, kind)
        assert isinstance(OfBase("x"), kind)
        assert not isinstance(1, kind)
        assert issubclass(OfBase, kind)
        assert issubclass(http.client.HTTPSConnection, kind)
        assert not issubclass(int, kind)
        assert inspect.isclass(kind)
        assert kind == REAL
        assert {REAL: 1}[kind] == 1
        assert repr(kind) == repr(REAL)
        assert inspect.signature(kind.__init__) == inspect.signature(REAL.__init__)
        assert pickle.loads(pickle.dumps(kind)) is kind
        setattr(kind, "koupleless", 1)  # noqa: B010 - the type checker knows better
        assert vars(REAL)["koupleless"] == 1
        delattr(kind, "koupleless")
        assert not hasattr(REAL, "koupleless")


def test_a_class_that_is_derived_from_it_is_derived_from_the_class(make_biz: MakeBiz) -> None:
    with entered(make_biz()):
        connection: Any = http.client.HTTPConnection

        class Mine(connection):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__("x")

            def __init_subclass__(cls, *, word: str = "") -> None:
                cls.word = word

        class Named(Mine, connection, word="named"):  # type: ignore[misc]
            pass

        assert Mine.__mro__ == (Mine, REAL, object)
        assert type(Mine) is type
        assert Named().word == "named"
        http.client.HTTPConnection.debuglevel = 1
        assert Mine().debuglevel == 1
    assert Mine().debuglevel == 0


def test_it_can_be_mocked_and_is_what_it_was_afterwards(make_biz: MakeBiz) -> None:
    with entered(make_biz()):
        with mock.patch("http.client.HTTPConnection.debuglevel", 7):
            assert levels()[0] == 7
        assert levels() == (0, 0, 0, 0, 0)
        with mock.patch("http.client.HTTPConnection", 7):
            assert http.client.HTTPConnection == 7  # type: ignore[comparison-overlap]
        assert http.client.HTTPConnection == REAL
    assert levels() == (0, 0, 0, 0, 0)
    assert http.client.HTTPConnection is REAL


def test_a_filter_that_trusts_archives_is_the_biz_s(make_biz: MakeBiz, tmp_path: Path) -> None:
    seen: list[str] = []

    def trust(member: tarfile.TarInfo, _: str) -> tarfile.TarInfo:
        seen.append(member.name)
        return member

    def extract() -> None:
        data = io.BytesIO()
        with tarfile.TarFile.open(fileobj=data, mode="w:gz") as archive:
            assert type(archive) is vars(tarfile)["TarFile"]
            archive.addfile(tarfile.TarInfo("member"))
        data.seek(0)
        with tarfile.open(fileobj=data) as archive:
            archive.extractall(tmp_path)

    before = tarfile.TarFile.extraction_filter
    biz = make_biz()
    with entered(biz):
        tarfile.TarFile.extraction_filter = staticmethod(trust)
        extract()
    assert seen == ["member"]
    extract()
    assert seen == ["member"]
    assert tarfile.TarFile.extraction_filter is before


def test_the_module_of_a_stand_in_is_an_ordinary_one() -> None:
    assert isinstance(http.client, types.ModuleType)
    assert http.client.HTTPConnection is REAL
