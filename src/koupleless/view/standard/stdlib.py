"""Give each biz its own registries and defaults of the standard library.

A biz finds its registrations, as do functions of the biz and of shared libraries that work for the biz, and all are
gone with the biz; the process's entries show through. Where possible the container or the object read by the module's
functions answers by context, for anybody who got hold of a function, at any time. Modules not yet imported by the
process are changed when they are imported.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base, current
from koupleless.contextual import assign_by_context
from koupleless.frames import standing_for
from koupleless.replacing import Shared, replace, specialise
from koupleless.view.own import Own, own_list, own_mapping, own_of, put_in_late
from koupleless.view.standard import clocks, decimals, dialects, mimes, policy, randoms

if TYPE_CHECKING:
    import contextlib
    import types
    from collections.abc import Callable

__all__ = ["STDLIB", "Own"]

_MAPPINGS: Final = (
    ("shutil", "_ARCHIVE_FORMATS"),
    ("shutil", "_UNPACK_FORMATS"),
    ("xml.etree.ElementTree", "_namespace_map"),
    ("email.charset", "CHARSETS"),
    ("email.charset", "ALIASES"),
    ("email.charset", "CODEC_MAP"),
    ("webbrowser", "_browsers"),
    ("gettext", "_localedirs"),
)
_LISTS: Final = (
    ("urllib.parse", "uses_relative"),
    ("urllib.parse", "uses_netloc"),
    ("urllib.parse", "non_hierarchical"),
    ("urllib.parse", "uses_params"),
    ("urllib.parse", "uses_query"),
    ("urllib.parse", "uses_fragment"),
)


def _put_in(undo: contextlib.ExitStack) -> None:
    for module, name in _MAPPINGS:
        put_in_late(undo, module, functools.partial(_if_there, own_mapping, name))
    for module, name in _LISTS:
        put_in_late(undo, module, functools.partial(_if_there, own_list, name))
    for module, put_in in _OTHERS.items():
        put_in_late(undo, module, put_in)


def _if_there(
    put_in: Callable[[contextlib.ExitStack, types.ModuleType, str], None],
    name: str,
    undo: contextlib.ExitStack,
    module: types.ModuleType,
) -> None:
    if name in vars(module):  # private names come and go with Python's versions
        put_in(undo, module, name)


# --- urllib.request, webbrowser, tempfile ----------------------------------------------------------------------------


class _Opener:
    """The opener for ``urlopen``: answers as the running biz's, else as the base's; each makes one if need be.

    A default opener takes the proxies from the environment when made, which is why each biz has its own.
    """

    def __init__(self, request: Any) -> None:
        self.installed: Any = request._opener  # noqa: SLF001 - it has no public name
        """Installed by the base; used by a biz without an installed one."""
        self.default: Any = None
        """Used by the base without an installed one."""
        self._request = request

    def _meant(self) -> Any:
        own = own_of("urllib.request")
        opener = (own and own.get("_opener")) or self.installed
        if opener is not None:
            return opener
        if own is None:
            self.default = self.default or self._request.build_opener()
            return self.default
        own["default"] = own.get("default") or self._request.build_opener()
        return own["default"]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._meant(), name)


def _put_into_request(undo: contextlib.ExitStack, request: Any) -> None:
    opener = _Opener(request)

    @standing_for(request.install_opener)
    def install_opener(opener_wanted: Any) -> None:
        own = own_of("urllib.request")
        if own is None:
            opener.installed = opener_wanted
        else:
            own["_opener"] = opener_wanted

    replace(undo, request, "install_opener", install_opener)
    replace(undo, request, "_opener", opener, back=lambda: opener.installed or opener.default)
    assign_by_context(undo, request, "_opener", functools.partial(own_of, "urllib.request"))


def _put_into_webbrowser(undo: contextlib.ExitStack, webbrowser: Any) -> None:
    """Let the order of browsers answer by context, a list from the first use on."""
    original = webbrowser.register_standard_browsers

    def adopt() -> None:
        if type(webbrowser._tryorder) is list:  # noqa: SLF001 - it has no public name
            own_list(undo, webbrowser, "_tryorder")

    @standing_for(original)
    def register_standard_browsers() -> None:
        with as_base():
            original()
            adopt()

    adopt()
    replace(undo, webbrowser, "register_standard_browsers", register_standard_browsers)


def _put_into_tempfile(undo: contextlib.ExitStack, tempfile: Any) -> None:
    """Let ``tempfile.tempdir``, assigned by a biz, and the biz's own environment count for the biz."""
    original = tempfile._gettempdir  # noqa: SLF001 - what all functions of the module call

    @standing_for(original)
    def _gettempdir() -> Any:
        own = own_of("tempfile")
        if own is None:
            return original()
        if own.get("tempdir") is None and _has_own_variables(_TEMPORARY):
            own["tempdir"] = tempfile._get_default_tempdir()  # noqa: SLF001 - as the original does
        return own.get("tempdir") or original()

    replace(undo, tempfile, "_gettempdir", _gettempdir)
    assign_by_context(undo, tempfile, "tempdir", functools.partial(own_of, "tempfile"))


_TEMPORARY: Final = ("TMPDIR", "TEMP", "TMP")


def _has_own_variables(names: tuple[str, ...]) -> bool:
    mine = [os.environ.get(name) for name in names]
    with as_base():
        return mine != [os.environ.get(name) for name in names]


# --- gettext, multiprocessing ----------------------------------------------------------------------------------------

_BUILT_IN: Final = frozenset({"gettext", "ngettext", "npgettext", "pgettext"})
_OF_THE_DOMAIN: Final = {
    "gettext": "dgettext",
    "ngettext": "dngettext",
    "npgettext": "dnpgettext",
    "pgettext": "dpgettext",
}


def _put_into_gettext(undo: contextlib.ExitStack, gettext: Any) -> None:
    """Let ``install`` put functions into the built-ins of the biz, and each biz choose a domain."""
    original = gettext.NullTranslations.install
    choose = gettext.textdomain

    @standing_for(original)
    def install(self: Any, names: Any = None) -> None:
        if current() is None:
            original(self, names)
            return
        table = vars(sys.modules["builtins"])  # the biz's
        table["_"] = self.gettext
        table.update((name, getattr(self, name)) for name in _BUILT_IN & set(names or ()))

    @standing_for(choose)
    def textdomain(domain: str | None = None) -> str:
        own = own_of("gettext")
        if own is None:
            return choose(domain)  # type: ignore[no-any-return]
        if domain is not None:
            own["domain"] = domain
        return own.get("domain") or choose()  # type: ignore[no-any-return]

    def translated(name: str, function: Callable[..., str]) -> Callable[..., str]:
        @standing_for(function)
        def translate(*args: Any) -> str:
            own = own_of("gettext")
            domain = own and own.get("domain")
            return getattr(gettext, name)(domain, *args) if domain else function(*args)

        return translate

    replace(undo, gettext.NullTranslations, "install", install)
    replace(undo, gettext, "textdomain", textdomain)
    for name, with_domain in _OF_THE_DOMAIN.items():
        replace(undo, gettext, name, translated(with_domain, getattr(gettext, name)))


def _put_into_multiprocessing(undo: contextlib.ExitStack, context: Any) -> None:
    """Let each biz choose a start method, and keep the default settled by the biz's first use."""
    attribute = "_actual_context"
    default = context._default_context  # noqa: SLF001 - it has no public name
    kind: Any = type(default)

    def get(self: Any) -> Any:
        own = own_of("multiprocessing.context")
        return (own and own.get(attribute)) or self.__dict__[attribute]

    def put(self: Any, value: Any) -> None:
        own = own_of("multiprocessing.context")
        (self.__dict__ if own is None else own)[attribute] = value

    @standing_for(kind.set_start_method)
    def set_start_method(self: Any, method: str | None, force: bool = False) -> None:
        own = own_of("multiprocessing.context")
        # A choice of the base keeps no biz from choosing.
        kind.set_start_method(self, method, force or (own is not None and attribute not in own))

    names = {"__slots__": (), attribute: property(get, put), "set_start_method": set_start_method}
    specialise(undo, default, type("DefaultContext", (kind,), names))
    package: Any = sys.modules["multiprocessing"]
    replace(undo, package, "set_start_method", default.set_start_method)


_OTHERS: Final[dict[str, Callable[[contextlib.ExitStack, Any], None]]] = {
    "asyncio.events": policy.put_in,
    "csv": dialects.put_in,
    "datetime": clocks.put_in,
    "decimal": decimals.put_in,
    "gettext": _put_into_gettext,
    "mimetypes": mimes.put_in,
    "multiprocessing.context": _put_into_multiprocessing,
    "random": randoms.put_in,
    "tempfile": _put_into_tempfile,
    "time": clocks.put_in,
    "urllib.request": _put_into_request,
    "uuid": clocks.put_in,
    "webbrowser": _put_into_webbrowser,
}

STDLIB: Final = Shared("views of the standard library", _put_in)
"""Registries of the standard library by context."""
