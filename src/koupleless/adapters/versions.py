"""The guard of releasers and adapters: each is for one library, in some versions."""

from __future__ import annotations

import importlib.metadata
from typing import Any


def is_installed(found: Any) -> bool:
    """Tell whether the ``distribution`` of a releaser is installed, in one of its ``versions`` if it names any.

    Raises ``AttributeError`` without a distribution, and ``ValueError`` for versions that are no specifier.
    """
    versions = getattr(found, "versions", None)
    try:
        version = importlib.metadata.version(found.distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    if not versions:
        return True
    # A base without releasers need not wait for this import.
    from packaging.specifiers import SpecifierSet  # noqa: PLC0415

    return SpecifierSet(versions).contains(version, prereleases=True)
