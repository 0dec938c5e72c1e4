"""A restore is predicted from its bytes and from what earlier ones took; a prediction that is wrong is found."""

from __future__ import annotations

import pytest

from runbook_lib.outcome import Outcome
from runbook_lib.restore.prediction import FULL_RESTORE, POINT_IN_TIME, Work, predict

MB = 1_000_000


def work(database: int = 900 * MB, dump: int = 100 * MB) -> Work:
    return Work(FULL_RESTORE, "a backup", {"dump": dump, "database": database}, database)


def ran(seconds: float, room: int = 900 * MB, **sizes: int) -> dict[str, object]:
    return {**work(**sizes).measures(seconds=seconds, room_bytes=room), "rto_seconds": 1.0}


class TestWithoutHistory:
    def test_the_known_rates_with_a_wide_interval(self) -> None:
        found = predict(work())
        assert found.seconds.expected == pytest.approx(5 + 1 + 30)
        assert [found.seconds.low, found.seconds.high] == [0, pytest.approx(370)]
        large = predict(work(database=900_000 * MB)).seconds
        assert large.low == pytest.approx(large.expected / 10, rel=0.01)
        assert "no earlier run is in the history" in str(found)
        assert found.runs == 0

    def test_a_restore_of_next_to_nothing_may_take_a_while(self) -> None:
        found = predict(work(database=1, dump=1))
        check = found.compare(seconds=45, room_bytes=9 * MB, where="here")
        assert check.outcome is Outcome.PROVEN

    def test_a_moment_is_predicted_from_base_backup_and_wal(self) -> None:
        found = predict(
            Work.of_point_in_time("b to 12:00", base_backup_bytes=2000 * MB, wal_bytes=1500 * MB, room_bytes=9)
        )
        assert found.seconds.expected == pytest.approx(5 + 10 + 10)
        assert found.work.measure == f"{POINT_IN_TIME}_seconds"


class TestFromHistory:
    def test_this_place_is_slower(self) -> None:
        found = predict(work(), [ran(72.0), ran(80.0), ran(76.0)])
        assert found.seconds.expected == pytest.approx(76)
        assert found.runs == 3
        assert "from 3 earlier runs here" in str(found)

    def test_the_more_runs_the_narrower(self) -> None:
        widths = []
        for runs in (0, 1, 3, 10):
            found = predict(work(), [ran(36.0)] * runs).seconds
            widths.append(found.high - found.low)
        assert widths == sorted(widths, reverse=True)
        assert len(set(widths)) == 4

    def test_one_that_grew_takes_longer(self) -> None:
        small, large = ran(36.0), work(database=9000 * MB, dump=1000 * MB)
        found = predict(large, [small])
        assert found.seconds.expected == pytest.approx(5 + 10 + 300)
        assert not found.seconds.holds(36.0 * 0.5)

    def test_what_takes_as_long_without_rows_does_not_grow(self) -> None:
        tiny = ran(5.0, 9 * MB, database=1, dump=1)
        assert predict(work(), [tiny]).seconds.expected == pytest.approx(36, rel=0.01)

    def test_one_slow_run_widens_and_does_not_lead_astray(self) -> None:
        found = predict(work(), [*[ran(36.0)] * 5, ran(360.0)])
        assert found.seconds.expected == pytest.approx(36)
        assert found.seconds.holds(360)

    def test_how_much_of_its_source_a_copy_takes(self) -> None:
        found = predict(work(), [ran(36.0, room=330 * MB)])
        assert found.room_bytes.expected == pytest.approx(315 * MB)
        assert found.room_bytes.holds(330 * MB)
        assert not found.room_bytes.holds(900 * MB)

    @pytest.mark.parametrize(
        "nonsense",
        [
            {},
            {"full_restore_seconds": 3.0},
            {**ran(3.0), "full_restore_seconds": "soon"},
            {**ran(3.0), "full_restore_seconds": float("nan")},
            {**ran(3.0), "full_restore_seconds": -1},
            {**ran(3.0), "full_restore_dump_bytes": None},
            {**ran(3.0), "full_restore_room_bytes": True},
            {name.replace("full", "table"): value for name, value in ran(3.0).items()},
        ],
    )
    def test_what_makes_no_sense_predicts_nothing(self, nonsense: dict[str, object]) -> None:
        assert predict(work(), [nonsense]) == predict(work())


class TestComparing:
    """Both directions: what was predicted is proven, what was not is found."""

    @pytest.mark.parametrize("seconds", [20.0, 36.0, 90.0])
    def test_it_took_what_was_predicted(self, seconds: float) -> None:
        check = predict(work(), [ran(36.0)] * 3).compare(seconds=seconds, room_bytes=900 * MB, where="here")
        assert check.outcome is Outcome.PROVEN
        assert check.holds()

    @pytest.mark.parametrize(
        ("seconds", "room", "found"),
        [
            (300.0, 900, ["prediction.seconds"]),
            (1.0, 900, ["prediction.seconds"]),
            (36.0, 1900, ["prediction.room"]),
            (36.0, 20, ["prediction.room"]),
            (1000.0, 9000, ["prediction.seconds", "prediction.room"]),
        ],
    )
    def test_it_did_not(self, seconds: float, room: int, found: list[str]) -> None:
        check = predict(work(), [ran(36.0)] * 3).compare(seconds=seconds, room_bytes=room * MB, where="here")
        assert check.outcome is Outcome.FAILED
        assert [each.check for each in check.findings] == found
        assert all("was predicted, and it took" in each.says and each.remedy for each in check.findings)
