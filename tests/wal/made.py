"""Segments that were made up: the header of a real one, and bytes behind it that are nobody's."""

from __future__ import annotations

import random
import struct
from pathlib import Path

from runbook_lib.wal.segment import Segment

SMALL_BYTES = 64 * 1024
"""Smaller than PostgreSQL makes them; nothing here depends on it."""
IDENTIFIER = "7301234567890123456"


def segment(
    timeline: int,
    number: int,
    *,
    identifier: str = IDENTIFIER,
    size: int = SMALL_BYTES,
    written_on: int | None = None,
    seed: int = 0,
) -> tuple[str, bytes]:
    """Return the name and the bytes of a segment."""
    made = Segment(timeline, number, size)
    header = struct.pack(
        "=HHIQI4xQII", 0xD116, 2, written_on or timeline, made.start_lsn, 0, int(identifier), size, 8192
    )
    return made.name, header + random.Random(f"{timeline} {number} {seed}").randbytes(size - len(header))


def file(folder: Path, content: bytes, name: str = "file") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path
