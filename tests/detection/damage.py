"""Ways of damaging the bytes of a dump, drawn by a seed.

A cut is what a full disk, a dead pipe or an upload that was given up leaves behind; a flipped bit is what memory, a
cable or a disk does to one byte of a file that keeps its length.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

_HEADER_BYTES = 60


@dataclass(frozen=True)
class Damaged:
    """The bytes of a dump after something happened to them."""

    kind: str
    """``truncated`` or ``bit flipped``."""
    at: int
    """The offset of the first byte that is not what it was, or not there any more."""
    content: bytes
    """What is left."""


def truncated(whole: bytes, *, seed: int, cuts: int = 12) -> Iterator[Damaged]:
    """Cut a dump: to nothing, in its header, in its table of contents, anywhere, and by its last byte."""
    dice = random.Random(f"cut {seed}")
    fixed = [0, 1, 4, 5, 11, 40, _HEADER_BYTES, len(whole) // 10, len(whole) // 2, len(whole) - 100, len(whole) - 1]
    for at in sorted({*fixed, *(dice.randrange(_HEADER_BYTES, len(whole)) for _ in range(cuts))}):
        yield Damaged("truncated", at, whole[:at])


def bit_flipped(whole: bytes, *, seed: int, flips: int = 60) -> Iterator[Damaged]:
    """Flip one bit of a dump, each time another one, anywhere in it."""
    dice = random.Random(f"flip {seed}")
    for bit in sorted(dice.sample(range(len(whole) * 8), flips)):
        at = bit // 8
        yield Damaged("bit flipped", at, whole[:at] + bytes([whole[at] ^ 1 << bit % 8]) + whole[at + 1 :])
