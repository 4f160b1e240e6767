from __future__ import annotations

import dataclasses
import enum
import typing


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Shape:
    colour: Colour
    inner: Shape | None = None


class Named(typing.NamedTuple):
    name: str
    shape: Shape


def square(number):
    return number * number


def explode():
    raise ValueError("here")
