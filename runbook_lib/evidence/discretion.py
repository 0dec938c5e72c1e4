"""Tracebacks that tell where, and no values.

pytest adds to a frame of a traceback the arguments that its function was called with, and with ``--showlocals`` every
local variable: passwords of an environment, roles with their verifiers, rows. No shape tells a row from any other
text, so that no redaction could find it there. A frame of a scenario is therefore shown without them, however much
was asked for with ``-vv``, ``--full-trace`` or ``--showlocals``, and also where pytest itself writes the traceback: at
Ctrl-C, and where pytest breaks.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest
from _pytest._code.code import ExceptionChainRepr, ExceptionRepr, ReprEntry, TerminalRepr

from runbook_lib.evidence.redaction import redacted


def without_values(told: str | TerminalRepr) -> str:
    """Return a traceback as text, without arguments and local variables and redacted."""
    if isinstance(told, ExceptionChainRepr):
        _forget_values(told)
    return redacted(str(told))


def _forget_values(told: ExceptionRepr) -> None:
    chain = told.chain if isinstance(told, ExceptionChainRepr) else ()
    for traceback, _, _ in chain:
        for entry in traceback.reprentries:
            if isinstance(entry, ReprEntry):
                entry.reprfuncargs = entry.reprlocals = None
            entry.lines = redacted("\n".join(entry.lines)).split("\n")


class Discretion:
    """The plugin that takes the values out of the tracebacks that pytest writes by itself."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(wrapper=True)
    def pytest_keyboard_interrupt(self) -> Generator[None, object, object]:
        """Once pytest has made a traceback of the interruption: ``--full-trace`` shows it at the end."""
        try:
            return (yield)
        finally:
            reporter = self._config.pluginmanager.getplugin("terminalreporter")
            if memo := getattr(reporter, "_keyboardinterrupt_memo", None):
                _forget_values(memo)

    @pytest.hookimpl(tryfirst=True)
    def pytest_internalerror(self, excrepr: ExceptionRepr) -> None:
        """Before anybody writes it."""
        _forget_values(excrepr)
