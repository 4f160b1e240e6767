"""Sweep of Celery's shared tasks: tasks of a biz leave all applications with the biz."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from koupleless.ownership.purge import Sweep

if TYPE_CHECKING:
    from koupleless.ownership.belonging import Survey


def _sweep_celery(survey: Survey) -> int:
    # ``shared_task`` leaves a function for every application to come, and a task in every application there is.
    state = sys.modules.get("celery._state")
    finalizers: set[Any] = getattr(state, "_on_app_finalizers", set())
    doomed = [function for function in list(finalizers) if survey.reaches(function)]
    for function in doomed:
        finalizers.discard(function)
    count = len(doomed)
    for app in list(getattr(state, "_apps", ())):
        tasks: dict[str, Any] = vars(app).get("_tasks", {})
        for name, task in list(tasks.items()):
            # The class is made by Celery under the name of the function's module, and other bizs may have that name.
            if survey.reaches(vars(type(task)).get("run")):
                tasks.pop(name, None)
                count += 1
    return count


SWEEPS: Final = (Sweep("celery task", "celery.shared_task", _sweep_celery),)
