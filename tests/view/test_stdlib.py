"""Registries and defaults of the standard library: a biz sees its own, the base and a second biz do not."""

import asyncio
import contextlib
import contextvars
import csv
import decimal
import email.charset
import gettext
import http.client
import io
import logging
import mimetypes
import multiprocessing
import os
import random
import shutil
import socket
import ssl
import sys
import tempfile
import threading
import urllib.parse
import urllib.request
import warnings
import webbrowser
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from koupleless.context import Scope, entered
from koupleless.view.standard.stdlib import STDLIB

MakeBiz = Callable[..., Scope]

pytestmark = [
    pytest.mark.usefixtures("with_stdlib", "with_guards", "with_environ"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of what is used here, each in some Python
]


def as_biz(scope: Scope | None, function: Callable[[], Any]) -> Any:
    """In a context of its own, as each biz has one."""

    def run() -> Any:
        with entered(scope):
            return function()

    return contextvars.Context().run(run)


def on_thread(function: Callable[[], Any]) -> Any:
    """On a new thread, in a copy of the context."""
    results: list[Any] = []
    context = contextvars.copy_context()
    thread = threading.Thread(target=lambda: results.append(context.run(function)))
    thread.start()
    thread.join()
    return results[0]


with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
    DefaultPolicy: Any = type(asyncio.get_event_loop_policy())


class Policy(DefaultPolicy):  # type: ignore[misc]
    """One that a biz chooses."""


class Browser(webbrowser.BaseBrowser):
    """One that a biz registers."""


class Socket(socket.socket):
    """One that a biz puts in the place of ``socket.socket``."""


class Opened:
    """An opener that opens nothing."""

    def open(self, *_args: Any) -> str:
        return "own"


def opener() -> Any:
    try:
        return urllib.request.urlopen("nonsense://x")
    except OSError as error:
        return str(error)


def made_socket() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return type(server).__name__


def with_long_headers() -> str:
    lines = b"".join(b"X-%d: 1\r\n" % number for number in range(150)) + b"\r\n"
    try:
        return str(len(http.client.parse_headers(io.BytesIO(lines))))
    except http.client.HTTPException as error:
        return str(error)


def set_decimal() -> None:
    decimal.DefaultContext.prec = 50
    decimal.DefaultContext.traps[decimal.Inexact] = True
    decimal.BasicContext.prec = 3


def precisions() -> Any:
    traps = decimal.getcontext().traps[decimal.Inexact]
    return decimal.getcontext().prec, traps, decimal.DefaultContext.prec, decimal.BasicContext.prec


def trusting() -> ssl.SSLContext:
    return ssl._create_unverified_context()


def verified() -> Any:
    return http.client.HTTPSConnection("x")._context.verify_mode  # type: ignore[attr-defined]


def handled_error(capsys: pytest.CaptureFixture[str]) -> str:
    record = logging.LogRecord("x", logging.INFO, "x", 1, "%d", ("no number",), None)
    logging.StreamHandler().handle(record)
    return "told" if "no number" in capsys.readouterr().err else "kept"


def types() -> Any:
    return (
        mimetypes.guess_type("a.koupleless"),
        mimetypes.guess_all_extensions("text/html"),
        mimetypes.types_map.get(".koupleless"),
        len(mimetypes.types_map),
    )


def namespaces() -> str:
    return ET.tostring(ET.Element("{urn:x}a")).decode()


def archives() -> Any:
    return [name for name, _ in shutil.get_archive_formats()], [name for name, *_ in shutil.get_unpack_formats()]


def register_archives() -> None:
    shutil.register_archive_format("own", print, description="own")
    shutil.register_unpack_format("own", [".own"], print)
    shutil.unregister_archive_format("zip")


def joined() -> str:
    return urllib.parse.urljoin("koupleless://a/b", "c")


def add_scheme() -> None:
    urllib.parse.uses_relative.append("koupleless")
    urllib.parse.uses_netloc.extend(["koupleless"])


def register_charset() -> None:
    email.charset.add_charset("own", email.charset.QP, None, "utf-8")
    email.charset.add_alias("mine", "own")
    email.charset.add_codec("own", "ascii")


def charsets() -> Any:
    return email.charset.Charset("mine").header_encoding, "own" in email.charset.CODEC_MAP, len(email.charset.ALIASES)


def register_dialect() -> None:
    csv.register_dialect("own", delimiter="|")
    csv.register_dialect("excel", "own", quotechar="'")
    csv.unregister_dialect("unix")


def dialects() -> Any:
    out = io.StringIO()
    csv.writer(out, "excel").writerow(["a", "b"])
    try:
        read = list(csv.DictReader(["x|y", "1|2"], dialect="own"))
    except csv.Error as error:
        return str(error), csv.list_dialects(), out.getvalue()
    return read, csv.list_dialects(), out.getvalue(), csv.get_dialect("own").delimiter


def policy() -> str:
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        return f"{type(asyncio.get_event_loop_policy()).__name__} {type(loop).__module__}"


def domain() -> Any:
    return gettext.textdomain(), gettext.bindtextdomain("own"), gettext.gettext("hello")


def choose_domain(where: Path) -> None:
    folder = where / "en" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    # A catalogue with one message, as msgfmt writes it.
    (folder / "own.mo").write_bytes(
        b"\xde\x12\x04\x95\0\0\0\0\1\0\0\0\x1c\0\0\0\x24\0\0\0\0\0\0\0\0\0\0\0"
        b"\5\0\0\0\x2c\0\0\0\7\0\0\0\x32\0\0\0hello\0bonjour\0"
    )
    gettext.bindtextdomain("own", str(where))
    gettext.textdomain("own")
    os.environ["LANGUAGE"] = "en"


def temporary() -> Any:
    return tempfile.gettempdir(), tempfile.tempdir or tempfile.gettempdir()


CHANGES: dict[str, tuple[Callable[[], object], Callable[[], Any]]] = {
    "shutil": (register_archives, archives),
    "urllib.request": (lambda: urllib.request.install_opener(Opened()), opener),  # type: ignore[arg-type]
    "urllib.parse": (add_scheme, joined),
    "webbrowser": (
        lambda: webbrowser.register("own", Browser, preferred=True),
        lambda: (type(webbrowser.get()).__name__ if webbrowser._tryorder else "", "own" in webbrowser._browsers),  # type: ignore[attr-defined]
    ),
    "mimetypes.add_type": (lambda: mimetypes.add_type("text/html", ".koupleless"), types),
    "mimetypes.types_map": (lambda: mimetypes.types_map.update({".koupleless": "x/y"}), types),
    "csv": (register_dialect, dialects),
    "ElementTree": (lambda: ET.register_namespace("own", "urn:x"), namespaces),
    "email.charset": (register_charset, charsets),
    "decimal": (set_decimal, precisions),
    "tempfile": (lambda: setattr(tempfile, "tempdir", "/own"), temporary),
    "tempfile by environment": (lambda: os.environ.update(TMPDIR=os.path.expanduser("~")), temporary),  # noqa: PTH111
    "multiprocessing": (
        lambda: multiprocessing.set_start_method("spawn"),
        lambda: (multiprocessing.get_start_method(), multiprocessing.get_context().get_start_method()),
    ),
    "asyncio policy": (lambda: asyncio.set_event_loop_policy(Policy()), policy),
    "uvloop": (lambda: uvloop.install(), policy),  # noqa: PLW0108 - 3.14 warns of the attribute alone
    "ssl": (lambda: setattr(ssl, "_create_default_https_context", trusting), verified),
    "socket": (lambda: setattr(socket, "socket", Socket), lambda: (made_socket(), socket.socket.__name__)),
    "http.client": (lambda: setattr(http.client, "_MAXHEADERS", 1000), with_long_headers),
    "http.client debug level": (
        lambda: setattr(http.client.HTTPConnection, "debuglevel", 1),
        lambda: (http.client.HTTPConnection.debuglevel, http.client.HTTPSConnection("x").debuglevel),
    ),
}


@pytest.fixture
def base_is_settled() -> None:
    """What the first use settles in the base is no change."""
    multiprocessing.get_start_method()
    tempfile.gettempdir()
    mimetypes.init()


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.usefixtures("base_is_settled")
def test_a_change_is_seen_by_the_biz_that_made_it_and_by_nobody_else(make_biz: MakeBiz, name: str) -> None:
    change, see = CHANGES[name]
    one, two = make_biz("one"), make_biz("two")
    before = as_biz(None, see)
    assert as_biz(one, see) == before

    def change_and_see() -> tuple[Any, Any]:
        change()
        return see(), on_thread(see)

    here, in_thread = as_biz(one, change_and_see)
    assert here == in_thread != before
    assert as_biz(two, see) == before
    assert as_biz(None, see) == before
    one.close()
    assert as_biz(one, see) == before
    assert as_biz(None, see) == before


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.usefixtures("base_is_settled")
def test_two_bizs_change_the_same_thing_and_leave_in_any_order(make_biz: MakeBiz, name: str) -> None:
    change, see = CHANGES[name]
    before = as_biz(None, see)
    one, two = make_biz("one"), make_biz("two")
    for biz in (one, two):
        as_biz(biz, change)
    one.close()

    def seen_again() -> Any:
        if name == "decimal":
            decimal.setcontext(decimal.DefaultContext)
        return see()

    assert as_biz(two, seen_again) != before
    two.close()
    assert as_biz(None, see) == before


def test_what_the_base_adds_later_shows_through(make_biz: MakeBiz) -> None:
    biz = make_biz()
    as_biz(biz, register_archives)
    shutil.register_archive_format("later", print)
    urllib.parse.uses_relative.append("later")
    try:
        assert {"later", "own"} < set(as_biz(biz, archives)[0])
        assert as_biz(biz, lambda: "later" in urllib.parse.uses_relative)
    finally:
        shutil.unregister_archive_format("later")
        urllib.parse.uses_relative.remove("later")
    assert "later" not in as_biz(biz, archives)[0]


def test_a_function_that_was_imported_before_the_first_biz_sees_it_too(make_biz: MakeBiz) -> None:
    STDLIB.release()
    from mimetypes import guess_type
    from urllib.request import urlopen

    STDLIB.acquire()
    biz = make_biz()
    as_biz(biz, lambda: mimetypes.add_type("x/y", ".koupleless"))
    as_biz(biz, lambda: urllib.request.install_opener(Opened()))  # type: ignore[arg-type]
    assert as_biz(biz, lambda: guess_type("a.koupleless")[0]) == "x/y"
    assert as_biz(biz, lambda: urlopen("nonsense://x")) == "own"
    assert guess_type("a.koupleless")[0] is None


def test_a_biz_reads_the_types_anew(make_biz: MakeBiz, tmp_path: Path) -> None:
    (tmp_path / "types").write_text("x/y koupleless\n")
    biz = make_biz()

    def init(files: Any) -> Any:
        mimetypes.init(files)
        return mimetypes.guess_type("a.koupleless")[0]

    assert as_biz(biz, lambda: init([str(tmp_path / "types")])) == "x/y"
    assert as_biz(biz, lambda: init(None)) is None
    assert as_biz(None, lambda: mimetypes.guess_type("a.koupleless")[0]) is None


def test_a_loop_that_a_biz_set_on_a_thread_is_not_the_next_ones(make_biz: MakeBiz) -> None:
    one, two = make_biz("one"), make_biz("two")

    def set_loop() -> bool:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        found = asyncio.get_event_loop() is loop
        loop.close()
        return found

    def has_loop() -> bool:
        try:
            return asyncio.get_event_loop() is not None
        except RuntimeError:
            return False

    def visits() -> list[bool]:
        return [as_biz(one, set_loop), as_biz(one, has_loop), as_biz(two, has_loop), as_biz(None, has_loop)]

    assert on_thread(visits) == [True, True, False, False]


def test_who_asks_for_a_policy_is_warned_where_it_asks(make_biz: MakeBiz) -> None:
    biz = make_biz()

    def told() -> list[tuple[str, str]]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            asyncio.get_event_loop_policy()
            asyncio.set_event_loop_policy(None)
        return [(str(warning.message), warning.filename) for warning in caught]

    by_python = [
        (f"'asyncio.{verb}_event_loop_policy' is deprecated and slated for removal in Python 3.16", __file__)
        for verb in ("get", "set")
    ]
    assert told() == as_biz(biz, told) == (by_python if sys.version_info >= (3, 14) else [])


def test_the_base_chooses_a_policy_while_a_biz_has_its_own(make_biz: MakeBiz) -> None:
    biz = make_biz()
    before = asyncio.get_event_loop_policy()
    as_biz(biz, uvloop.install)
    mine = Policy()
    try:
        asyncio.set_event_loop_policy(mine)
        assert asyncio.get_event_loop_policy() is mine
        assert as_biz(biz, policy).startswith("EventLoopPolicy uvloop")
        asyncio.set_event_loop_policy(None)
        assert type(asyncio.get_event_loop_policy()) is type(before)
        with pytest.raises(TypeError, match="must be an instance of"):
            as_biz(biz, lambda: asyncio.set_event_loop_policy("none"))  # type: ignore[arg-type]
    finally:
        asyncio.set_event_loop_policy(before)
    assert asyncio.get_event_loop_policy() is before


def test_a_biz_may_choose_a_start_method_after_the_base_has(make_biz: MakeBiz) -> None:
    multiprocessing.get_start_method()

    def choose(method: str) -> str:
        multiprocessing.set_start_method(method)
        return multiprocessing.get_start_method()

    biz = make_biz()
    assert as_biz(biz, lambda: choose("forkserver")) == "forkserver"
    with pytest.raises(RuntimeError, match="already been set"):
        as_biz(biz, lambda: choose("spawn"))


def test_contexts_of_decimal_are_copied_as_alone(make_biz: MakeBiz) -> None:
    def work() -> Any:
        decimal.DefaultContext.prec = 12
        third = decimal.Decimal(1) / 3
        decimal.getcontext().prec = 5
        kept = decimal.DefaultContext.prec
        decimal.setcontext(decimal.ExtendedContext)
        decimal.getcontext().prec = 4
        return str(third), kept, decimal.ExtendedContext.prec, decimal.getcontext() is decimal.getcontext()

    assert as_biz(make_biz(), work) == ("0.333333333333", 12, 9, True)


def test_a_biz_that_seeds_has_the_numbers_it_has_alone_and_leaves_those_of_others(make_biz: MakeBiz) -> None:
    def draw() -> list[Any]:
        things = list(range(9))
        random.shuffle(things)
        return [
            random.random(),
            random.gauss(0, 1),
            random.gauss(0, 1),
            random.randint(1, 99),
            random.choice("abc"),
            things,
        ]

    one, two = make_biz("one"), make_biz("two")
    random.seed(1)
    of_base = draw()
    random.seed(1)

    def seed() -> Any:
        random.seed(7)
        return random.getstate()

    state = as_biz(one, seed)
    as_biz(two, lambda: random.setstate(state))
    drawn = as_biz(one, draw)
    assert draw() == of_base
    assert as_biz(two, draw) == drawn
    assert as_biz(make_biz("three"), draw) != drawn
    random.seed(7)
    assert draw() == drawn


def test_gettext_installs_into_the_built_ins_of_whoever_asks_and_has_a_domain_for_each(
    make_biz: MakeBiz, tmp_path: Path
) -> None:
    before = as_biz(None, domain)
    biz = make_biz()
    as_biz(biz, lambda: choose_domain(tmp_path))
    assert as_biz(biz, domain) == ("own", str(tmp_path), "bonjour")
    assert as_biz(make_biz("two"), domain) == before == as_biz(None, domain)


def test_exceptions_in_log_handlers_are_told_or_not_for_each(
    make_biz: MakeBiz, capsys: pytest.CaptureFixture[str]
) -> None:
    biz = make_biz()
    as_biz(biz, lambda: setattr(logging, "raiseExceptions", False))
    assert logging.raiseExceptions is True
    assert as_biz(biz, lambda: handled_error(capsys)) == "kept"
    assert handled_error(capsys) == "told"


def test_a_dialect_that_is_not_there_is_refused_as_alone(make_biz: MakeBiz) -> None:
    biz = make_biz()
    for wrong in (
        lambda: csv.unregister_dialect("none"),
        lambda: csv.get_dialect("none"),
        lambda: csv.reader([], "none"),
    ):
        with pytest.raises(csv.Error, match="unknown dialect"):
            as_biz(biz, wrong)
    with pytest.raises(TypeError):
        as_biz(biz, lambda: csv.register_dialect(1))  # type: ignore[arg-type]


@pytest.fixture
def found() -> Iterator[dict[str, Any]]:
    mimetypes.init()  # reads files of the system, which the first use of the tables would read
    STDLIB.release()
    yield {
        "db": type(mimetypes._db),  # type: ignore[attr-defined]
        "formats": shutil._ARCHIVE_FORMATS,  # type: ignore[attr-defined]
        "relative": urllib.parse.uses_relative,
        "order": type(webbrowser._tryorder),  # type: ignore[attr-defined]
        "reader": csv.reader,
        "opener": urllib.request._opener,  # type: ignore[attr-defined]
        "context": decimal.getcontext,
        "modules": [type(module) for module in (ssl, decimal, tempfile, mimetypes, urllib.request)],
        "start": type(multiprocessing.context._default_context),
        "policy": asyncio.get_event_loop_policy(),
        "types": dict(mimetypes.types_map),
    }
    STDLIB.acquire()


def test_afterwards_the_modules_are_as_before(make_biz: MakeBiz, found: dict[str, Any]) -> None:
    STDLIB.acquire()
    for change, _ in CHANGES.values():
        as_biz(make_biz(), change)
    STDLIB.release()
    assert shutil._ARCHIVE_FORMATS is found["formats"]  # type: ignore[attr-defined]
    assert urllib.parse.uses_relative is found["relative"]
    assert csv.reader is found["reader"]
    assert urllib.request._opener is found["opener"]  # type: ignore[attr-defined]
    assert decimal.getcontext is found["context"]
    assert asyncio.get_event_loop_policy() is found["policy"]
    assert dict(mimetypes.types_map) == found["types"]
    assert type(mimetypes._db) is found["db"]  # type: ignore[attr-defined]
    assert type(webbrowser._tryorder) in {found["order"], list}  # type: ignore[attr-defined]
    assert type(multiprocessing.context._default_context) is found["start"]
    assert [type(module) for module in (ssl, decimal, tempfile, mimetypes, urllib.request)] == found["modules"]
