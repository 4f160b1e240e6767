"""Places of modules: the answers of Python's own finder, from a list of the directory."""

from __future__ import annotations

import os
import py_compile
import sys
from importlib.machinery import EXTENSION_SUFFIXES, FileFinder, SourceFileLoader

import pytest

from koupleless.isolation.interpreter import bootstrap
from koupleless.isolation.places import forget_places, spec_at


@pytest.fixture
def finder(tmp_path):
    """Python's own finder for a directory with a little of everything."""
    for place in ("plain.py", "both.py", "both/__init__.py", "package/__init__.py", "package/inner.py", "bare/inner.py",
                  f"beside{EXTENSION_SUFFIXES[0]}", "beside.py", f"compiled/__init__{EXTENSION_SUFFIXES[-1]}",
                  "compiled/__init__.py", "source.py", "a.py/__init__.py", "over/x.txt", "over.py"):  # fmt: skip
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text("")
    py_compile.compile(str(tmp_path / "source.py"), cfile=str(tmp_path / "bytecode.pyc"))
    (tmp_path / "link.py").symlink_to("plain.py")
    (tmp_path / "linked").symlink_to("package")
    for directory in (tmp_path, *tmp_path.glob("*/")):
        os.utime(directory, ns=(0, 0))
    yield FileFinder.path_hook(*_details())(str(tmp_path))
    forget_places()


def _details():
    return bootstrap._bootstrap_external._get_supported_file_loaders()


def _at(finder, name):
    spec = spec_at(finder, name, SourceFileLoader)
    assert spec is not None
    return spec


@pytest.mark.parametrize("name", ["plain", "both", "package", "top.plain", "top.package"])
def test_a_source_file_has_the_spec_that_python_makes(finder, name):
    spec, expected = _at(finder, name), finder.find_spec(name)
    assert spec == expected
    assert vars(spec) == {**vars(expected), "_cached": expected.cached}


@pytest.mark.parametrize("name", ["bare", "over", "beside", "compiled", "bytecode", "link", "linked", "a", "missing"])
def test_the_finder_is_asked_for_anything_else(finder, name):
    assert spec_at(finder, name, SourceFileLoader) is None


def test_other_finders_are_asked(finder, monkeypatch):
    class Own(FileFinder):
        pass

    class Loader(SourceFileLoader):
        pass

    assert spec_at(Own(finder.path, *_details()), "plain", SourceFileLoader) is None
    assert spec_at(FileFinder(finder.path, (Loader, [".py"])), "plain", SourceFileLoader) is None
    assert spec_at(None, "plain", SourceFileLoader) is None
    monkeypatch.setattr(FileFinder, "find_spec", lambda *_: None)
    assert spec_at(finder, "plain", SourceFileLoader) is None


def test_what_comes_and_goes_is_noticed(finder, tmp_path):
    assert spec_at(finder, "later", SourceFileLoader) is None
    (tmp_path / "later.py").write_text("")
    os.utime(tmp_path, ns=(0, 1))
    assert spec_at(finder, "later", SourceFileLoader) == finder.find_spec("later")
    (tmp_path / "later.py").unlink()
    os.utime(tmp_path, ns=(0, 2))
    assert spec_at(finder, "later", SourceFileLoader) is None
    assert spec_at(finder, "package", SourceFileLoader) is not None
    (tmp_path / "package/__init__.py").unlink()
    os.utime(tmp_path / "package", ns=(0, 2))
    assert spec_at(finder, "package", SourceFileLoader) is None


def test_the_finder_is_asked_about_a_directory_that_has_just_changed(finder, tmp_path):
    os.utime(tmp_path)  # the next change may have the very same time
    assert spec_at(finder, "plain", SourceFileLoader) is None
    assert spec_at(finder, "package", SourceFileLoader) is None


def test_a_changed_place_for_bytecode_is_told_as_it_is_now(finder, monkeypatch, tmp_path):
    assert _at(finder, "plain").cached == finder.find_spec("plain").cached
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "elsewhere"))
    assert _at(finder, "plain").cached == finder.find_spec("plain").cached
    assert str(tmp_path / "elsewhere") in str(_at(finder, "plain").cached)
