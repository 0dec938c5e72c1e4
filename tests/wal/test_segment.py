"""A WAL file is recognised by its name and by its bytes; and the end of its records is where PostgreSQL says it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.errors import DamagedArtefact
from runbook_lib.reach import binaries, postgres, programs
from runbook_lib.reach.server import FAST, PostgresServer
from runbook_lib.reach.workspace import Workspace
from runbook_lib.wal.segment import (
    MIB,
    Kind,
    Segment,
    SegmentHeader,
    WalName,
    end_of_records,
    history_of,
    lsn_of,
    lsn_text,
    why_not,
)
from tests.wal import made
from tests.wal.place import Primary


@pytest.mark.parametrize(
    ("text", "kind", "timeline"),
    [
        ("00000001000000A0000000FF", Kind.SEGMENT, 1),
        ("0000000A000000000000002B.partial", Kind.PARTIAL, 10),
        ("00000002.history", Kind.HISTORY, 2),
        ("000000010000000000000002.00000028.backup", Kind.LABEL, 1),
    ],
)
def test_names(text: str, kind: Kind, timeline: int) -> None:
    found = WalName.parse(text)
    assert found is not None
    assert (found.kind, found.timeline) == (kind, timeline)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00000001000000000000000",
        "00000001000000000000000g",
        "00000001000000000000000a",
        "00000000.history",
        "000000010000000000000002.gz",
        "../000000010000000000000002",
        "000000010000000000000002\n",
    ],
)
def test_what_is_no_name(text: str) -> None:
    assert WalName.parse(text) is None


@given(st.integers(1, 2**32 - 1), st.integers(0, 2**63), st.sampled_from([1, 2, 16, 64, 1024]))
def test_a_segment_and_its_name(timeline: int, lsn: int, mib: int) -> None:
    segment = Segment.at(timeline, lsn, mib * MIB)
    assert segment.start_lsn <= lsn < segment.end_lsn == segment.after().start_lsn
    named = WalName.parse(segment.name)
    assert named is not None
    assert named.segment(mib * MIB) == segment
    assert lsn_of(lsn_text(lsn)) == lsn


def test_the_next_log_begins_where_the_size_says() -> None:
    assert Segment(1, 255, 16 * MIB).after().name == "000000010000000100000000"
    assert Segment(1, 255, MIB).after().name == "000000010000000000000100"


class TestWhyNot:
    def test_a_segment_that_is_one(self) -> None:
        assert self.why(*made.segment(3, 7)) == ""

    def test_one_of_an_older_timeline_at_a_fork(self) -> None:
        name, content = made.segment(3, 7, written_on=2)
        assert self.why(name, content) == ""

    def test_each_way_of_being_none(self) -> None:
        name, content = made.segment(3, 7)
        assert "is its name" in self.why(name, made.segment(3, 8)[1])
        assert "later than" in self.why(name, made.segment(3, 7, written_on=4)[1])
        assert "of the cluster" in self.why(name, made.segment(3, 7, identifier="1")[1])
        assert "begins with zeros" in self.why(name, bytes(len(content)))
        assert "no segment of PostgreSQL" in self.why(name, b"\x1f\x8b" + content[2:])
        assert "65535 bytes" in self.why(name, content[:-1])
        assert "segments have" in self.why(name, content[:32] + bytes([0, 0, 2, 0]) + content[36:])

    def test_histories(self) -> None:
        assert self.why("00000002.history", b"1\t0/3000060\tno recovery target specified\n") == ""
        assert "not older" in self.why("00000002.history", b"2\t0/3000060\tx\n")
        assert "none of a history" in self.why("00000002.history", b"<html>")
        assert "names no timeline" in self.why("00000002.history", b"")

    def test_labels(self) -> None:
        label = b"START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n"
        assert self.why("000000010000000000000002.00000028.backup", label) == ""
        assert "not the label" in self.why("000000010000000000000003.00000028.backup", label)

    def why(self, name: str, content: bytes) -> str:
        known = WalName.parse(name)
        assert known is not None
        return why_not(known, content, len(content), segment_bytes=made.SMALL_BYTES, system_identifier=made.IDENTIFIER)


def test_a_history_is_read() -> None:
    told = b"1\t0/3000060\tno recovery target specified\n\n2\tA/BC000000\tbefore 2026-02-03 14:30:00+00\n"
    forks = history_of(told, 3, where="here")
    assert [(fork.parent, lsn_text(fork.lsn)) for fork in forks] == [(1, "0/3000060"), (2, "A/BC000000")]
    assert forks[1].reason == "before 2026-02-03 14:30:00+00"
    with pytest.raises(DamagedArtefact, match="do not ascend"):
        history_of(b"2\t0/3000060\tx\n1\t0/4000000\tx\n", 3, where="here")


@pytest.mark.parametrize("major", [14, 18])
def test_real_segments_of_other_versions(major: int) -> None:
    with Workspace.open() as workspace:
        server = PostgresServer.start(workspace, binaries.find(major), settings=FAST)
        with postgres.session(server.dsn()) as session:
            name = session.value("SELECT pg_walfile_name(pg_current_wal_lsn())")
            identifier = session.server().system_identifier
        content = (server.data_directory / "pg_wal" / name).read_bytes()
        server.stop()
    header = SegmentHeader.read(content)
    assert header is not None
    assert (header.major, header.system_identifier, header.segment_bytes) == (major, identifier, 16 * MIB)
    known = WalName.parse(name)
    assert known is not None
    assert not why_not(known, content, len(content), segment_bytes=16 * MIB, system_identifier=identifier)


def test_the_records_end_where_pg_waldump_says(archived: Primary, tmp_path: Path) -> None:
    """pg_waldump tells where each record begins; the last that begins in a segment does not end in it."""
    numbers = sorted(archived.archive.listing().segments[1])[-8:]
    segments = [Segment(1, number, MIB) for number in numbers]
    for segment in segments:
        (tmp_path / segment.name).write_bytes(archived.archive.read(segment.name))
    dumped = programs.run(
        [archived.server.tools.program("pg_waldump"), "--path", tmp_path, segments[0].name, segments[-1].name],
        sought="the records",
        timeout_seconds=60,
    )
    starts = [lsn_of(found) for found in re.findall(r"lsn: ([0-9A-F]+/[0-9A-F]+)", dumped.stdout)]
    switches = [lsn_of(found) for found in re.findall(r"lsn: ([0-9A-F]+/[0-9A-F]+),.*SWITCH", dumped.stdout)]
    for segment in segments[:-1]:
        crossing = max(start for start in starts if start < segment.end_lsn)
        end = end_of_records((tmp_path / segment.name).read_bytes())
        if crossing in switches:  # the end of a base backup: what follows in the segment is nothing
            assert end == segment.end_lsn
            continue
        # A page begins with a header of 24 bytes, which belongs to no record.
        assert end in (crossing, crossing - 24)
    assert end_of_records((tmp_path / segments[-1].name).read_bytes()) == segments[-1].end_lsn  # by pg_switch_wal
    cut = (tmp_path / segments[3].name).read_bytes()[: MIB // 2] + bytes(MIB // 2)
    reached = end_of_records(cut)
    assert reached is not None
    assert max(start for start in starts if start < segments[3].start_lsn + MIB // 2) in (reached, reached + 24)


def test_no_records_in_what_is_none() -> None:
    assert end_of_records(bytes(MIB)) is None
    assert end_of_records(made.segment(1, 1)[1]) is None
