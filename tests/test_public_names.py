"""What is public, and what importing it costs: both are promises, so both are written down here."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import koupleless
import koupleless.base
import koupleless.service
import koupleless.testing

PUBLIC = {
    koupleless: [
        "BizGone",
        "BizId",
        "BizInfo",
        "BizState",
        "KouplelessError",
        "ModuleRefused",
        "ServiceError",
        "carry",
        "config",
        "current_biz",
        "data_dir",
        "health_check",
        "on_stop",
    ],
    koupleless.service: ["Registration", "ServiceError", "ServiceReference", "offer", "use", "use_all"],
    koupleless.base: ["Base", "serve"],
    koupleless.testing: ["Loaded", "LocalBase", "PurgeReport", "Reply", "assert_unloads", "loaded", "local_base"],
}


@pytest.mark.parametrize("namespace", PUBLIC, ids=lambda namespace: namespace.__name__)
def test_the_public_names_are_exactly_these(namespace):
    assert sorted(namespace.__all__) == PUBLIC[namespace]
    assert all(hasattr(namespace, name) for name in namespace.__all__)


@pytest.mark.parametrize("namespace", PUBLIC, ids=lambda namespace: namespace.__name__)
def test_the_types_of_every_public_name_are_pinned(namespace):
    files = Path(__file__).parent.parent.joinpath("typing_tests").glob("*.py")
    pinned = {word for file in files for word in re.findall(r"\w+", file.read_text(encoding="utf-8"))}

    # A reference has the type of the service that it stands for.
    assert set(namespace.__all__) - {"ServiceReference"} <= pinned


@pytest.mark.parametrize("namespace", PUBLIC, ids=lambda namespace: namespace.__name__)
def test_every_public_name_is_on_a_page_of_the_api(namespace):
    pages = Path(__file__).parent.parent.joinpath("docs/api").glob("*.md")
    shown = {
        name for page in pages for name in re.findall(r"^\.\. auto\w+:: (\w+)$", page.read_text("utf-8"), re.MULTILINE)
    }

    assert set(namespace.__all__) <= shown


def documented(namespace):
    """The functions and classes of a namespace with behaviour, in contrast to values, states and errors."""
    for name in namespace.__all__:
        value = getattr(namespace, name)
        is_value = dataclasses.is_dataclass(value) or (
            inspect.isclass(value) and issubclass(value, enum.Enum | Exception)
        )
        if not is_value:
            yield name, inspect.getdoc(value) or ""


@pytest.mark.parametrize("namespace", PUBLIC, ids=lambda namespace: namespace.__name__)
def test_every_public_function_and_class_says_on_which_threads(namespace):
    assert [name for name, text in documented(namespace) if not re.search(r"\bthreads?\b", text, re.IGNORECASE)] == []


@pytest.mark.parametrize("namespace", [koupleless, koupleless.testing], ids=lambda namespace: namespace.__name__)
def test_every_field_of_a_public_value_is_explained(namespace):
    """But for those that say all by their names."""
    plain = {"biz", "body", "held", "id", "name", "state", "status", "version"}
    for name in namespace.__all__:
        value = getattr(namespace, name)
        if inspect.isclass(value) and dataclasses.is_dataclass(value):
            source = inspect.getsource(value)
            explained = set(re.findall(r"^    (\w+):[^\n]*\n    \"\"\"", source, re.MULTILINE))
            assert {field.name for field in dataclasses.fields(value)} - explained <= plain, name


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_its_light_modules_only():
    own = {name for name in loaded_by("import koupleless") if name.startswith("koupleless")}

    light = ("biz", "errors")
    assert own == {"koupleless", *(f"koupleless.{name}" for name in light)}


@pytest.mark.parametrize("side", ["koupleless.client", "koupleless.cli.commands"])
def test_the_control_side_loads_neither_the_runtime_nor_a_web_framework(side):
    loaded = loaded_by(f"import {side}")

    heavy = {"starlette", "uvicorn", "a2wsgi", "rich", "psutil", "yaml", "asyncio"}
    rooms = {"base", "arklet", "container", "artifact", "isolation", "ownership", "view", "router", "service"}
    assert loaded & heavy == set()
    assert {name for name in loaded if name.startswith("koupleless.") and name.split(".")[1] in rooms} == set()


def test_a_base_that_has_installed_nothing_leaves_the_import_system_alone():
    code = (
        "import builtins, sys, os, threading, koupleless.base as b\n"
        "before = (builtins.__import__, type(sys.modules), type(os.environ), threading.Thread.start)\n"
        "base = b.Base(None)\n"
        "assert before == (builtins.__import__, type(sys.modules), type(os.environ), threading.Thread.start)\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
