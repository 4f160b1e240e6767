"""A biz's own copy of a library that the base has, beside one that is shared, one read anew, and a second equal one.

Each kind of a library is a fresh process that loads it for several bizs, one after the other; figures are those of all
but the first, times those of the processor. "Read anew" is a private version of other text, "equal" one that another
biz has brought already. Private versions come with the inventory that a store has of all that it has unpacked.
"""

from __future__ import annotations

import compileall
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import Row, report
from private_library import LIBRARIES, copy

from koupleless.artifact.keeping.inventory import Inventory

BIZS = 4
ROUNDS = 3

CHILD = """
import gc, importlib, json, os, sys, time
from pathlib import Path
from koupleless.artifact.keeping.inventory import Inventory
from koupleless.biz import BizId
from koupleless.context import Scope
from koupleless.isolation.libraries.holding import Speakers, Wishes, decide
from koupleless.isolation.libraries.distributions import base_index
from koupleless.isolation.namespace import Namespace

order = json.loads(sys.argv[1])
for name in order["names"]:
    importlib.import_module(name)
wishes = Wishes.of(own=order["own"], shared=order["shared"])
speakers = Speakers(base=wishes)
decide(base_index(), speakers)
kept, took = [], []

def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

def known(root):
    place = Path(f"{root}.json")
    inventory = Inventory.read(place) if place.exists() else Inventory({})
    return lambda path, size, changed_ns: inventory.text_of(path.removeprefix(f"{root}/"), size, changed_ns)

every = [(root, known(root)) for root in order["roots"]]
for number, (root, texts) in enumerate(every):
    if number == 1:
        before = resident()
    begin = time.thread_time()
    namespace = Namespace(Scope(BizId.of("bench", str(number))), ["/nowhere", root], speakers=speakers, texts=texts)
    for name in order["names"]:
        namespace.import_module(name)
    took.append((time.thread_time() - begin) * 1e3)
    kept.append(namespace)
print(json.dumps({"ms": took[1:], "mb": (resident() - before) / (len(took) - 1), "first_ms": took[0]}))
"""


def run(names: tuple[str, ...], roots: list[str], *, own: list[str], shared: list[str]) -> dict[str, float]:
    """Milliseconds and MB of one more, told by a fresh process."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "django.conf.global_settings"}
    order = json.dumps({"names": names, "roots": roots, "own": own, "shared": shared})
    command = [sys.executable, "-c", CHILD, order]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)
    return {"ms": statistics.median(told["ms"]), "mb": told["mb"]}


def privately(library: str, directory: Path, *, is_equal: bool) -> list[str]:
    """Directories with the library and what it needs, of the same text or each of its own."""
    first = directory / ("equal" if is_equal else "other")
    copy(library, first)
    roots = [first]
    for number in range(1, BIZS):
        root = directory / f"{first.name}-{number}"
        shutil.copytree(first, root)  # with bytecode, which is good for the copies, as their times are the same
        if not is_equal:
            for file in root.rglob("*.py"):
                with file.open("a", encoding="utf-8") as text:
                    text.write(f"\n# {number}\n")
            compileall.compile_dir(root, quiet=2, force=True)
        roots.append(root)
    for root in roots:
        files = [file for file in root.rglob("*") if file.is_file()]
        digests = {str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
        Inventory.of(root, digests).write(root.with_name(f"{root.name}.json"))
    return [str(root) for root in roots]


def main() -> None:
    """Compare, library by library."""
    rows, details = [], {}
    for library, names in LIBRARIES.items():
        with tempfile.TemporaryDirectory() as name:
            nowhere = ["/nowhere"] * BIZS
            kinds = {
                "shared": (nowhere, [], [library]),
                "copy": (nowhere, [library], []),
                "read": (privately(library, Path(name), is_equal=False), [], []),
                "equal": (privately(library, Path(name), is_equal=True), [], []),
            }
            figures: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
            for _ in range(ROUNDS):
                for kind, (roots, own, shared) in kinds.items():
                    figures[kind].append(run(names, roots, own=own, shared=shared))
        middle = {
            kind: {unit: statistics.median(each[unit] for each in several) for unit in ("ms", "mb")}
            for kind, several in figures.items()
        }
        details[library] = middle
        for unit, word in (("ms", "ms"), ("mb", "MB")):
            read = middle["read"][unit]
            for kind, budget in (("copy", 0.4 if unit == "mb" else None), ("equal", 0.5 if unit == "ms" else None)):
                ratio = middle[kind][unit] / read
                rows.append(
                    Row(
                        f"{library}: {'own copy' if kind == 'copy' else 'second equal private version'}",
                        f"{middle[kind][unit]:.1f} {word}",
                        f"{read:.1f} {word} (read anew), {middle['shared'][unit]:.2f} (shared)",
                        f"{ratio:.2f} x",
                        "" if budget is None else f"<= {budget}",
                        None if budget is None else ratio <= budget,
                    )
                )
    report("own_copy", rows, details)


if __name__ == "__main__":
    main()
