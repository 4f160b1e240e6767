"""A Chromium by the protocol of its driver: the few commands of WebDriver (W3C) that tests of pages need."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any, Final

import httpx
from tests.conftest import free_port, until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ELEMENT: Final = "element-6066-11e4-a52e-4f735466cecf"
"""The member by which WebDriver refers to an element (section 12.1)."""


class Refused(Exception):
    """The driver has refused a command: no such element, say."""


class Driver:
    """One window of a Chromium. Lifetime: until `quit`, which ends browser and driver."""

    def __init__(self, binary: str, driver: str, switches: Sequence[str], environment: Mapping[str, str]) -> None:
        self._session = ""
        port = free_port()
        self._process = subprocess.Popen(
            [driver, f"--port={port}"],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)
        try:
            until(self._is_up, otherwise="the driver does not answer")
            options = {"binary": binary, "args": [f"--{switch}" for switch in switches]}
            wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            made = self._send("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            self._session = f"/session/{made['sessionId']}"
            self._send("POST", "/timeouts", {"pageLoad": 30_000, "script": 30_000})
        except BaseException:
            self.quit()
            raise

    def quit(self) -> None:
        """End the browser and the driver."""
        if self._process.poll() is None and self._session:
            self._send("DELETE", "")
        self._http.close()
        self._process.kill()
        self._process.wait()

    def get(self, url: str) -> None:
        """Open a page, and wait until the page is loaded."""
        self._send("POST", "/url", {"url": url})

    @property
    def title(self) -> str:
        """The title of the page."""
        return str(self._send("GET", "/title"))

    @property
    def current_url(self) -> str:
        """The address of the page."""
        return str(self._send("GET", "/url"))

    @property
    def page_source(self) -> str:
        """The text of the page as it is now."""
        return str(self._send("GET", "/source"))

    def cookies(self) -> list[dict[str, Any]]:
        """The cookies that the page would be sent with."""
        return list(self._send("GET", "/cookie"))

    def forget_cookies(self) -> None:
        """Remove all cookies, of every path."""
        self._send("POST", "/goog/cdp/execute", {"cmd": "Network.clearBrowserCookies", "params": {}})

    def find(self, selector: str) -> Element:
        """The first element of a CSS selector. Raises `Refused`."""
        found = self._send("POST", "/element", {"using": "css selector", "value": selector})
        return Element(self, found[_ELEMENT])

    def run(self, script: str) -> Any:
        """The result of a script; a promise is awaited."""
        return self._send("POST", "/execute/sync", {"script": script, "args": []})

    def messages(self) -> list[dict[str, Any]]:
        """The messages of the console since the last call."""
        return list(self._send("POST", "/se/log", {"type": "browser"}))

    def _is_up(self) -> bool:
        try:
            return bool(self._http.get("/status").json()["value"]["ready"])
        except httpx.TransportError:
            return False

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        url = path if path == "/session" else self._session + path
        answer = self._http.request(method, url, json=body if method == "POST" else None)
        value = answer.json()["value"]
        if answer.is_error:
            raise Refused(f"{value['error']}: {value['message']}")
        return value


class Element:
    """One element of the page; gone with the page."""

    def __init__(self, driver: Driver, reference: str) -> None:
        self._driver = driver
        self._path = f"/element/{reference}"

    @property
    def text(self) -> str:
        """The text as a person sees it."""
        return str(self._driver._send("GET", f"{self._path}/text"))

    def style(self, name: str) -> str:
        """The computed value of a property of the style."""
        return str(self._driver._send("GET", f"{self._path}/css/{name}"))

    def type(self, text: str) -> None:
        """Type into the element."""
        self._driver._send("POST", f"{self._path}/value", {"text": text})

    def click(self) -> None:
        """Click the element."""
        self._driver._send("POST", f"{self._path}/click", {})
