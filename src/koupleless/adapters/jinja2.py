"""Jinja: each biz has the default filters, tests, globals and policies, and the environments of bare templates.

A biz starts with the defaults of the base. An environment copies the defaults when it is made, so an environment of the
base keeps its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters.containers import own_containers
from koupleless.adapters.own import own_cache
from koupleless.adapters.variables import own_variables

if TYPE_CHECKING:
    import contextlib

distribution: Final = "jinja2"


def _follow_defaults(undo: contextlib.ExitStack, module: Any) -> None:
    """``jinja2.defaults``, which ``filters`` and ``tests`` share under the same names."""
    own_containers(undo, module, "DEFAULT_FILTERS", "DEFAULT_TESTS", "DEFAULT_NAMESPACE", "DEFAULT_POLICIES")


def _follow_environment(undo: contextlib.ExitStack, module: Any) -> None:
    """``jinja2.environment``, with the maker of environments for ``Template("...")``."""
    own_cache(undo, module, "get_spontaneous_environment")


def _follow_sandbox(undo: contextlib.ExitStack, module: Any) -> None:
    """``jinja2.sandbox``."""
    own_variables(undo, module, "MAX_RANGE")


follow: Final = {
    "jinja2.environment": _follow_environment,
    "jinja2.defaults": _follow_defaults,
    "jinja2.sandbox": _follow_sandbox,
}
