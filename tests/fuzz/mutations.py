"""Bytes that are nearly right: what was sound, with a few changes of the kinds that break parsers."""

from __future__ import annotations

import os
import random
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

INPUTS: Final = int(os.environ.get("KOUPLELESS_FUZZ_INPUTS", "20000"))
"""How many inputs each fuzzer tries; ``scripts/fuzz`` sets it to many more."""
SEED: Final = int(os.environ.get("KOUPLELESS_FUZZ_SEED", "1"))

_NUMBERS: Final = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFE]
_ODD: Final = [
    *(b"\0", b"\n", b"\r", b"\r\n", b"\t", b" ", b"\x7f", b"\xff", b"\xed\xa0\x80", b"\xc3", "\u2028".encode()),
    *(b"[", b"]", b"{", b"}", b"(", b")", b'"', b"'", b"\\", b"/", b"..", b"=", b",", b":", b";", b"#", b"%00", b"~"),
    *(b"9" * 40, b"-1", b"1e999", b"0x", b"[" * 30, b"(" * 30, b"../" * 5, b"//[", b"x" * 300, b"\n " * 20),
]


class Mutator:
    """Makes inputs, the same ones for the same seed."""

    def __init__(self, seed: int, words: Sequence[bytes] = ()) -> None:
        self.dice = random.Random(seed)
        self._words = [*words, *_ODD]

    def mutate(self, data: bytes) -> bytes:
        """``data`` with one change, or a few."""
        for _ in range(1 + int(self.dice.expovariate(0.8))):
            data = self._change(bytearray(data))
        return data

    def _change(self, data: bytearray) -> bytes:
        dice = self.dice
        at = dice.randrange(len(data) + 1)
        size = min(len(data) - at, 1 + int(dice.expovariate(0.1)))
        match dice.randrange(9):
            case 0 if at < len(data):
                data[at] ^= 1 << dice.randrange(8)
            case 1 if at < len(data):
                data[at] = dice.randrange(256)
            case 2:
                data[at:at] = dice.choice(self._words)
            case 3:
                data[at : at + size] = dice.choice(self._words)
            case 4:
                del data[at : at + size]
            case 5:
                del data[at:]
            case 6:
                data[at:at] = data[at : at + size] * dice.choice([1, 2, 20])
            case 7:
                form = dice.choice(["<H", "<I", ">H", "<Q"])
                number = dice.choice(_NUMBERS) & ((1 << 8 * struct.calcsize(form)) - 1)
                data[at : at + struct.calcsize(form)] = struct.pack(form, number)
            case _:
                other = dice.randrange(len(data) + 1)
                data[at:at] = data[other : other + size]
        return bytes(data[: 1 << 16])
