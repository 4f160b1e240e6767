"""Code that walks frames, in a module of a base and alone: the same files and functions, in the same order."""

from __future__ import annotations

import importlib.util
import sys
import textwrap
import warnings
from typing import TYPE_CHECKING, Any, Final

import pytest

from koupleless.testing import loaded

if TYPE_CHECKING:
    from pathlib import Path

WALK: Final = '''
import os
import sys
import traceback
import warnings


def walk():
    """From the caller outwards to ``outermost``; importlib's frames are those that everybody passes over."""
    frame, found = sys._getframe(1), []
    while frame is not None and frame.f_code.co_name != "outermost":
        if "importlib" not in frame.f_code.co_filename:
            module = frame.f_globals["__name__"]
            found.append((os.path.basename(frame.f_code.co_filename), frame.f_code.co_name, module))
        frame = frame.f_back
    return found


def trace(error):
    entries = traceback.extract_tb(error.__traceback__)
    return [(os.path.basename(entry.filename), entry.name) for entry in entries if "importlib" not in entry.filename]


def outermost():
    return run()
'''

IDIOMS: Final = {
    "a handler, as loguru's and sentry's": """
        import logging

        class Intercepting(logging.Handler):
            def emit(self, record):
                frame, depth = sys._getframe(6), 6
                while frame and frame.f_code.co_filename == logging.__file__:
                    frame, depth = frame.f_back, depth + 1
                found.append((walk(), depth, os.path.basename(frame.f_code.co_filename), frame.f_code.co_name))

        found = []

        def run():
            logger = logging.getLogger("walked")
            logger.addHandler(Intercepting())
            logger.warning("one")
            logger.log(logging.ERROR, "two", stack_info=True)
            logging.LoggerAdapter(logger, {}).error("three")
            logger.handlers.clear()
            return found
    """,
    "a filter and a record factory": """
        import logging

        def run():
            found = []
            before = logging.getLogRecordFactory()

            def factory(*args, **kwargs):
                found.append(walk())
                record = before(*args, **kwargs)
                found.append((record.filename, record.funcName, record.lineno))
                return record

            logger = logging.getLogger("walked.filtered")
            logger.addFilter(lambda record: found.append(walk()))
            logging.setLogRecordFactory(factory)
            logger.warning("one")
            logger.warning("two", stacklevel=2)
            logging.setLogRecordFactory(before)
            return found
    """,
    "a function that shows warnings": """
        def run():
            found = []
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                warnings.showwarning = lambda *args, **kwargs: found.append(walk())
                warnings.warn("one")
            return found
    """,
    "objects among those of sys.path": """
        class Odd:
            __hash__ = None

            def __eq__(self, other):
                found.append(walk())
                return False

        found = []

        def run():
            assert Odd() not in sys.path
            try:
                sys.path.remove("nowhere")
            except ValueError as error:
                found.append(trace(error))
            try:
                sys.modules["nowhere"]
            except KeyError as error:
                found.append(trace(error))
            return found[-3:]
    """,
    "variables of the environment": """
        class Text(str):
            def encode(self, *args):
                found.append(walk())
                return super().encode(*args)

        found = []

        def run():
            os.environ[Text("WALKED")] = Text("1")
            os.environ.get(Text("WALKED"))
            del os.environ[Text("WALKED")]
            try:
                os.environ["NOWHERE"]
            except KeyError as error:
                found.append(trace(error))
            return found
    """,
    "work in an executor": """
        from concurrent.futures import ThreadPoolExecutor

        def fail():
            raise LookupError

        def run():
            with ThreadPoolExecutor(1) as pool:
                try:
                    pool.submit(fail).result()
                except LookupError as error:
                    return trace(error)
    """,
    "reducers and handlers of codecs": """
        import codecs
        import copy
        import copyreg

        class Thing:
            pass

        def run():
            found = []
            copyreg.pickle(Thing, lambda thing: (found.append(walk()), (int, ()))[1])
            copy.copy(Thing())
            codecs.register_error("walked", lambda error: (found.append(walk()), ("", error.end))[1])
            "\\xff".encode("ascii", "walked")
            return found
    """,
    "a function and a method of the standard library, patched at import": """
        import textwrap

        found = []
        before = textwrap.dedent, textwrap.TextWrapper.wrap, textwrap.TextWrapper.__init__

        def dedent(text):
            warnings.warn("old", DeprecationWarning, stacklevel=2)
            found.append(walk())
            if text == "fail":
                raise LookupError
            return before[0](text)

        def wrap(self, text):
            warnings.warn("old", DeprecationWarning, stacklevel=2)
            found.append(walk())
            return before[1](self, text)

        def init(self, *args, **kwargs):
            warnings.warn("old", DeprecationWarning, stacklevel=2)
            found.append(walk())
            before[2](self, *args, **kwargs)

        def put(functions):
            textwrap.dedent, textwrap.TextWrapper.wrap, textwrap.TextWrapper.__init__ = functions

        put((dedent, wrap, init))

        def restore():
            put(before)

        def run():
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                textwrap.dedent("nothing-of-that-name")
                try:
                    textwrap.dedent("fail")
                except LookupError as error:
                    found.append(trace(error))
                textwrap.TextWrapper().wrap("a text")
                textwrap.wrap("a text")
            return found, [(os.path.basename(each.filename), each.lineno) for each in seen]
    """,
    "a property of a shared class, patched at import": """
        import fractions

        found = []
        before = fractions.Fraction.numerator

        def numerator(self):
            warnings.warn("old", DeprecationWarning, stacklevel=2)
            found.append(walk())
            if not self._numerator:
                raise LookupError
            return before.fget(self)

        fractions.Fraction.numerator = property(numerator)

        def restore():
            fractions.Fraction.numerator = before

        def run():
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                fractions.Fraction(1, 2).numerator
                try:
                    fractions.Fraction(0, 2).numerator
                except LookupError as error:
                    found.append(trace(error))
            return found, [(os.path.basename(each.filename), each.lineno) for each in seen]
    """,
    "tasks that wait, and callbacks of futures": """
        import asyncio
        import threading

        def run():
            found = []

            async def inner():
                await asyncio.sleep(5)

            async def outer():
                task = asyncio.create_task(inner())
                await asyncio.sleep(0)
                found.append([frame.f_code.co_name for frame in task.get_stack()])
                future = asyncio.get_running_loop().create_future()
                future.add_done_callback(lambda _: found.append(walk()[:1]))
                future.set_result(None)
                await future
                await asyncio.sleep(0)
                task.cancel()

            thread = threading.Thread(target=lambda: asyncio.run(outer()))
            thread.start()
            thread.join()
            return found
    """,
    "the call sites of loguru and structlog": """
        import io
        import logging

        import loguru
        import structlog

        class Intercepting(logging.Handler):
            def emit(self, record):
                frame, depth = sys._getframe(), 0
                while frame and (depth == 0 or frame.f_code.co_filename == logging.__file__):
                    frame, depth = frame.f_back, depth + 1
                logger = loguru.logger.opt(depth=depth, exception=record.exc_info)
                logger.log(record.levelname, record.getMessage())

        def run():
            found = []
            loguru.logger.remove()
            loguru.logger.add(found.append, format="{name}:{function}:{line}:{file.name}:{message}")
            logger = logging.getLogger("walked.intercepted")
            logger.addHandler(Intercepting())
            logger.warning("from the standard library")
            loguru.logger.warning("its own")
            loguru.logger.remove()
            places = [structlog.processors.CallsiteParameter(name) for name in ("func_name", "filename", "lineno")]
            processors = [
                structlog.processors.CallsiteParameterAdder(places),
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(sort_keys=True),
            ]
            stream = io.StringIO()
            handler = logging.StreamHandler(stream)
            handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=processors))
            logger.handlers[:] = [handler]
            logger.warning("formatted")
            logger.handlers.clear()
            return [str(each) for each in found], stream.getvalue()
    """,
    "what names its module by the frame that calls": """
        import collections
        import dataclasses
        import enum
        import typing

        def run():
            made = (
                collections.namedtuple("Pair", "a b"),
                enum.Enum("Colour", "RED"),
                typing.TypeVar("T"),
                typing.NewType("N", int),
                typing.NamedTuple("Named", [("a", int)]),
            )
            return [thing.__module__ for thing in made]
    """,
}


def source_of(idiom: str) -> str:
    return WALK + textwrap.dedent(IDIOMS[idiom])


def alone(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
        try:
            return module.outermost()
        finally:
            getattr(module, "restore", int)()
    finally:
        del sys.modules[path.stem]


@pytest.mark.parametrize("idiom", IDIOMS)
def test_the_same_frames_are_seen_inside_and_alone(tmp_path: Path, idiom: str) -> None:
    path = tmp_path / "walking.py"
    path.write_text(source_of(idiom))
    expected = alone(path)
    with loaded(path) as module:
        assert module.call("outermost") == expected
    assert expected


def test_a_deprecated_name_is_told_of_whoever_imports_it(tmp_path: Path) -> None:
    """The import looks for the name twice, then it is read; every time that is a line of the module's own."""
    (tmp_path / "aged").mkdir()
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "stacklevel"\nversion = "1"\n[tool.koupleless.module]\nentry = "aged.web"\n'
    )
    (tmp_path / "aged/__init__.py").write_text(
        textwrap.dedent("""
            import warnings

            def __getattr__(name):
                if name == "old":
                    warnings.warn("old is old", DeprecationWarning, stacklevel=2)
                    return 1
                raise AttributeError(name)
        """)
    )
    (tmp_path / "aged/web.py").write_text(
        textwrap.dedent("""
            import warnings
            from pathlib import Path

            def who():
                import aged

                with warnings.catch_warnings(record=True) as seen:
                    warnings.simplefilter("always")
                    from aged import old

                    aged.old
                return " ".join(Path(each.filename).name for each in seen)
        """)
    )
    with loaded(tmp_path) as module, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert module.call("aged.web:who") == "web.py web.py web.py"
