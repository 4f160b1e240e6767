"""Orders: requests of the wire, checked and typed. Past this file, no function takes a text that may be missing.

The texts of the refusals are the original's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from koupleless.biz import BizId, BizState, parse_name
from koupleless.container.terms import Located, Stored, Strategy
from koupleless.envfiles import variable_issue
from koupleless.errors import BizNotFound, FetchFailed, InvalidIdentity, KouplelessError
from koupleless.wire.envelope import InputInvalid
from koupleless.wire.replies import BizDetails
from koupleless.wire.requests import is_blank

if TYPE_CHECKING:
    from collections.abc import Mapping

    from koupleless.wire.requests import BatchInstallBiz, BizRequest, InstallBiz

_DIGEST: Final = re.compile("[0-9a-f]{64}")


class NoIdentity(BizNotFound):
    """An impossible identity in the place of an installed biz."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        KouplelessError.__init__(self, f"biz {identity} is not installed")


@dataclass(frozen=True, slots=True)
class InstallOrder:
    """The order to install one biz."""

    url: str
    biz: BizId | None
    """The identity of the artefact; ``None`` if any will do."""
    strategy: Strategy
    args: tuple[str, ...]
    envs: Mapping[str, str] = field(repr=False)
    project_envs: Mapping[str, str] | None = field(default=None, repr=False)
    """Variables of the env-file of the project; ``None`` if the order does not come from a project."""
    digest: str | None = None
    """The digest that the artefact must have."""

    @classmethod
    def of(cls, request: InstallBiz) -> InstallOrder:
        """Read a request. Raises ``InputInvalid``, and ``InvalidIdentity`` for an impossible name or version."""
        if request.biz_url is None or is_blank(request.biz_url):
            raise InputInvalid("bizUrl should not be blank")
        if is_blank(request.biz_name) != is_blank(request.biz_version):
            raise InputInvalid("bizName and bizVersion should be both blank or both not blank.")
        digest = None if is_blank(request.biz_digest) else request.biz_digest
        if digest is not None and (not _DIGEST.fullmatch(digest) or is_blank(request.biz_name)):
            raise InputInvalid("bizDigest should be 64 hexadecimal digits in lower case, with bizName and bizVersion")
        check_variables("envs", request.envs or {})
        check_variables("projectEnvs", request.project_envs or {})
        biz = None if is_blank(request.biz_name) else BizId.of(request.biz_name or "", request.biz_version or "")
        return cls(
            request.biz_url.strip(),
            biz,
            _strategy(request),
            tuple(request.args or ()),
            request.envs or {},
            request.project_envs,
            digest,
        )

    def source(self, biz: BizId) -> Located | Stored:
        """The artefact of ``biz``: by URL, or in the store by digest."""
        return Located(biz, self.url) if self.digest is None else Stored(biz, self.digest, self.url)

    def check_url(self) -> None:
        """Raise ``FetchFailed`` for a path, which is another file on every machine."""
        if not urlsplit(self.url).scheme:
            raise FetchFailed(self.url, "no protocol: it has to begin with file://, http://, https:// or oci://")


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a batch."""

    url: str
    """The URL as sent, and as the reply has the URL."""
    order: InstallOrder
    missing: BizDetails
    """The biz as the reply shows an element that is not installed: broken, under name and version as sent."""
    mistake: InvalidIdentity | None = None
    """An impossible identity, by which the element fails alone."""

    @classmethod
    def of(cls, request: InstallBiz) -> Element:
        """Read one request of a batch. Raises ``InputInvalid``."""
        url, missing = request.biz_url or "", absent(request.biz_name or "", request.biz_version or "")
        try:
            return cls(url, InstallOrder.of(request), missing)
        except InvalidIdentity as error:
            nameless = msgspec.structs.replace(request, biz_name=None, biz_version=None)
            return cls(url, InstallOrder.of(nameless), missing, error)


def elements(request: BatchInstallBiz) -> list[Element]:
    """Read a batch. Raises ``InputInvalid``: for a mistake of any element, and nothing is installed."""
    if request.biz_list is None:
        raise InputInvalid("bizList is null")
    return [Element.of(each) for each in request.biz_list]


def check_variables(member: str, values: Mapping[str, str]) -> None:
    """Raise ``InputInvalid`` for a variable that no process can have; the text has the name, and never the value."""
    for name, value in values.items():
        if (why := variable_issue(name, value)) is not None:
            raise InputInvalid(f"{member}: {why}")


def absent(name: str, version: str) -> BizDetails:
    """A biz that is not there, as an entry of a batch shows the biz."""
    return BizDetails(biz_name=name, biz_version=version, biz_state=BizState.BROKEN, identity_=f"{name}:{version}")


def named(request: BizRequest) -> BizId:
    """The biz that a request has to name. Raises ``InputInvalid``, and ``NoIdentity``, a ``BizNotFound``."""
    if is_blank(request.biz_name):
        raise InputInvalid("bizName should not be blank")
    if is_blank(request.biz_version):
        raise InputInvalid("bizVersion should not be blank")
    check_background(request)
    try:
        return BizId.of(request.biz_name or "", request.biz_version or "")
    except InvalidIdentity:
        raise NoIdentity(request.identity) from None


def name_of(text: str | None) -> str:
    """The name of a biz that a request has to have. Raises ``InputInvalid`` and ``InvalidIdentity``."""
    if text is None or is_blank(text):
        raise InputInvalid("bizName should not be blank")
    return parse_name(text)


def check_background(request: BizRequest) -> None:
    """Raise ``InputInvalid`` for a background run without an id."""
    if request.is_async and is_blank(request.request_id):
        raise InputInvalid("requestId should not be blank when async is true")


def _strategy(request: InstallBiz) -> Strategy:
    try:
        return Strategy(request.install_strategy)
    except ValueError:  # any text unknown to the original means the default there, too
        return Strategy.INSTALL_ONLY
