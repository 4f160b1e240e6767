"""Importing a library that a biz brings itself, beside the plain import of the same files, both with warm bytecode.

Each figure is a fresh process: a library can be imported for the first time only once. The two kinds take turns.
"""

from __future__ import annotations

import compileall
import importlib.util
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import Row, report, spread

ROUNDS = 15

# Both have the same part of the standard library loaded when their clock starts.
PLAIN = """
import sys, time
import importlib
from koupleless.isolation.namespace import Namespace
sys.path.insert(0, sys.argv[1])
begin = time.perf_counter()
for name in sys.argv[2:]:
    importlib.import_module(name)
own = [name for name in sys.modules if name.startswith(sys.argv[2].partition(".")[0])]
print((time.perf_counter() - begin) * 1e3, len(own))
"""
IN_A_BIZ = """
import sys, time
import importlib
from koupleless.biz import BizId
from koupleless.context import Scope
from koupleless.isolation.namespace import Namespace
begin = time.perf_counter()
namespace = Namespace(Scope(BizId.parse("bench:1")), [sys.argv[1]])
for name in sys.argv[2:]:
    namespace.import_module(name)
own = [name for name in namespace.table if name.startswith(sys.argv[2].partition(".")[0])]
print((time.perf_counter() - begin) * 1e3, len(own))
"""
LIBRARIES = {
    "django": ("django.db.models", "django.contrib.admin", "django.test"),
    "flask": ("flask",),
    "sqlalchemy": ("sqlalchemy", "sqlalchemy.orm"),
}
NEEDS = {
    "django": ("asgiref", "sqlparse"),
    "flask": ("werkzeug", "jinja2", "click", "itsdangerous", "blinker"),
    "sqlalchemy": (),
}


def copy(name: str, to: Path) -> None:
    """The library and what it needs, without metadata, so that all of it is the biz's own."""
    for package in (name, *NEEDS[name]):
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        shutil.copytree(Path(spec.origin).parent, to / package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    compileall.compile_dir(to, quiet=2, force=True)


def run(code: str, root: Path, names: tuple[str, ...]) -> tuple[float, int]:
    """Milliseconds and number of modules, told by a fresh process."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "django.conf.global_settings"}
    command = [sys.executable, "-c", code, str(root), *names]
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.split()
    return float(told[0]), int(told[1])


def main() -> None:
    """Compare, library by library."""
    rows, details = [], {}
    for library, names in LIBRARIES.items():
        with tempfile.TemporaryDirectory() as directory:
            root = Path(directory)
            copy(library, root)
            run(PLAIN, root, names)
            plain: list[tuple[float, int]] = []
            own: list[tuple[float, int]] = []
            for turn in range(ROUNDS):
                for code, into in ((PLAIN, plain), (IN_A_BIZ, own))[:: 1 if turn % 2 else -1]:
                    into.append(run(code, root, names))
        ratio = statistics.median(b[0] / a[0] for a, b in zip(plain, own, strict=True))
        ours, peer = spread([each[0] for each in own]), spread([each[0] for each in plain])
        details[library] = {"biz_ms": ours, "plain_ms": peer, "modules": [plain[0][1], own[0][1]], "ratio": ratio}
        label = f"{library}, {own[0][1]} modules of its own, P50"
        figures = (f"{ours['p50']:.0f} ms", f"{peer['p50']:.0f} ms (plain import)", f"{ratio:.2f} x")
        rows.append(Row(label, *figures, "<= 1.15", ratio <= 1.15))
    report("private_library", rows, details)


if __name__ == "__main__":
    main()
