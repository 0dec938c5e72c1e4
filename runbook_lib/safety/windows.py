"""When may it be changed?

A maintenance window in a table that nothing reads is a wish. So the runbook's table is data of the profile: an
operation, when its window opens and closes every week, and in which time zone people meant that. A closed window
withholds the permit, also in the middle of a procedure that took longer than was thought.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import combinations
from zoneinfo import ZoneInfo

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_WEEK = timedelta(weeks=1)
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True)
class Moment:
    """A weekday and a time of day."""

    weekday: int
    """0 for Monday, as `datetime.weekday` counts."""
    at: time
    """The time of day, in the window's own time zone."""

    @classmethod
    def parse(cls, told: str) -> Moment:
        """Read ``Sunday 02:00``. Raise `ValueError` where it is no such thing."""
        day, _, hour = told.strip().partition(" ")
        if day not in WEEKDAYS:
            msg = f"{told!r} does not begin with a day of the week: write it as 'Sunday 02:00'"
            raise ValueError(msg)
        try:
            at = time.fromisoformat(hour.strip())
        except ValueError:
            msg = f"{told!r} does not end with a time of day: write it as 'Sunday 02:00'"
            raise ValueError(msg) from None
        if at.tzinfo is not None:
            msg = f"{told!r} says how far it is from UTC: write it as 'Sunday 02:00', and name the zone beside it"
            raise ValueError(msg)
        return cls(WEEKDAYS.index(day), at)

    def __str__(self) -> str:
        """Return it as it is written: ``Sunday 02:00``."""
        return f"{WEEKDAYS[self.weekday]} {self.at:%H:%M}"


@dataclass(frozen=True)
class Opening:
    """One time that a window is open."""

    opens: datetime
    """When it opens."""
    closes: datetime
    """When it closes."""


@dataclass(frozen=True)
class Window:
    """When one operation may be done, every week."""

    operation: str
    """What may be done in it: ``VACUUM FULL``."""
    opens: Moment
    """When it opens."""
    closes: Moment
    """When it closes: up to a week after it opened."""
    zone: ZoneInfo
    """The time zone that both are meant in; where its clocks change, the window changes with them."""

    def openings(self, since: datetime) -> Iterator[Opening]:
        """Yield the times it is open, from the one that is under way or comes next, without end.

        A time of day that the clocks pass over means the moment they do; one that they show twice means the first.
        """
        days = (self.closes.weekday - self.opens.weekday) % 7
        if days == 0 and self.closes.at <= self.opens.at:
            days = 7
        local = since.astimezone(self.zone)
        day = local.date() + timedelta(days=self.opens.weekday - local.weekday()) - 2 * _WEEK
        while True:
            opens = _first_moment(day, self.opens.at, self.zone)
            closes = _first_moment(day + timedelta(days=days), self.closes.at, self.zone)
            if opens < closes and closes > since.astimezone(UTC):
                yield Opening(opens.astimezone(self.zone), closes.astimezone(self.zone))
            day += _WEEK

    def is_open(self, at: datetime) -> bool:
        """Say whether it is open at a moment."""
        return next(self.openings(at)).opens.astimezone(UTC) <= at.astimezone(UTC)

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.operation}: {self.opens} to {self.closes} {self.zone.key}"


def _first_moment(day: date, at: time, zone: ZoneInfo) -> datetime:
    """Return the first moment, in UTC, at which the clocks of a zone show this time of day or a later one."""
    wanted = datetime.combine(day, at)
    # Two values of one zone are compared by what the clocks show, whatever happened to them in between; hence UTC.
    one, other = (wanted.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if one <= other:  # it is shown once, or twice
        return one
    early, late = other, one  # it is passed over, somewhere in between
    while late - early > _TICK:
        middle = early + (late - early) // 2
        if middle.astimezone(zone).replace(tzinfo=None) >= wanted:
            late = middle
        else:
            early = middle
    return late


def why_closed(windows: Sequence[Window], operation: str, at: datetime) -> str:
    """Return why an operation may not be done now, and when it may; empty where its window is open."""
    its = [window for window in windows if window.operation == operation]
    if not its:
        return f"the profile has no maintenance window for {operation!r}"
    if any(window.is_open(at) for window in its):
        return ""
    following = min((next(window.openings(at)) for window in its), key=lambda each: each.opens.astimezone(UTC))
    return (
        f"the maintenance window of {operation!r} is closed; it opens on"
        f" {following.opens:%A %Y-%m-%d %H:%M %Z} and closes at {following.closes:%A %H:%M %Z}"
    )


def overlaps(windows: Sequence[Window], now: datetime) -> Iterator[str]:
    """Yield a sentence for every two windows of one operation that are open at the same time: a slip of the pen."""
    for one, other in combinations(windows, 2):
        if one.operation != other.operation:
            continue
        first, second = next(one.openings(now)), next(other.openings(now))
        again = Opening(second.opens + _WEEK, second.closes + _WEEK)
        before = Opening(second.opens - _WEEK, second.closes - _WEEK)
        if any(first.opens < each.closes and each.opens < first.closes for each in (before, second, again)):
            spans = f"{one.opens} to {one.closes} and {other.opens} to {other.closes}"
            yield f"two windows of {one.operation!r} overlap: {spans}"
