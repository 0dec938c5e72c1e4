"""What the map says of a real archive is tried: at both ends of its stretches, with recoveries."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from runbook_lib.effect import Effect
from runbook_lib.environment import Environment
from runbook_lib.outcome import Outcome
from runbook_lib.reach import postgres, programs
from runbook_lib.safety.permit import Permit
from runbook_lib.settings import Archiving, Backups, Database, Settings
from runbook_lib.wal import base_backup_taking, reachability
from runbook_lib.wal.base_backup import BaseBackup, BaseBackups
from runbook_lib.wal.reachability import Reachability
from runbook_lib.wal.segment import last_commit_at
from tests.wal import place
from tests.wal.place import SEGMENT_BYTES, Primary, Store

PERMIT = Permit("here", granted=True, reason="a test")
TICK = timedelta(microseconds=1)
STEPS = 4
GAVE_UP = {
    "before the hole": "could not restore file",
    "at the end of the archive": "recovery ended before configured recovery target was reached",
}
"""What PostgreSQL says last."""


@dataclass(frozen=True)
class Mapped:
    """A primary with two base backups, of whose WAL a segment between them is lost."""

    primary: Primary
    backups: BaseBackups
    commits: list[tuple[datetime, datetime, int]]
    """When each transaction had not ended yet, when it had, and the rows that there were then."""
    lost: int
    """The number of the segment."""
    whole: Reachability
    """The map before it was lost."""

    @property
    def map(self) -> Reachability:
        return look(self.primary, self.backups)

    def rows_at(self, moment: datetime) -> int:
        """Return how many rows there were at a moment that no transaction ended around."""
        assert not any(before <= moment < after for before, after, _ in self.commits[1:])
        return max(rows for _, after, rows in self.commits if after <= moment)

    def rows_before(self, ended: datetime) -> int:
        """Return how many rows there were before the transaction that ended at a moment."""
        (at,) = [n for n, (before, after, _) in enumerate(self.commits) if before <= ended <= after]
        return self.commits[at - 1][2]

    def recover(self, base: BaseBackup, moment: datetime) -> place.Recovered:
        into = self.primary.store.workspace.path / f"tar-{base.stop_lsn}"
        if not into.exists():
            with tarfile.open(fileobj=io.BytesIO(self.backups.bucket.read(base.key, base.version_id))) as tar:
                tar.extractall(into, filter="fully_trusted")
            into.chmod(0o700)
        settings = {"recovery_target_time": moment.isoformat(), "recovery_target_timeline": "1"}
        return place.recover(self.primary, base=into, settings=settings)


def look(primary: Primary, backups: BaseBackups) -> Reachability:
    return reachability.look(
        primary.archive, backups, now=datetime.now(UTC), retention=timedelta(days=30), rpo=timedelta(minutes=15)
    )


@pytest.fixture(scope="module")
def mapped(store: Store) -> Iterator[Mapped]:
    store.proxy.reset()
    with place.primary(store, steps=2, prefix="mapped/", name="mapped") as primary:
        backups = BaseBackups(store.bucket(), "mapped-base/")
        commits: list[tuple[datetime, datetime, int]] = []
        with postgres.session(primary.server.dsn(), read_only=False) as session:
            commits.append((datetime.min.replace(tzinfo=UTC), session.value("SELECT clock_timestamp()"), primary.rows))

            def write() -> None:
                for step in range(STEPS):
                    before = session.value("SELECT clock_timestamp()")
                    session.execute(
                        "INSERT INTO public.t SELECT %s, n, repeat(md5(n::text), 40) FROM generate_series(1, 600) n",
                        step,
                    )
                    after = session.value("SELECT clock_timestamp()")
                    commits.append((before, after, session.value("SELECT count(*) FROM public.t")))

            for _ in range(2):
                base_backup_taking.take(primary.server.dsn(), backups, permit=PERMIT, archive=primary.archive)
                write()
            place.await_archived(session, session.value("SELECT pg_walfile_name(pg_switch_wal())"))
        newer, older = backups.listing().backups
        whole = look(primary, backups)
        lost = (older.stop_lsn + newer.start_lsn) // 2 // SEGMENT_BYTES
        assert older.stop_lsn // SEGMENT_BYTES < lost < newer.start_lsn // SEGMENT_BYTES
        primary.archive.bucket.remove(primary.archive.listing().segments[1][lost].key)
        yield Mapped(primary, backups, commits, lost, whole)


def test_before_and_after_a_segment_is_lost(mapped: Mapped) -> None:
    assert mapped.whole.recoverable.outcome is Outcome.PROVEN, mapped.whole.recoverable.explain()
    assert mapped.whole.in_time(maximum_seconds=60).outcome is Outcome.PROVEN
    (finding,) = mapped.map.recoverable.findings
    assert finding.check == "reach.hole"
    assert f"{mapped.lost:08X} is missing" in finding.says
    (_, hole) = mapped.map.holes
    assert mapped.whole.best(hole.began_at) is not None
    assert mapped.map.best(hole.began_at) is None
    assert mapped.map.best(hole.began_at - TICK) is not None
    assert mapped.map.best(hole.ended_at) is not None


@pytest.mark.parametrize("which", GAVE_UP)
def test_the_last_moment_of_a_stretch_can_be_recovered_and_its_end_cannot(mapped: Mapped, which: str) -> None:
    stretch = mapped.map.living[0 if which == "before the hole" else 1]
    recovered = mapped.recover(stretch.base, stretch.ended_at - TICK)
    assert recovered.promoted, recovered.log
    assert recovered.rows == mapped.rows_before(stretch.ended_at)
    ended = mapped.recover(stretch.base, stretch.ended_at)
    assert not ended.promoted
    assert GAVE_UP[which] in ended.log, ended.log


def test_the_first_moment_of_a_stretch_can_be_recovered(mapped: Mapped) -> None:
    stretch = mapped.map.living[1]
    recovered = mapped.recover(stretch.base, stretch.began_at)
    assert recovered.promoted, recovered.log
    assert recovered.rows == mapped.rows_at(stretch.began_at)


def test_a_moment_in_the_hole_ends_in_no_database(mapped: Mapped) -> None:
    (_, hole) = mapped.map.holes
    ended = mapped.recover(mapped.map.living[0].base, hole.ended_at - TICK)
    assert not ended.promoted
    assert GAVE_UP["before the hole"] in ended.log, ended.log


def test_the_end_of_a_transaction_is_read_from_the_segment_as_pg_waldump_reads_it(
    primary: Primary, tmp_path: Path
) -> None:
    for name in sorted(s.key.rpartition("/")[2] for s in primary.archive.listing().segments[1].values())[:12]:
        content = primary.archive.read(name)
        (tmp_path / name).write_bytes(content)
        argv: list[str | Path] = [primary.server.tools.program("pg_waldump"), "--rmgr=Transaction", tmp_path / name]
        said = programs.run(argv, sought="records", timeout_seconds=30).stdout
        told = [line for line in said.splitlines() if "COMMIT" in line or "ABORT" in line]
        shown = [line.partition("COMMIT ")[2][:26] for line in told if "COMMIT " in line]
        found = last_commit_at(content)
        assert (found is None) == (not shown), (name, said)
        if found is not None:
            assert f"{found:%Y-%m-%d %H:%M:%S.%f}" == max(shown)


def test_a_scenario_lays_the_map_out_through_clients_that_cannot_write(
    mapped: Mapped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the segments are as large as the base backups say, which no profile does."""
    store = mapped.primary.store
    for name, value in store.env.items():
        monkeypatch.setenv(name, value)
    backups = Backups(bucket=place.BUCKET, endpoint_url=store.store.endpoint_url, region=store.store.region)
    settings = Settings(
        "here",
        Database(mapped.primary.server.dsn(), mapped.primary.system_identifier),
        backups,
        archiving=Archiving(wal_prefix="mapped/", base_prefix=mapped.backups.prefix),
    )
    found = Environment.of(settings).for_scenario("the map", Effect.READS).reachability()
    assert [stretch.ended_at for stretch in found.living] == [stretch.ended_at for stretch in mapped.map.living]
    assert {finding.check for finding in found.recoverable.findings} == {"reach.hole"}
    nobody = replace(settings, database=replace(settings.database, system_identifier="7"))
    other = Environment.of(nobody).reachability()
    assert {finding.check for finding in other.recoverable.findings} == {"reach.base", "reach.nothing"}


def test_a_base_backup_that_is_being_taken_takes_nothing_away(mapped: Mapped) -> None:
    bucket = mapped.backups.bucket
    key = f"{mapped.backups.prefix}20260101_020000.tar"
    bucket.write_once(key, b"half of a tar")
    try:
        assert {finding.check for finding in mapped.map.recoverable.findings} == {"reach.hole"}
        bucket.write_once(key.replace(".tar", ".json"), b"no record")
        assert {finding.check for finding in mapped.map.recoverable.findings} == {"reach.hole", "base_backup.record"}
    finally:
        bucket.remove(key)
        bucket.remove(key.replace(".tar", ".json"))
