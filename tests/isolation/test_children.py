"""Python modules of one owner, found at packages of others for as long as the owner is there."""

from __future__ import annotations

import types

from koupleless.isolation.linking.children import Children


class Owners:
    """Who reads."""

    def __init__(self) -> None:
        self.reading: Children | None = None

    def make(self) -> Children:
        return Children(lambda _: self.reading)


def test_each_owner_finds_its_own_module_until_it_is_cleared() -> None:
    owners, package, own = Owners(), types.ModuleType("package"), types.ModuleType("package.util")
    package.util = "shared"  # type: ignore[attr-defined]
    first, second = owners.make(), owners.make()
    first.show(package, "util", own)
    seen = []
    for owners.reading in (first, second, None):
        seen.append(package.util)
    assert seen == [own, "shared", "shared"]
    first.clear()
    assert type(package) is types.ModuleType


def test_a_package_that_changes_its_name_meanwhile_is_left_as_it_was() -> None:
    """As those that eventlet executes under other names."""
    owners, package = Owners(), types.ModuleType("package")
    first, second = owners.make(), owners.make()
    modules = [types.ModuleType("package.util"), types.ModuleType("other.util")]
    first.show(package, "util", modules[0])
    package.__name__ = "other"
    second.show(package, "util", modules[1])
    seen = []
    for owners.reading in (first, second):
        seen.append(package.util)
    assert seen == modules
    for children in (first, second):
        children.clear()
    assert type(package) is types.ModuleType
    assert not hasattr(package, "util")
