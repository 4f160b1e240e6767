"""What is imported is declared, and what is declared is imported."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import sys
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGE = Path(__file__).parent.parent / "src" / "koupleless"
OF_DEMO = [*PACKAGE.glob("cli/demonstration/*.py"), *PACKAGE.rglob("demo_base.py.tmpl")]
OF_CONTROLLER = [*PACKAGE.glob("controller/**/*.py"), PACKAGE / "cli" / "controlling.py"]
OF_LIBRARIES = [*PACKAGE.glob("adapters/*.py")]
"""Files that import the library they are for, where a base has it."""
OF_MQTT = [PACKAGE / "announce" / "session.py"]
"""The file that imports the client of a broker, where a base has one."""
OF_TESTS = [PACKAGE / "fixtures.py", PACKAGE / "testing.py"]
"""Files that import libraries of tests: pytest, which has loaded the one, and httpx for a client."""


def imported_by(file: Path) -> set[str]:
    """The top-level names that a file imports, wherever in it, those given to ``import_module`` as text included."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module or "")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            name = node.args[0]
            names |= {name.value} if isinstance(name, ast.Constant) and isinstance(name.value, str) else set()
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"koupleless"}


@functools.cache
def distributions() -> dict[str, set[str]]:
    """Top-level names, with the distributions that have them."""
    found = importlib.metadata.packages_distributions()
    return {name: {canonicalize_name(one) for one in owners} for name, owners in found.items()}


def owners_of(files: list[Path]) -> set[str]:
    names = {name for file in files for name in imported_by(file)}
    return {owner for name in names for owner in distributions()[name]}


def declared(extra: str | None = None) -> set[str]:
    """The distributions that the package requires, or those that one of its extras adds."""
    requirements = [Requirement(text) for text in importlib.metadata.requires("koupleless") or ()]
    marker = None if extra is None else Marker(f'extra == "{extra}"')
    return {canonicalize_name(one.name) for one in requirements if one.marker == marker}


def test_the_package_imports_what_it_declares_and_nothing_else():
    others = [*OF_DEMO, *OF_CONTROLLER, *OF_LIBRARIES, *OF_MQTT, *OF_TESTS]
    files = [file for file in PACKAGE.rglob("*.py") if file not in others]

    assert owners_of(files) == declared()


def test_the_demonstration_imports_what_its_extra_declares_besides():
    assert owners_of(OF_DEMO) - declared() == declared("demo")


def test_the_controller_imports_what_its_extra_declares_besides():
    names = {name for file in OF_CONTROLLER for name in imported_by(file)}
    extra = declared("controller")

    assert [name for name in names if not distributions()[name] & (extra | declared())] == []
    assert extra <= owners_of(OF_CONTROLLER)  # one name may have several owners: lightkube brings its models apart


def test_the_client_of_a_broker_is_what_its_extra_declares():
    assert owners_of(OF_MQTT) - declared() == declared("mqtt")
