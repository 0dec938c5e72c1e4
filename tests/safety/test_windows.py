"""A window is open when people who look at their clocks say so, also on the two nights a year when clocks jump."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runbook_lib.safety.windows import Moment, Window, overlaps, why_closed

NEW_YORK = ZoneInfo("America/New_York")
ZURICH = ZoneInfo("Europe/Zurich")
MINUTE = timedelta(minutes=1)


def window(opens: str, closes: str, zone: ZoneInfo = ZURICH, operation: str = "VACUUM FULL") -> Window:
    return Window(operation, Moment.parse(opens), Moment.parse(closes), zone)


def utc(told: str) -> datetime:
    return datetime.fromisoformat(told).replace(tzinfo=UTC)


def open_minutes(its: Window, since: str, hours: int) -> list[str]:
    """The minutes of UTC at which it opens or closes, as ``+HH:MM`` and ``-HH:MM``."""
    found, was = [], its.is_open(utc(since))
    for minute in range(1, hours * 60 + 1):
        at = utc(since) + minute * MINUTE
        if its.is_open(at) != was:
            was = not was
            found.append(f"{'+' if was else '-'}{at:%d %H:%M}")
    return found


class TestMoment:
    @pytest.mark.parametrize("told", ["Sunday 02:00", "Monday 00:00", "Saturday 23:59"])
    def test_is_written_as_it_was_read(self, told: str) -> None:
        assert str(Moment.parse(told)) == told

    @pytest.mark.parametrize(
        "told",
        ["", "Sunday", "02:00", "Sun 02:00", "Sunday 2 am", "Sunday 24:00", "Sonntag 02:00", "Sunday 02:00+01:00",
         "Sunday 02:00Z"],
    )  # fmt: skip
    def test_anything_else_is_refused(self, told: str) -> None:
        with pytest.raises(ValueError, match="write it as 'Sunday 02:00'"):
            Moment.parse(told)


class TestOrdinaryWeeks:
    def test_opens_with_its_first_moment_and_closes_before_its_last(self) -> None:
        its = window("Sunday 02:00", "Sunday 04:00")
        assert open_minutes(its, "2026-07-04 20:00", 10) == ["+05 00:00", "-05 02:00"]

    def test_over_midnight(self) -> None:
        its = window("Tuesday 23:00", "Wednesday 01:00", NEW_YORK)
        assert open_minutes(its, "2026-01-06 20:00", 16) == ["+07 04:00", "-07 06:00"]

    def test_over_the_weeks_end(self) -> None:
        its = window("Sunday 22:00", "Monday 03:00", ZoneInfo("UTC"))
        assert open_minutes(its, "2026-01-10 12:00", 48) == ["+11 22:00", "-12 03:00"]
        assert its.is_open(utc("2026-01-12 02:59"))

    def test_of_a_whole_week(self) -> None:
        its = window("Wednesday 02:00", "Wednesday 02:00")
        assert open_minutes(its, "2026-07-01 00:00", 24 * 15) == []
        assert its.is_open(utc("2026-07-01 00:00"))

    def test_of_nearly_a_week(self) -> None:
        its = window("Wednesday 02:00", "Wednesday 01:00", ZoneInfo("UTC"))
        assert open_minutes(its, "2026-07-06 00:00", 24 * 7) == ["-08 01:00", "+08 02:00"]


class TestClocksJump:
    def test_new_york_in_spring(self) -> None:
        """On 8 March 2026 the clocks go from 02:00 to 03:00."""
        assert open_minutes(window("Sunday 01:00", "Sunday 04:00", NEW_YORK), "2026-03-08 00:00", 12) == [
            "+08 06:00",
            "-08 08:00",
        ]
        assert open_minutes(window("Sunday 02:30", "Sunday 04:00", NEW_YORK), "2026-03-08 00:00", 12) == [
            "+08 07:00",
            "-08 08:00",
        ]
        assert open_minutes(window("Sunday 01:00", "Sunday 02:30", NEW_YORK), "2026-03-08 00:00", 12) == [
            "+08 06:00",
            "-08 07:00",
        ]

    def test_a_window_that_is_passed_over_does_not_open(self) -> None:
        its = window("Sunday 02:00", "Sunday 03:00", NEW_YORK)
        assert open_minutes(its, "2026-03-08 00:00", 24) == []
        assert open_minutes(its, "2026-03-15 00:00", 24) == ["+15 06:00", "-15 07:00"]
        assert "Sunday 2026-03-15 02:00 EDT" in why_closed([its], its.operation, utc("2026-03-08 00:00"))

    def test_zurich_in_autumn(self) -> None:
        """On 25 October 2026 the clocks show 02:00 to 03:00 twice: a window opens and closes the first time."""
        assert open_minutes(window("Sunday 01:00", "Sunday 02:30"), "2026-10-24 20:00", 12) == [
            "+24 23:00",
            "-25 00:30",
        ]
        assert open_minutes(window("Sunday 02:30", "Sunday 04:00"), "2026-10-24 20:00", 12) == [
            "+25 00:30",
            "-25 03:00",
        ]

    def test_asked_in_its_own_time_zone(self) -> None:
        """Python compares two times of one zone by what the clocks show, and they show it twice."""
        its = window("Sunday 01:00", "Sunday 02:30")
        again = datetime(2026, 10, 25, 2, 15, tzinfo=ZURICH, fold=1)
        assert not its.is_open(again)
        assert its.is_open(again.replace(fold=0))


def by_the_clock(its: Window, since: datetime, minutes: int) -> list[bool]:
    """Walk through UTC minute by minute with an eye on the zone's clock, and say of each minute whether it is open.

    It opens when the clock first shows its beginning or passes it, and closes when the clock first shows its end.
    """
    latest = datetime.min
    is_open, found = False, []
    at = since - timedelta(days=22)
    while at < since + minutes * MINUTE:
        shown = at.astimezone(its.zone).replace(tzinfo=None)
        step = latest
        while step < shown:  # the clock moves forward, by a minute or by a jump; going back it shows nothing new
            step = shown if latest == datetime.min else step + MINUTE
            for moment, opens in ((its.closes, False), (its.opens, True)):
                if (step.weekday(), step.time()) == (moment.weekday, moment.at):
                    is_open = opens
        latest = max(latest, shown)
        if at >= since:
            found.append(is_open)
        at += MINUTE
    return found


QUARTERS = st.builds(time, st.integers(0, 23), st.sampled_from([0, 15, 30, 45, 59]))
MOMENTS = st.builds(Moment, st.integers(0, 6), QUARTERS)
NIGHTS = [time(1, 30), time(2), time(2, 30), time(3)]
SUNDAYS = st.builds(Moment, st.just(6), st.sampled_from(NIGHTS))


@settings(max_examples=12, deadline=None)
@given(
    st.one_of(MOMENTS, SUNDAYS),
    st.one_of(MOMENTS, SUNDAYS),
    st.sampled_from([NEW_YORK, ZURICH, ZoneInfo("UTC"), ZoneInfo("Australia/Lord_Howe")]),
    st.sampled_from(["2026-03-06", "2026-03-27", "2026-10-02", "2026-10-23", "2026-10-30", "2026-04-03", "2026-06-12"]),
)
@example(Moment(6, time(2, 30)), Moment(6, time(3)), NEW_YORK, "2026-03-06")
@example(Moment(6, time(2)), Moment(6, time(2, 30)), ZURICH, "2026-10-23")
def test_agrees_with_a_walk_by_the_clock(opens: Moment, closes: Moment, zone: ZoneInfo, day: str) -> None:
    its = Window("x", opens, closes, zone)
    since = utc(day)
    minutes = 3 * 24 * 60
    expected = by_the_clock(its, since, minutes)
    found: list[bool] = []
    at = since
    while len(found) < minutes:
        opening = next(its.openings(at))
        closed = max(0, -(-(opening.opens.astimezone(UTC) - at) // MINUTE))
        opened = -(-(opening.closes.astimezone(UTC) - at) // MINUTE) - closed
        found += [False] * closed + [True] * opened
        at = since + len(found) * MINUTE
    assert found[:minutes] == expected
    for minute in range(0, minutes, 97):
        assert its.is_open(since + minute * MINUTE) == expected[minute]


class TestWhyClosed:
    def test_open(self) -> None:
        assert why_closed([window("Sunday 02:00", "Sunday 04:00")], "VACUUM FULL", utc("2026-07-05 01:00")) == ""

    def test_closed_says_when_it_opens(self) -> None:
        its = [window("Sunday 02:00", "Sunday 04:00"), window("Wednesday 02:00", "Wednesday 03:00")]
        assert why_closed(its, "VACUUM FULL", utc("2026-07-05 03:00")) == (
            "the maintenance window of 'VACUUM FULL' is closed; it opens on Wednesday 2026-07-08 02:00 CEST"
            " and closes at Wednesday 03:00 CEST"
        )

    def test_no_window_at_all_is_closed(self) -> None:
        told = why_closed([window("Sunday 02:00", "Sunday 04:00")], "REINDEX", utc("2026-07-05 01:00"))
        assert told == "the profile has no maintenance window for 'REINDEX'"


class TestOverlaps:
    NOW = utc("2026-07-01 00:00")

    @pytest.mark.parametrize(
        ("other", "found"),
        [
            (("Sunday 03:00", "Sunday 05:00"), 1),
            (("Saturday 12:00", "Sunday 02:01"), 1),
            (("Monday 00:00", "Sunday 23:00"), 1),
            (("Sunday 04:00", "Sunday 05:00"), 0),
            (("Sunday 00:00", "Sunday 02:00"), 0),
        ],
    )
    def test_of_one_operation(self, other: tuple[str, str], found: int) -> None:
        for now in (self.NOW, utc("2026-07-05 00:30"), utc("2026-07-05 02:30")):
            both = [window("Sunday 02:00", "Sunday 04:00"), window(*other)]
            assert len(list(overlaps(both, now))) == found
            assert len(list(overlaps(both[::-1], now))) == found

    def test_of_two_operations(self) -> None:
        both = [window("Sunday 02:00", "Sunday 04:00"), window("Sunday 02:00", "Sunday 04:00", operation="REINDEX")]
        assert list(overlaps(both, self.NOW)) == []
