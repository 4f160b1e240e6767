from __future__ import annotations

import enum
from typing import Generic, TypeVar

from pydantic import BaseModel, Field, field_validator

T = TypeVar("T")


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class Item(BaseModel):
    name: str = Field(max_length=10)
    colour: Colour = Colour.RED
    parts: list[Item] = []


class Page(BaseModel, Generic[T]):
    rows: list[T]
    total: int


class User(BaseModel):
    name: str


class Message(BaseModel):
    text: str

    @field_validator("text")
    @classmethod
    def not_empty(cls, value: str) -> str:
        if not value:
            raise ValueError("must not be empty")
        return value
