"""A Chromium without a window, driven by its driver, and a base with modules for its pages.

`scripts/browser` finds or makes the Chromium; on a machine without one, and nowhere to take it from, these tests are
skipped, in continuous integration they fail.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.browser.driver import Driver
from tests.conftest import made_once, shared_directory, unmeasured, until
from tests.e2e.conftest import BaseProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.browser.driver import Element

ROOT = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")


class Browser:
    """One profile of a Chromium: what it keeps (cookies) stays until `forget`."""

    def __init__(self, chrome: Driver) -> None:
        self.chrome = chrome

    def open(self, url: str) -> None:
        self.chrome.get(url)

    def forget(self) -> None:
        """Remove all cookies, of every path."""
        self.chrome.forget_cookies()

    def find(self, selector: str) -> Element:
        return self.chrome.find(selector)

    def text(self, selector: str = "body") -> str:
        return self.find(selector).text

    def run(self, script: str) -> Any:
        """The result of a script in the page; a promise is awaited."""
        return self.chrome.run(f"return {script}")

    def shows(self, text: str, selector: str = "body") -> None:
        """Wait until an element of the page has a text; the page may be another one by then."""

        def is_shown() -> bool:
            # Between two pages there may be no such element, or one of the page before.
            with contextlib.suppress(Exception):
                return text in self.text(selector)
            return False

        until(is_shown, 20, otherwise=f"{text!r} is not shown")


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The paths of Chromium and of its driver."""

    def ask(path: Path) -> None:
        done = subprocess.run([ROOT / "scripts" / "browser"], capture_output=True, text=True, timeout=600, check=False)
        path.write_text(done.stdout if done.returncode == 0 else "")
        path.with_name("browser.log").write_text(done.stderr)

    found = made_once(shared_directory(tmp_path_factory, "browser") / "paths", ask)
    paths = found.read_text().split()
    if not paths:
        reason = f"no Chromium: {found.with_name('browser.log').read_text().strip()}"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    return paths


@pytest.fixture(scope="session")
def chrome(chromium: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    binary, driver = chromium
    profile = tmp_path_factory.mktemp("profile")
    # Without a sandbox it runs as any user, in any container; it sees pages of these tests alone.
    switches = ("headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", f"user-data-dir={profile}")
    made = Driver(binary, driver, switches, {**unmeasured(), "HOME": str(profile)})
    yield Browser(made)
    made.quit()


@pytest.fixture
def browser(chrome: Browser) -> Iterator[Browser]:
    """The one Chromium, without cookies and messages of its console, at an empty page before and after."""
    chrome.forget()
    chrome.chrome.messages()
    yield chrome
    chrome.open("about:blank")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseProcess]:
    """A base of its own for each file of tests, which deploys what it needs."""
    directory = tmp_path_factory.mktemp("base")
    made = BaseProcess(("--state-dir", str(directory / "state")), cwd=directory, log=directory / "base.log")
    yield made
    made.popen.kill()  # the way out of many modules is long, and tested elsewhere
    made.popen.wait()


def write(project: Path, files: dict[str, str], *, keys: str = "", needs: tuple[str, ...] = ()) -> Path:
    """A project of these files, named as its directory; ``keys`` are lines of ``[tool.koupleless.module]``."""
    for place, text in files.items():
        (project / place).parent.mkdir(parents=True, exist_ok=True)
        (project / place).write_text(text)
    head = f'[project]\nname = "{project.name}"\nversion = "1"\ndependencies = {list(needs)!r}\n'
    (project / "pyproject.toml").write_text(f"{head}\n[tool.koupleless.module]\n{keys}\n")
    return project
