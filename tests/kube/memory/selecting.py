"""Label and field selectors, as the query of a list or a watch has them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Object = dict[str, Any]

_FIELDS: Final = {
    "pods": {"spec.nodeName", "spec.schedulerName", "status.phase", "status.podIP"},
    "nodes": {"spec.unschedulable"},
    "events": {"involvedObject.name", "involvedObject.uid", "involvedObject.kind", "reason", "type"},
    "secrets": {"type"},
}
"""Fields that can be selected, beside name and namespace."""
_SET = re.compile(r"^(\S+)\s+(in|notin)\s*\((.*)\)$")


class BadSelector(Exception):
    """The selector is not one, or names a field that cannot be selected."""


def selected(plural: str, query: Mapping[str, str]) -> Callable[[Object], bool]:
    """The question whether an object of the resource ``plural`` is among those that ``query`` asks for."""
    tests = [
        *(_label_test(part) for part in _parts(query.get("labelSelector", ""))),
        *(_field_test(plural, part) for part in _parts(query.get("fieldSelector", ""))),
    ]
    return lambda found: all(test(found) for test in tests)


def _parts(selector: str) -> list[str]:
    """The requirements of a selector; a comma within parentheses separates values."""
    return [part.strip() for part in re.split(r",(?![^(]*\))", selector) if part.strip()]


def _labels(found: Object) -> Mapping[str, str]:
    return found["metadata"].get("labels") or {}


def _label_test(part: str) -> Callable[[Object], bool]:
    if of_set := _SET.match(part):
        key, operator, listed = of_set.groups()
        values = {value.strip() for value in listed.split(",")}
        if operator == "in":
            return lambda found: _labels(found).get(key) in values
        return lambda found: _labels(found).get(key) not in values
    if "!=" in part:
        key, value = (side.strip() for side in part.split("!=", 1))
        return lambda found: _labels(found).get(key) != value
    if "=" in part:
        key, value = (side.strip() for side in re.split("==?", part, maxsplit=1))
        return lambda found: _labels(found).get(key) == value
    if part.startswith("!"):
        return lambda found: part[1:].strip() not in _labels(found)
    if re.search(r"\s", part):
        raise BadSelector(f"unable to parse requirement: {part}")
    return lambda found: part in _labels(found)


def _field_test(plural: str, part: str) -> Callable[[Object], bool]:
    is_equal = "!=" not in part
    name, separator, value = re.split(r"(!=|==?)", part, maxsplit=1) if "=" in part else (part, "", "")
    if not separator:
        raise BadSelector(f"invalid selector: {part}")
    if name not in {"metadata.name", "metadata.namespace"} | _FIELDS.get(plural, set()):
        raise BadSelector(f"field label not supported: {name}")
    path = name.split(".")

    def test(found: Object) -> bool:
        at: Any = found
        for step in path:
            at = at.get(step) if isinstance(at, dict) else None
        shown = "" if at is None else str(at).lower() if isinstance(at, bool) else str(at)
        return (shown == value) is is_equal

    return test
