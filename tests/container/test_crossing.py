"""Objects of a private copy of a library that cross a service are told by name, with what to do."""

from __future__ import annotations

import asyncio
import functools
import warnings

import pytest

from koupleless.artifact.build import Options, build_file
from koupleless.service.crossing import CrossingWarning

BOX = """
import warnings
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    import sqlparse, sqlparse.exceptions, sqlparse.sql
    from koupleless.service import offer
    class Box:
        def fail(self): raise sqlparse.exceptions.SQLParseError("broken")
        async def fail_later(self): raise sqlparse.exceptions.SQLParseError("broken")
        def make(self): return sqlparse.sql.Token(None, "x")
        def plain(self): return "text"
    offer(Box(), name="box")
    offer(sqlparse.sql.Token(None, "y"), name="token")
    OFFERED = [str(one.message) for one in seen]
offer(lambda: OFFERED, name="offered")
"""
REMEDY = 'shared = ["sqlparse"]'


@pytest.fixture
def install(world, tmp_path):
    """``install("name", text)`` installs a module of one file and returns the function that finds its services."""

    def put(name, text):
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        world.container.install(world.container.prepare(str(build_file(path, Options(out=tmp_path / "out")).path)))
        return functools.partial(world.services.use, biz=name)

    return put


@pytest.fixture
def box(install):
    return install("boxes", BOX)


def test_an_object_of_a_private_class_is_told_when_it_is_offered(box):
    (said,) = box("offered")()
    assert said.startswith("biz boxes:1.0.0 offers an object of sqlparse.sql.Token, and holds sqlparse for itself")
    assert REMEDY in said


def test_what_the_caller_s_except_does_not_know_has_a_note(box):
    import sqlparse.exceptions

    reference = box("box")
    for call in (reference.fail, lambda: asyncio.run(reference.fail_later())):
        with pytest.raises(Exception, match="broken") as caught:
            call()
        assert not isinstance(caught.value, sqlparse.exceptions.SQLParseError)
        (note,) = caught.value.__notes__
        assert note.startswith("the base got sqlparse.exceptions.SQLParseError of biz boxes:1.0.0")
        assert REMEDY in note
        del caught


def test_what_the_caller_s_isinstance_does_not_know_is_told_once(box):
    import sqlparse.sql

    reference = box("box")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert not isinstance(reference.make(), sqlparse.sql.Token)
        reference.make()
    (said,) = told
    assert said.category is CrossingWarning
    assert said.filename == __file__
    assert str(said.message).startswith("the base got an object of sqlparse.sql.Token of biz boxes:1.0.0")
    assert REMEDY in str(said.message)


def test_nothing_is_said_of_what_everybody_has_the_same_of(install):
    shared = BOX.replace("offer(sqlparse.sql.Token", "# offer(sqlparse.sql.Token")
    project = '# /// script\n# [tool.koupleless.module]\n# shared = ["sqlparse"]\n# ///\n' + shared
    reference = install("sharing", project)("box")
    import sqlparse.exceptions
    import sqlparse.sql

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(reference.make(), sqlparse.sql.Token)
        assert reference.plain() == "text"
    with pytest.raises(sqlparse.exceptions.SQLParseError) as caught:
        reference.fail()
    assert not hasattr(caught.value, "__notes__")
    del caught
