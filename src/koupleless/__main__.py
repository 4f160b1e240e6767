"""``arkctl``, and ``python -m koupleless``: the program around its commands."""

import gc
import sys

_SHORT = frozenset({"health", "show", "status", "switch", "undeploy", "version"})
"""Commands which make a call or two, and end."""
_SELDOM = 200_000
"""Objects between two collections, for one to take place only in a long command (``status --watch``)."""


def run() -> int:
    """Run the command of the command line and return its exit status.

    A short command ends before the collector of garbage could free anything: the objects of such a command are Python
    modules for the most part. So the collector hardly runs at the start, and not at all at the end.
    """
    is_short = sys.argv[1:2] != [] and sys.argv[1] in _SHORT
    if is_short:
        gc.set_threshold(_SELDOM)
    from koupleless.cli.commands import main  # noqa: PLC0415 - after the collector was told

    status = main()
    if is_short:
        gc.freeze()
    return status


if __name__ == "__main__":
    sys.exit(run())
