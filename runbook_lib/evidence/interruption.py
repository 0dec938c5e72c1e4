"""Ctrl-C, SIGTERM and SIGHUP, so that none leaves anything behind nor a green result.

Python ends on SIGTERM without a word: no fixture is torn down and no report is written, and SIGTERM is what a
CronJob's deadline and a cancelled CI job send, as SIGHUP is what a lost terminal sends. So all of them raise
``KeyboardInterrupt``, and pytest does the rest.

They come in pairs, too: people press Ctrl-C twice, and a terminal's Ctrl-C reaches every process of its group. A
signal that arrives during a clean-up is therefore put off until the clean-up is done. A third one is obeyed at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from types import FrameType

import pytest

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_OBEYED_AT_ONCE = 3


class Interruption:
    """The pytest plugin that turns the first signal into an orderly end."""

    def __init__(self, session: pytest.Session) -> None:
        """Take the signals over, on behalf of ``session``."""
        self.say: Callable[[str], object] = lambda line: None  # noqa: ARG005
        """Shows a line to whoever sent the signal."""
        self._session = session
        self._received = 0
        self._cleaning = False
        self._previous = {}
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in _SIGNALS if _is_heeded(number)}

    def pytest_unconfigure(self) -> None:
        """Give the signals back."""
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Generator[None, object, object]:
        """Put signals off while fixtures clean up."""
        self._cleaning = True
        try:
            return (yield)
        finally:
            self._cleaning = False

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self) -> Generator[None, object, object]:
        """Put signals off from here on: the last fixtures clean up, and the reports are written."""
        self._cleaning = True
        return (yield)

    def _handle(self, number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        self._received += 1
        if self._received >= _OBEYED_AT_ONCE:
            self.pytest_unconfigure()
            self.say(f"{name} again: giving up; what the drill made may be left behind")
            raise KeyboardInterrupt(name)
        if self._cleaning or self._received > 1:
            self.say(f"{name}: cleaning up first, then stopping")
            if not self._session.shouldstop:
                self._session.shouldstop = f"by {name}"
            return
        self.say(f"{name}: stopping, and cleaning up")
        raise KeyboardInterrupt(name)


def _is_heeded(number: signal.Signals) -> bool:
    """Whether a signal is to end the run at all; ``nohup`` starts a program with SIGHUP ignored, and means it."""
    return number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
