"""The terminal, past pytest's capture.

While a step runs, pytest has put a file in the place of standard output, and an hour-long restore would be silent. So
a second handle on the real one is kept. It can be written to from any thread, which toggling the capture cannot.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import threading
from collections.abc import Callable
from typing import TextIO

import pytest

WIDTH = 96
"""The widest line worth writing, in columns: further apart, a step and its seconds are hard to read as one."""


class Console:
    """Lines on the real terminal, one of which may be rewritten in place."""

    def __init__(self, stream: TextIO, markup: Callable[..., str], *, owned: bool = False) -> None:
        self._stream = stream
        self._owned = owned
        self._lock = threading.RLock()  # a signal handler may raise in the thread that holds it
        self.styled = markup
        """Returns a text with colour, where pytest would use colour: ``styled("proven", green=True)``."""
        self.is_terminal = stream.isatty()
        """Whether a line can be rewritten in place."""
        columns = shutil.get_terminal_size((WIDTH, 24)).columns - 1 if self.is_terminal else WIDTH
        self.width = min(columns, WIDTH)
        """How many columns a line may have."""

    @classmethod
    def of(cls, config: pytest.Config) -> Console:
        """Open pytest's terminal; pytest must not be capturing, which holds while it is being configured."""
        markup = config.get_terminal_writer().markup
        try:
            descriptor = os.dup(sys.stdout.fileno())
        except (io.UnsupportedOperation, ValueError, OSError):  # a stream in memory: nothing captures it
            return cls(sys.stdout, markup)
        stream = os.fdopen(descriptor, "w", encoding=sys.stdout.encoding, errors="replace")
        return cls(stream, markup, owned=True)

    def write(self, text: str) -> None:
        """Write a text as it is, and flush."""
        with self._lock:
            self._stream.write(text)
            self._stream.flush()

    def rewrite(self, text: str) -> None:
        """Put a text in the place of the line the cursor stands on; on a terminal only."""
        self.write(f"\r\x1b[K{text}")

    def interject(self, text: str) -> None:
        """Write from a signal handler, which may have interrupted one of the methods above half way."""
        try:
            os.write(self._stream.fileno(), text.encode())
        except (io.UnsupportedOperation, ValueError, OSError):
            self._stream.write(text)

    def close(self) -> None:
        """Let go of the terminal."""
        with self._lock:
            if self._owned:
                self._stream.close()
