"""The facets of every biz: beside others in a base, and alone in the process of a test run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from koupleless.isolation.codes import unknown
from koupleless.isolation.environment.venv import VirtualEnvironment
from koupleless.isolation.libraries.holding import Speakers
from koupleless.isolation.namespace import Namespace
from koupleless.ownership.ledger import Ledger
from koupleless.view.children import Interpreter
from koupleless.view.own import Own
from koupleless.view.standard.warning import Warnings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from koupleless.context import Scope
    from koupleless.isolation.codes import Texts
    from koupleless.isolation.policy import Policy
    from koupleless.view.environ import Environment
    from koupleless.view.logging.logs import LogSpace

_NOBODY = Speakers()


def equip(
    scope: Scope,
    environment: Environment,
    paths: Sequence[str],
    policy: Policy,
    *,
    speakers: Speakers = _NOBODY,
    texts: Texts = unknown,
    prefix: Path,
    is_bare: bool = False,
    logs: Callable[[], LogSpace],
) -> Namespace:
    """Hang the facets of every biz on a scope; returns the namespace. `Scope.close` closes the facets.

    ``paths`` is the search path of the biz, ``texts`` tells the texts of files there. ``prefix`` is the place of a
    virtual environment for child processes, where ``is_bare`` leaves out scripts and ``.pth`` files. ``logs`` makes the
    logs, last of all, and therefore closed first: handlers are code of the biz. Raises any error of a facet; facets
    attached before stay on the scope.
    """
    scope.attach(Ledger(scope))
    scope.attach(environment)
    scope.attach(Own())
    namespace = Namespace(scope, paths, policy, speakers, texts=texts)  # attaches itself
    venv = VirtualEnvironment(prefix, paths, policy, is_bare=is_bare)
    scope.attach(venv)
    interpreter = Interpreter(str(venv.prefix), str(venv.executable), venv.make)
    scope.attach(interpreter, close=interpreter.close)
    warnings = Warnings()
    scope.attach(warnings, close=warnings.close)
    space = logs()
    scope.attach(space, close=space.close)
    return namespace
