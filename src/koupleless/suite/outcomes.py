"""The outcome of every test of a run, and the differences of two runs."""

from __future__ import annotations

import enum
import re
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from koupleless.errors import KouplelessError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path


class Outcome(enum.Enum):
    """The outcome of one test in a report; an expected failure counts as skipped."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    SKIPPED = "skipped"


class NoReport(KouplelessError):
    """A run without a readable report."""


_TEST: Final = re.compile(r"^(\w+) \(([\w.]+)\)")
_RESULT: Final = re.compile(r" \.\.\. (ok|FAIL|ERROR|skipped|expected failure|unexpected success)\b")
_RESULTS: Final = {
    "ok": Outcome.PASSED,
    "FAIL": Outcome.FAILED,
    "ERROR": Outcome.ERROR,
    "skipped": Outcome.SKIPPED,
    "expected failure": Outcome.SKIPPED,
    "unexpected success": Outcome.FAILED,
}
_ELEMENTS: Final = {"failure": Outcome.FAILED, "error": Outcome.ERROR, "skipped": Outcome.SKIPPED}


@dataclass(frozen=True, slots=True)
class Difference:
    """One test with different outcomes in the two runs; ``None`` stands for a test that did not run."""

    test: str
    alone: Outcome | None
    inside: Outcome | None
    message: str
    """The message of the run inside, in one line."""

    def as_text(self) -> str:
        """One line for people."""
        alone, inside = (outcome.value if outcome else "not run" for outcome in (self.alone, self.inside))
        return f"{self.test}: {alone} alone, {inside} inside" + (f": {self.message}" if self.message else "")


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The tests of one run, by name."""

    tests: Mapping[str, Outcome]
    messages: Mapping[str, str]
    """Test -> the first line of the failure."""

    @classmethod
    def read(cls, report: Path) -> Self:
        """Read a file that pytest wrote for ``--junitxml``. Raises ``NoReport``."""
        try:
            root = ET.parse(report).getroot()  # noqa: S314 - written by the run we started
        except (OSError, ET.ParseError) as error:
            raise NoReport(f"the run ended without a report of its tests: {error}") from error
        tests: dict[str, Outcome] = {}
        messages: dict[str, str] = {}
        for name, case in _named(root.iter("testcase")):
            tests[name] = Outcome.PASSED
            for element in case:
                outcome = _ELEMENTS.get(element.tag)
                if outcome is not None:
                    tests[name] = outcome
                    messages[name] = (element.get("message") or "").partition("\n")[0]
        return cls(tests, messages)

    @classmethod
    def parse(cls, output: str) -> Self:
        """Read the output of ``unittest -v``. Raises ``NoReport`` for an output without tests."""
        tests: dict[str, Outcome] = {}
        name = ""
        for line in output.splitlines():
            begun = _TEST.match(line)
            if begun:
                name = f"{begun[2]}::{begun[1]}"
            ended = _RESULT.search(line)
            if ended and name:
                tests[name] = _RESULTS[ended[1]]
                name = ""
        if not tests:
            raise NoReport(
                "the run printed no tests; let the program of the tests print each, as unittest does with -v"
            )
        return cls(tests, {})

    def as_text(self) -> str:
        """Like ``12 passed, 1 failed``."""
        counted = Counter(self.tests.values())
        return ", ".join(f"{counted[outcome]} {outcome.value}" for outcome in Outcome if counted[outcome]) or "no tests"

    def differences(self, inside: Self) -> list[Difference]:
        """The differences between this run, alone, and a run ``inside``."""
        names = dict.fromkeys([*self.tests, *inside.tests])
        return [
            Difference(name, self.tests.get(name), inside.tests.get(name), inside.messages.get(name, ""))
            for name in names
            if self.tests.get(name) is not inside.tests.get(name)
        ]


def _named(cases: Iterable[ET.Element]) -> Iterator[tuple[str, ET.Element]]:
    """Each test with a unique name: parametrised tests may share one."""
    seen: Counter[str] = Counter()
    for case in cases:
        name = f"{case.get('classname') or ''}::{case.get('name') or ''}".removeprefix("::")
        seen[name] += 1
        yield (name if seen[name] == 1 else f"{name} ({seen[name]})"), case
