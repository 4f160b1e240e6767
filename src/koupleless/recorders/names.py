"""Names of registered objects, for the entries of a ledger."""

from __future__ import annotations


def name_of(thing: object) -> str:
    """Name a function or a class by the qualified name, and any other object by the type."""
    return getattr(thing, "__qualname__", None) or type(thing).__qualname__
