"""Celery: tasks of a biz leave all applications with the biz."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from koupleless.adapters.leaving import Leaving

distribution: Final = "celery"
module: Final = "celery._state"
released: Final = {"celery task": "celery.shared_task"}


def release(leaving: Leaving) -> dict[str, int]:
    """Take the tasks of the biz out of the applications, and out of the tasks for applications to come."""
    # ``shared_task`` leaves a function for every application to come, and a task in every application there is.
    state = sys.modules[module]
    finalizers: set[Any] = getattr(state, "_on_app_finalizers", set())
    doomed = [function for function in list(finalizers) if leaving.owns(function)]
    for function in doomed:
        finalizers.discard(function)
    count = len(doomed)
    for app in list(getattr(state, "_apps", ())):
        tasks: dict[str, Any] = vars(app).get("_tasks", {})
        for name, task in list(tasks.items()):
            # The class is made by Celery under the name of the function's module, and other bizs may have that name.
            if leaving.owns(vars(type(task)).get("run")):
                tasks.pop(name, None)
                count += 1
    return {"celery task": count}
