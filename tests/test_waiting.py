"""No wait lasts for ever, and each says what it saw last."""

from __future__ import annotations

import itertools
import time

import pytest

from runbook_lib.errors import Unproven, WaitTimedOut
from runbook_lib.waiting import wait_for


def test_returns_what_was_seen() -> None:
    numbers = itertools.count()
    seen = wait_for(
        "a three", lambda: next(numbers), where="here", within_seconds=10, until=lambda n: n == 3, every_seconds=0
    )
    assert seen == 3


def test_looks_once_even_without_any_time() -> None:
    assert wait_for("it", lambda: "there", where="here", within_seconds=0) == "there"


def test_gives_up_with_what_was_seen_last() -> None:
    began = time.monotonic()
    with pytest.raises(WaitTimedOut) as raised:
        wait_for("the end", lambda: 0, where="the server", within_seconds=0.1, every_seconds=0.01, remedy="call off")
    assert time.monotonic() - began < 10
    said = str(raised.value)
    assert "the end, the server: did not happen in time: seen last after 0." in said
    assert "looks: 0" in said
    assert said.endswith("To fix this: call off")
    assert isinstance(raised.value, Unproven)


def test_an_ignored_exception_means_not_yet() -> None:
    answers = iter([ConnectionError("refused"), "up"])

    def look() -> str:
        answer = next(answers)
        if isinstance(answer, ConnectionError):
            raise answer
        return str(answer)

    seen = wait_for("it", look, where="here", within_seconds=10, every_seconds=0, ignoring=(ConnectionError,))
    assert seen == "up"


def test_an_ignored_exception_is_told_when_time_is_over() -> None:
    def look() -> bool:
        raise ConnectionError("connection refused")

    with pytest.raises(WaitTimedOut, match="ConnectionError: connection refused"):
        wait_for("it", look, where="here", within_seconds=0, ignoring=(ConnectionError,))


def test_any_other_exception_is_raised_at_once() -> None:
    def look() -> bool:
        raise PermissionError("no")

    with pytest.raises(PermissionError):
        wait_for("it", look, where="here", within_seconds=10, ignoring=(ConnectionError,))
