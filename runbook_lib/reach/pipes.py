"""A program whose output is consumed while it runs.

The danger of a pipe is its end: a program that dies half way ends its output exactly as one that is done. So whoever
consumes the output must ask, after the last byte and before believing any, whether the program says it succeeded.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

from runbook_lib.errors import ToolFailed
from runbook_lib.reach.programs import start_as_we_are, tail

_MOST_REMARKS_BYTES = 1 << 16
_END_SECONDS = 30
"""How long a program may take to exit after it has closed its output."""


@dataclass(frozen=True)
class Producer:
    """A running program."""

    output: BinaryIO
    """Its standard output, to be read to the end."""
    sought: str
    """What it is run for, as the object of a sentence."""
    _process: subprocess.Popen[bytes]
    _errors: IO[bytes]

    def must_have_succeeded(self, remedy: str) -> str:
        """Wait for its exit and return what it wrote as remarks; raise `ToolFailed` if it failed."""
        name = Path(cast("Sequence[str]", self._process.args)[0]).name
        try:
            status = self._process.wait(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired as hung:
            why = f"it closed its output and did not exit within {_END_SECONDS} s"
            raise ToolFailed(self.sought, where=name, why=why, remedy=remedy) from hung
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace")
        if status != 0:
            why = f"{'exit code' if status > 0 else 'signal'} {abs(status)}: {tail(said) or 'it said nothing'}"
            raise ToolFailed(self.sought, where=name, why=why, remedy=remedy)
        return said

    def remarks(self) -> str:
        """Return what it has said so far beside its output."""
        # Read at a position of its own: the program writes where the file's common position is.
        return os.pread(self._errors.fileno(), _MOST_REMARKS_BYTES, 0).decode(errors="replace")

    def kill(self) -> None:
        """End it, and its output with it. It is no error if it has ended."""
        if self._process.poll() is None:
            self._process.kill()


@contextmanager
def producing(argv: Sequence[str | Path], *, sought: str, env: Mapping[str, str]) -> Iterator[Producer]:
    """Start a program and hand out its output; it is killed if it still runs at the end of the block.

    :param env: added to our own environment, out of which cloud credentials are taken
    """
    with tempfile.TemporaryFile() as errors:
        # In a session of its own: Ctrl-C is ours to handle, and must not look like a program that failed.
        process = start_as_we_are(
            argv, sought=sought, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
        )
        with process:
            producer = Producer(cast("BinaryIO", process.stdout), sought, process, errors)
            try:
                yield producer
            finally:
                producer.kill()
