"""``arkctl serve``: an application named by an import string becomes a base."""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from koupleless.errors import BaseStartFailed, KouplelessError
from koupleless.tracebacks import own_traceback

if TYPE_CHECKING:
    from collections.abc import Iterator

    from koupleless.settings.base import BaseSettings

logger = logging.getLogger("koupleless.base")


def run(app: str | None, settings: BaseSettings) -> int:
    """Serve until a signal ends the process; returns the exit status.

    Raises ``BaseStartFailed`` for an application that cannot be loaded, and for a static module that cannot be built.
    """
    from koupleless.base import serve  # noqa: PLC0415 - the one command that needs a base

    settings = replace(settings, log_dir=settings.log_dir or Path("logs"), log_level=settings.log_level or "INFO")
    if settings.log_config is None:
        _log_to_stderr(settings.log_level or "INFO", is_json=settings.log_format == "json")
    with _static_modules(settings.modules, goes_on=settings.on_broken == "continue") as modules:
        try:
            return serve(
                load_app(app) if app else None,
                replace(settings, modules=tuple(modules)),
                application=(app or "").partition(":")[0],
                project_envs={location: envs for location, envs in modules.items() if envs is not None},
            )
        except KeyboardInterrupt:
            return 0  # the server has stopped in order, and passes the signal on


def load_app(name: str) -> object:
    """The application ``package.module:attribute``, or the result of ``package.module:factory()``.

    The current directory is importable, as for ``python -m``. Raises ``BaseStartFailed``; if the application's own code
    failed, with the traceback of this code.
    """
    module_name, _, attribute = name.partition(":")
    is_factory = attribute.endswith("()")
    attribute = attribute.removesuffix("()")
    if not (module_name and attribute):
        raise BaseStartFailed(f"{name!r} names no application: package.module:attribute is expected")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    found = _imported(module_name)
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise BaseStartFailed(f"{module_name} has no attribute {attribute!r}") from error
    return _made(found, f"{attribute}() of {module_name}") if is_factory else found


def _imported(name: str) -> object:
    try:
        return importlib.import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise BaseStartFailed(f"there is no module {error.name!r}, seen from {Path.cwd()}") from error
        raise BaseStartFailed(_with_traceback(f"{name} cannot be imported", error)) from error


def _made(factory: object, name: str) -> object:
    if not callable(factory):
        raise BaseStartFailed(f"{name} is no factory: it cannot be called")
    try:
        return factory()
    except Exception as error:
        raise BaseStartFailed(_with_traceback(f"{name} failed", error)) from error


def _with_traceback(sentence: str, error: Exception) -> str:
    return f"{sentence}:\n{own_traceback(error).rstrip()}"


@contextlib.contextmanager
def _static_modules(modules: tuple[str, ...], *, goes_on: bool) -> Iterator[dict[str, dict[str, str] | None]]:
    """Build projects and single files among ``modules`` into artefacts that exist while the context lasts.

    Gives the locations of all modules, in the same order, with the variables in the env-file of a project. A module
    that cannot be built is left out and told with ``goes_on``, and else raises ``BaseStartFailed``.
    """
    from koupleless.cli.deploying.scratch import scratch  # noqa: PLC0415
    from koupleless.cli.deploying.target import DeployTarget, prepare_artefact  # noqa: PLC0415 - needs the builder

    with contextlib.ExitStack() as stack:
        locations: dict[str, dict[str, str] | None] = {}
        for module in modules:
            try:
                target = DeployTarget.of(module)
                if target.is_built:
                    locations[module] = None
                    continue
                artefact = prepare_artefact(target, scratch=stack.enter_context(scratch()))
                locations[str(artefact.path)] = None if artefact.env_file is None else artefact.project_envs()
            except KouplelessError as error:
                said = f"static module {module} cannot be built"
                if not goes_on:
                    raise BaseStartFailed(f"{said}: {error}") from error
                logger.warning("%s, and the base serves without it: %s", said, error)
        yield locations


def _log_to_stderr(level: str = "INFO", *, is_json: bool = False) -> None:
    """Print the log of the base itself to stderr; the root logger stays the application's own."""
    from koupleless.view.logging.logbook import Console  # noqa: PLC0415 - with the base

    logger = logging.getLogger("koupleless")
    if not logger.handlers:
        logger.addHandler(Console(is_json=is_json))
        logger.setLevel(level)
        logger.propagate = False
