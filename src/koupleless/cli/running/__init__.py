"""Running: commands as modules, and a base that is started again when its code changes.

Lives here: the portrait of a module, from a base or from a project, and the child processes. May not: change a base.
Called by the commands.
"""

import os
from typing import Final

RELOADED: Final = "KOUPLELESS_RELOADED"
"""The variable of a child of ``arkctl serve --reload``."""


def is_reloaded() -> bool:
    """Whether this process is a base that another process starts again when code changes."""
    return RELOADED in os.environ
