"""lxml: each biz has a default parser, extension functions for XPath and prefixes of namespaces of its own.

Compiled code keeps all three. So the parser of a biz is handed to functions that are called without one; one dispatcher
in the place of the functions of all calls the functions of the biz; and the prefixes of a biz are declared where the
biz makes an element. Shared by all remain the prefix of a namespace of functions, and class look-ups, but for class
look-ups that a biz gives to its parsers. Methods of elements (``set``) know the prefixes of the base only.
"""

from __future__ import annotations

import functools
import re
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters.own import replace_function
from koupleless.context import current
from koupleless.ownership.kinds import Own

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterator

distribution: Final = "lxml"


def _follow(undo: contextlib.ExitStack, module: Any) -> None:
    """``lxml.etree``."""
    _follow_parser(undo, module, ("fromstring", "XML", "XMLID", "fromstringlist", "parse", "ElementTree", "HTML"))
    _follow_functions(undo, module)
    _follow_prefixes(undo, module)


# --- the default parser ----------------------------------------------------------------------------------------------


def _follow_parser(undo: contextlib.ExitStack, module: Any, names: tuple[str, ...]) -> None:
    own: Own[dict[str, Any]] = Own(dict)
    set_of_thread = module.set_default_parser
    pristine = module.XMLParser if hasattr(module, "XMLParser") else module.makeparser

    @functools.wraps(set_of_thread)
    def set_default_parser(*args: Any, **kwargs: Any) -> None:
        mine = own.get()
        if mine is None:
            set_of_thread(*args, **kwargs)
        else:
            mine["parser"] = next(iter((*args, *kwargs.values())), None) or pristine()

    replace_function(undo, module, "set_default_parser", set_default_parser)
    if hasattr(module, "get_default_parser"):  # lxml.objectify has none
        get_of_thread = module.get_default_parser

        @functools.wraps(get_of_thread)
        def get_default_parser() -> Any:
            return (own.peek() or {}).get("parser") or get_of_thread()

        replace_function(undo, module, "get_default_parser", get_default_parser)
    for name in names:
        kind: Any = module.HTMLParser if name == "HTML" else object
        replace_function(undo, module, name, _with_parser(vars(module)[name], own, kind))


def _with_parser(original: Callable[..., Any], own: Own[dict[str, Any]], kind: type) -> Callable[..., Any]:
    @functools.wraps(original)
    def parse(*args: Any, **kwargs: Any) -> Any:
        parser = (own.peek() or {}).get("parser")
        if isinstance(parser, kind) and parser is not None and len(args) < _WITH_PARSER and not kwargs.get("parser"):
            kwargs["parser"] = parser
        return original(*args, **kwargs)

    return parse


_WITH_PARSER: Final = 2
"""Positional arguments of which the last one is the parser."""


# --- functions for XPath ---------------------------------------------------------------------------------------------


class _Functions(MutableMapping[Any, Any]):
    """The functions of one namespace, of the running biz: the result of ``FunctionNamespace``."""

    def __init__(self, module: Any, registry: Any) -> None:
        self._module = module
        self._registry = registry
        self._own: Own[dict[Any, Any]] = Own(dict)
        self._of_base: dict[Any, Any] = {}
        """The functions behind a dispatcher."""
        self._standing: dict[Any, Any] = {}

    @property
    def prefix(self) -> Any:
        """The prefix by which expressions name the namespace; for all."""
        return self._registry.prefix

    @prefix.setter
    def prefix(self, value: Any) -> None:
        self._registry.prefix = value

    def __call__(self, function: Any) -> Any:
        """As a decorator, with a name or without."""
        if isinstance(function, str):
            return functools.partial(self._put, function)
        return self._put(function.__name__, function)

    def _put(self, name: str, function: Any) -> Any:
        self[name] = function
        return function

    def __getitem__(self, name: Any) -> Any:
        name = _key(name)
        own = self._own.peek()
        if own is not None and name in own:
            return own[name]
        if name in self._standing:
            return self._of_base[name]
        return self._registry[name]

    def __setitem__(self, name: Any, function: Any) -> None:
        name = _key(name)
        own = self._own.get()
        if own is None and name not in self._standing:
            self._registry[name] = function
            return
        if not callable(function):
            raise self._module.NamespaceRegistryError("Registered functions must be callable.")
        if name not in self._standing:
            if name in self._registry:
                self._of_base[name] = self._registry[name]
            self._standing[name] = self._registry[name] = functools.partial(self._call, name)
        (self._of_base if own is None else own)[name] = function

    def __delitem__(self, name: Any) -> None:
        name = _key(name)
        own = self._own.get()
        if own is not None:
            del own[name]
        elif name in self._standing:
            del self._of_base[name]
        else:
            del self._registry[name]

    def __iter__(self) -> Iterator[Any]:
        of_base = [name for name in self._registry if name not in self._standing]
        return iter(dict.fromkeys([*of_base, *self._of_base, *(self._own.peek() or ())]))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(self._registry)

    def _call(self, name: Any, context: Any, *args: Any) -> Any:
        function = (self._own.peek() or {}).get(name) or self._of_base.get(name)
        if function is None:
            raise self._module.XPathEvalError("Unregistered function")
        return function(context, *args)

    def restore(self) -> None:
        """Let the registry hold the base's again."""
        for name, dispatcher in self._standing.items():
            if self._registry[name] is not dispatcher:
                continue
            if name in self._of_base:
                self._registry[name] = self._of_base[name]
            else:
                del self._registry[name]


def _key(name: Any) -> Any:
    """A name in the form of the registry."""
    return name.encode() if isinstance(name, str) else name


def _follow_functions(undo: contextlib.ExitStack, module: Any) -> None:
    original = module.FunctionNamespace
    known: dict[Any, _Functions] = {}

    @functools.wraps(original)
    def FunctionNamespace(ns_uri: Any) -> Any:  # noqa: N802 - the name it stands for
        if ns_uri not in known:
            if current() is None:
                return original(ns_uri)
            made = known.setdefault(ns_uri, _Functions(module, original(ns_uri)))
            undo.callback(made.restore)
        return known[ns_uri]

    replace_function(undo, module, "FunctionNamespace", FunctionNamespace)


# --- prefixes --------------------------------------------------------------------------------------------------------


def _follow_prefixes(undo: contextlib.ExitStack, module: Any) -> None:
    own: Own[dict[str, str]] = Own(dict)
    register = module.register_namespace

    @functools.wraps(register)
    def register_namespace(prefix: Any, uri: Any) -> None:
        mine = own.get()
        if mine is None:
            register(prefix, uri)
            return
        if re.match(r"ns\d+$", prefix):
            raise ValueError("Prefix format reserved for internal use")
        for other in [other for other, known in mine.items() if known == prefix or other == uri]:
            del mine[other]
        mine[uri] = prefix

    def declared(tag: Any, attributes: Any, nsmap: Any, known: Any) -> Any:
        """The prefixes to declare at an element, for the names in the element, too."""
        mine = own.peek()
        if not mine:
            return nsmap
        names = [str(getattr(name, "text", name)) for name in (tag, *(attributes or ()))]
        needed = {name[1:].partition("}")[0] for name in names if name[:1] == "{"}
        more = {mine[uri]: uri for uri in needed & mine.keys() - {*(nsmap or {}).values(), *known}}
        return {**more, **(nsmap or {})} if more else nsmap

    make, make_below = module.Element, module.SubElement

    @functools.wraps(make)
    def Element(_tag: Any, attrib: Any = None, nsmap: Any = None, **_extra: Any) -> Any:  # noqa: N802 - as above
        return make(_tag, attrib, declared(_tag, attrib, nsmap, ()), **_extra)

    @functools.wraps(make_below)
    def SubElement(_parent: Any, _tag: Any, attrib: Any = None, nsmap: Any = None, **_extra: Any) -> Any:  # noqa: N802
        known = _parent.nsmap.values() if own.peek() else ()
        return make_below(_parent, _tag, attrib, declared(_tag, attrib, nsmap, known), **_extra)

    replace_function(undo, module, "register_namespace", register_namespace)
    replace_function(undo, module, "Element", Element)
    replace_function(undo, module, "SubElement", SubElement)


follow: Final = {
    "lxml.etree": _follow,
    "lxml.objectify": lambda undo, module: _follow_parser(undo, module, ("fromstring", "XML", "parse")),
}
