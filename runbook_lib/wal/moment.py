"""Which transaction was it? Rows are gone, nobody knows who did it, and a recovery needs a position.

People choose that position by asking around, restore for hours, and find that they were wrong (one did it twice in one
day). The WAL knows. Every row that was deleted stands in it, with the transaction that did it; whether that committed,
and when; and everything that was committed since, which a recovery to just before it would give up.

What makes it more than a search for DELETE:

- A row that was deleted by a transaction that rolled back, or before a rollback to a savepoint, was never gone.
- TRUNCATE and DROP delete nothing: they let go of the file. VACUUM FULL and ALTER TABLE do so too and lose nothing, and
  afterwards the table's rows are in a file of another number, so that the WAL of an hour ago speaks of a file that no
  catalog knows any more. The way back is in the WAL: who locked the table against everybody, which files it made, and
  which ones its commit dropped.
- Which of the files that a commit dropped was the table's, the WAL does not say outright where there are several: that
  is inferred from the order of their numbers, and an answer that rests on it says so.
- Where several transactions removed rows all are named, the largest first. Which one was the mistake is for people.

What cannot be told is said: how many rows a file held that was truncated, and what lies behind a hole in the archive.
A window that was not read whole is *unproven*, never "nothing happened".
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import NamedTuple

from runbook_lib.errors import NotFound, ProfileInvalid, Unproven
from runbook_lib.outcome import Check, Finding, Outcome
from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import Session
from runbook_lib.wal.records import (
    Commit,
    Created,
    Locked,
    Prepared,
    Record,
    RelationFile,
    RowKind,
    Running,
    Told,
    WalPath,
    WalReader,
)
from runbook_lib.wal.segment import Segment, lsn_text

_KEPT_A_FILE = 20
"""How many transactions are kept of each file, the largest; the others are counted."""
_TOLD_AT_MOST = 10
_LEAD_SEGMENTS = 64
"""How far back a place is looked for that says which transactions were running when the window began."""
_STAMPED_TO = timedelta(seconds=1)
"""S3 says to the second when a segment was archived, and leaves off the rest."""
_FIRST_OF_USERS = 16384
"""PostgreSQL's own relations have smaller numbers."""
_HALF_OF_XIDS = 1 << 31
_LAST_HOUR = timedelta(hours=1)
_UTC = re.compile(r"\s*\bUTC$", re.IGNORECASE)
_OID = re.compile(r"oid\s*:?\s*(\d{1,10})", re.IGNORECASE)

Rows = Counter[tuple[RelationFile, RowKind]]
"""How many rows of a file had this done to them."""


class Manner(Enum):
    """How rows went."""

    DELETED = "deleted"
    """By DELETE, of its own or by a foreign key's cascade."""
    TRUNCATED = "truncated"
    """By TRUNCATE: the file was exchanged for an empty one."""
    DROPPED = "dropped"
    """With the table, or the partition, itself."""


@dataclass(frozen=True)
class NamedFile:
    """A relation of the living catalog, and the file that it has now."""

    oid: int
    """The relation's OID, which it keeps."""
    name: str
    """Its name, quoted."""
    file: RelationFile | None
    """Its file; None of a partitioned table, which has none, and of a relation that was dropped."""
    is_toast: bool = False
    """Whether it holds values that are too long for the row that they belong to."""


@dataclass(frozen=True)
class Table:
    """The table that rows vanished from, as far as a catalog knows it."""

    name: str
    """Its name, quoted, or what stands for it."""
    database: int
    """The database's OID."""
    relations: tuple[NamedFile, ...]
    """The table itself and all its partitions."""
    others: tuple[NamedFile, ...] = ()
    """All other relations of the database."""
    is_dropped: bool = False
    """Whether no catalog has it any more; its file is then the one that its DROP let go of."""

    @classmethod
    def asked_for(cls, session: Session, text: str) -> Table:
        """Read the table that somebody asks for: by its name, or as ``oid 16432`` where it is not there any more.

        Raise `NotFound` where there is none of that name.
        """
        number = _OID.fullmatch(text.strip())
        if number is None:
            return cls.living(session, text.strip())
        catalog, oid = cls.living(session, "pg_catalog.pg_class"), int(number[1])
        for each in (*catalog.relations, *catalog.others):
            if each.oid == oid:
                return cls.living(session, each.name)
        return cls.dropped(oid, f"the dropped table of the OID {oid}", catalog)

    @classmethod
    def living(cls, session: Session, name: str) -> Table:
        """Read a table that is there. Raise `NotFound` where there is none of that name."""
        rows = session.rows(postgres.load_sql(__package__, "relation_files"), name)
        named: list[NamedFile] = []
        others: list[NamedFile] = []
        for row in rows:
            file = RelationFile(row["tablespace"], row["database"], row["node"]) if row["node"] else None
            into = named if row["is_named"] else others
            into.append(NamedFile(row["oid"], row["name"], file, row["kind"] == "t"))
        if not named:
            raise NotFound(
                f"the table {name}",
                where=postgres.describe(session.dsn),
                why="there is none of that name",
                remedy="if it was dropped, its OID is needed, which this catalog has no more: pg_restore --list of a "
                "backup of this database has it before the word TABLE (215; 1259 16432 TABLE public training_clients); "
                "ask for 'oid 16432' then",
            )
        asked = name if "." in name else f"public.{name}"
        return cls(asked, rows[0]["database"], tuple(named), tuple(others))

    @classmethod
    def dropped(cls, oid: int, name: str, beside: Table | int) -> Table:
        """Stand for a table that is not there any more, by the OID that it had.

        :param beside: a living table of the same database, whose catalog is then used for names; or that database's OID
        """
        relation = (NamedFile(oid, name, None),)
        if isinstance(beside, int):
            return cls(name, beside, relation, is_dropped=True)
        return cls(name, beside.database, relation, (*beside.relations, *beside.others), is_dropped=True)


@dataclass(frozen=True)
class Lost:
    """What somebody says is gone: from where, and since when."""

    table: str
    """The table, as `Table.asked_for` reads it."""
    since: datetime
    """When the rows were there still, in UTC."""
    until: datetime | None
    """When they were gone, in UTC; None for as far as there is WAL."""

    @classmethod
    def told(cls, typed: str, between: tuple[str, str] | None, *, table: str, now: datetime) -> Lost:
        """Read it as it was typed; where nothing was, a default table and the last hour are meant.

        Raise `ProfileInvalid` where a time is none, has no offset, or the first is not the earlier one.
        """
        named = typed.strip() or table
        if between is None:
            return cls(named, now - _LAST_HOUR, None)
        since, until = (_time(each) for each in between)
        if since >= until:
            raise _no_window(" to ".join(between), "it ends before it begins")
        return cls(named, since, until)

    def __str__(self) -> str:
        """Return table and window for a report."""
        until = self.until.isoformat() if self.until else "the end of the archive"
        return f"rows of {self.table} that vanished from {self.since.isoformat()} to {until}"


def _time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(_UTC.sub("+00:00", text.strip()))
    except ValueError:
        raise _no_window(text, "it is no time") from None
    if at.tzinfo is None:
        raise _no_window(text, "it has no offset, so that it could be any of two dozen moments")
    return at.astimezone(UTC)


def _no_window(text: str, why: str) -> ProfileInvalid:
    return ProfileInvalid(
        "when the rows vanished",
        where=repr(text),
        why=why,
        remedy="give two times with their offsets, the earlier one first: --between '2026-11-24 12:00+00' "
        "'2026-11-24 13:00+00'",
    )


@dataclass(frozen=True)
class Later:
    """What was committed after a transaction: what a recovery to just before it gives up beside it."""

    transactions: int
    """How many transactions, of all databases of the cluster."""
    first_at: datetime | None
    """When the first of them committed; None where there is none."""
    last_at: datetime | None
    """When the last one did."""
    rows: Mapping[str, tuple[int, int, int]]
    """Table, or the path of a file that no catalog knows, to the rows inserted, updated and deleted in it."""

    def __str__(self) -> str:
        """Return it as a paragraph."""
        if not self.transactions:
            return "no later transaction is in the archive"
        assert self.first_at is not None
        assert self.last_at is not None
        lines = [
            f"{self.transactions} later transactions, {self.first_at.isoformat()} to {self.last_at.isoformat()}, which "
            "changed:"
        ]
        by_size = sorted(self.rows.items(), key=lambda each: -sum(each[1]))
        lines += [f"  {name}: {ins} inserted, {upd} updated, {dele} deleted" for name, (ins, upd, dele) in by_size[:25]]
        if len(by_size) > 25:
            lines.append(f"  ... and {len(by_size) - 25} more tables")
        return "\n".join(lines)


@dataclass(frozen=True)
class Loss:
    """One transaction that removed rows of the table, and committed."""

    manner: Manner
    """How."""
    commit: Commit
    """Its commit."""
    deleted: int
    """The rows that it deleted one by one; 0 where it let go of the file as a whole."""
    updated: int
    """The rows of the table that it updated."""
    inserted: int
    """The rows that it inserted."""
    is_complete: bool
    """Whether all its rows were counted; else it began before the WAL that was read, and there may be more."""
    relations: tuple[str, ...]
    """The table or partitions that it removed rows of."""
    later: Later
    """What was committed after it."""
    gid: str = ""
    """The name that it was prepared under, of a prepared transaction."""
    inferred: tuple[str, ...] = ()
    """What it rests on that the WAL does not say outright: which file was the table's. Empty where that is certain."""

    @property
    def rows(self) -> str:
        """How many rows, as far as the WAL tells."""
        if self.manner is Manner.DELETED:
            return f"{'' if self.is_complete else 'at least '}{self.deleted} rows"
        return "all rows, whose number the WAL does not tell"

    @property
    def target(self) -> Mapping[str, str]:
        """The settings with which a recovery stops just before it."""
        return {
            "recovery_target_lsn": lsn_text(self.commit.lsn),
            "recovery_target_inclusive": "off",
            "recovery_target_timeline": str(self.commit.timeline),
        }

    def explain(self) -> str:
        """Return what it did, where a recovery has to stop, and what that gives up."""
        settings = ", ".join(f"{name} = '{value}'" for name, value in self.target.items())
        lines = [
            f"transaction {self.commit.xid} {self.manner.value} {self.rows} of {', '.join(self.relations)}",
            f"  committed {self.commit.at.isoformat()}, its commit record from {lsn_text(self.commit.lsn)} to "
            f"{lsn_text(self.commit.end_lsn)} on timeline {self.commit.timeline}",
        ]
        lines += [f"  that is inferred: {each}" for each in self.inferred]
        if self.updated or self.inserted:
            lines.append(f"  it also updated {self.updated} and inserted {self.inserted} rows of it")
        lines.append(f"  to recover to just before it: {settings}")
        if self.commit.prepared:
            lines.append(
                f"  it was prepared before that, as {self.gid or 'what pg_prepared_xacts says'}: there it still holds "
                "its locks, until ROLLBACK PREPARED"
            )
        lines += [
            f"  that gives up {line}" if not at else f"  {line}" for at, line in enumerate(str(self.later).split("\n"))
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Moment:
    """What the WAL says of rows that vanished."""

    table: str
    """The table."""
    since: datetime
    """The beginning of the window that was asked for."""
    until: datetime | None
    """Its end; None for as far as there is WAL."""
    losses: tuple[Loss, ...]
    """The transactions that removed rows in the window, the largest first: a whole file before any number of rows."""
    transactions: int
    """How many removed rows in the window, or at least; where they are many, only the largest are in `losses`."""
    are_all_kept: bool
    """Whether all of them are in `losses`."""
    commits: int
    """How many transactions committed in the window at all."""
    where: str
    """What was read."""
    start_lsn: int
    """Where reading began."""
    end_lsn: int
    """Where it ended."""
    first_at: datetime | None
    """The time of the first commit that was read; None where there is none."""
    last_at: datetime | None
    """The time of the last one."""
    findings: tuple[Finding, ...] = ()
    """What was not read, or could not be told."""
    untold: tuple[Finding, ...] = ()
    """What of the table could not be told, of the WAL that was read."""
    inferred: Mapping[str, str] = field(default_factory=dict)
    """Each file that was taken for the table's by inference, to the reason: what was deleted from another is missed."""

    @property
    def read_whole(self) -> Check:
        """Whether all WAL of the window was read."""
        return Check(
            f"the WAL of the window was read without a hole, for {self.table}",
            self.where,
            f"{lsn_text(self.start_lsn)} to {lsn_text(self.end_lsn)}, {self.end_lsn - self.start_lsn} bytes, commits "
            f"from {self.first_at.isoformat() if self.first_at else 'none'} to "
            f"{self.last_at.isoformat() if self.last_at else 'none'}; {self.commits} in the window",
            self.findings,
        )

    @property
    def all_are_named(self) -> Check:
        """Whether every transaction that removed rows is named, with all its rows."""
        findings = [
            Finding(
                "moment.rows",
                f"transaction {each.commit.xid}",
                "it began before the WAL that was read: it removed more rows than were counted, or as many",
                Outcome.UNPROVEN,
                "ask for a longer window",
            )
            for each in self.losses
            if not each.is_complete
        ]
        if not self.are_all_kept:
            findings.append(
                Finding(
                    "moment.many",
                    self.table,
                    f"at least {self.transactions} transactions removed rows of it; the {len(self.losses)} largest are "
                    "named, and no other",
                    Outcome.UNPROVEN,
                    "ask for a shorter window",
                )
            )
        findings += [
            Finding(
                "moment.inferred",
                f"the file {file}",
                f"that it was the table's is inferred: {why}",
                Outcome.UNPROVEN,
                f"recover to before that transaction and compare: SELECT pg_relation_filenode('{self.table}')",
            )
            for file, why in self.inferred.items()
        ]
        return Check(
            f"each transaction that removed rows of {self.table} is named",
            self.where,
            f"{self._number} that removed rows, of {self.commits} in the window",
            (*self.findings, *self.untold, *findings),
        )

    @property
    def _number(self) -> str:
        return f"{'' if self.are_all_kept else 'at least '}{self.transactions} transactions"

    def explain(self) -> str:
        """Return all of it as a text for a report."""
        until = self.until.isoformat() if self.until else "the end of the archive"
        lines = [self.read_whole.explain()]
        if not self.losses:
            lines.append(f"no transaction removed rows of {self.table} from {self.since.isoformat()} to {until}")
        else:
            lines.append(
                f"{self._number} removed rows of {self.table} from {self.since.isoformat()} to "
                + until
                + (": which one was the mistake the WAL does not say" if self.transactions > 1 else "")
            )
        lines += [f"but {each.says}; {each.remedy}" for each in self.untold]
        if told := set(self.inferred.values()).difference(*(loss.inferred for loss in self.losses)):
            lines += [f"that nothing else was removed is inferred: {each}" for each in sorted(told)]
        lines += [loss.explain() for loss in self.losses[:_TOLD_AT_MOST]]
        if self.transactions > min(len(self.losses), _TOLD_AT_MOST):
            lines.append(f"... and {self.transactions - min(len(self.losses), _TOLD_AT_MOST)} smaller ones")
        return "\n".join(lines)


def find_the_moment(
    reader: WalReader,
    table: Table,
    since: datetime,
    until: datetime | None = None,
    *,
    timeline: int | None = None,
    recoverable_lsn: int | None = None,
) -> Moment:
    """Read the WAL of a window and name the transactions that removed rows of a table.

    :param since: the beginning of the window, with a time zone
    :param until: its end; by default as far as there is WAL
    :param timeline: along which; by default the newest
    :param recoverable_lsn: where the oldest base backup begins: an archive that begins there begins early enough

    The WAL is read further, to the end of the archive: that is what a recovery would give up. Raise `Unproven` where a
    segment of the window is missing, `DamagedArtefact` where one is not what it should be.
    """
    _must_have_a_zone(since, until)
    path, size = reader.path(timeline), reader.archive.segment_bytes
    numbers = sorted(path.segments)
    if not numbers:
        raise NotFound("archived WAL", where=reader.archive.where, why="there is none", remedy="archive WAL")
    window = [number for number in numbers if path.archived_at[number] > since - _STAMPED_TO]
    begins = window[0] if window else numbers[-1]
    start_lsn, running = _lead_in(reader, path, begins * size, since)
    findings: list[Finding] = []
    end_lsn = path.end_lsn
    if missing := path.missing(start_lsn, path.end_lsn):
        end_lsn = missing[0] * size
        _must_be_behind(reader, path, start_lsn, missing, until)
        findings.append(_hole(reader, path, missing))
    search = _Search(table, since, until, running)
    for told in reader.read(path, start_lsn, end_lsn):
        search.take_in(told)
    is_covered = numbers[0] == 1 or (search.first_at is not None and search.first_at <= since)
    is_covered = is_covered or (recoverable_lsn is not None and start_lsn <= recoverable_lsn)
    if start_lsn // size == numbers[0] and not is_covered:
        says = f"the archive begins later than the window: its first commit is of {search.first_at}"
        remedy = "ask for a window that the archive covers, or look in pg_wal of a server"
        findings.append(Finding("moment.window", table.name, says, Outcome.UNPROVEN, remedy))
    if until is not None and end_lsn == path.end_lsn and (search.last_at is None or search.last_at < until):
        says = f"the archive ends before the window does: its last commit is of {search.last_at}"
        remedy = "wait until the WAL is archived (pg_switch_wal has the current segment archived), and ask again"
        findings.append(Finding("moment.window", table.name, says, Outcome.UNPROVEN, remedy))
    if not search.in_window and (search.last_at is None or search.last_at < since) and until is None:
        says = f"nothing of the window is archived: the last commit in the archive is of {search.last_at}"
        remedy = "wait until the WAL is archived (pg_switch_wal has the current segment archived), and ask again"
        findings.append(Finding("moment.window", table.name, says, Outcome.UNPROVEN, remedy))
    return search.moment(reader.archive.where, start_lsn, end_lsn, findings)


def _must_have_a_zone(*times: datetime | None) -> None:
    for each in times:
        if each is not None and each.tzinfo is None:
            raise Unproven(
                "the moment when rows vanished",
                where=each.isoformat(),
                why="it has no offset from UTC, and every clock here has one",
                remedy=f"write it with its offset: {each.isoformat()}+00:00",
            )


def _must_be_behind(
    reader: WalReader, path: WalPath, start_lsn: int, missing: list[int], until: datetime | None
) -> None:
    """Raise where a hole may lie within the window: only a commit before it that is later than its end shows it not."""
    last: datetime | None = None
    if until is not None:
        for record in reader.records(start_lsn, missing[0] * reader.archive.segment_bytes, path.timeline):
            last = record.at if isinstance(record, Commit) else last
        if last is not None and last > until:
            return
    hole = _hole(reader, path, missing)
    raise Unproven("which transaction removed rows", where=hole.subject, why=hole.says, remedy=hole.remedy)


def _hole(reader: WalReader, path: WalPath, missing: list[int]) -> Finding:
    names = [Segment(path.timeline, number, reader.archive.segment_bytes).name for number in missing]
    listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return Finding(
        "moment.hole",
        reader.archive.where,
        f"the archive has a hole: {listed} is not there, so that nothing can be said of what was committed in it",
        Outcome.UNPROVEN,
        f"look for {names[0]} in pg_wal of every server and in older versions of the bucket",
    )


def _lead_in(reader: WalReader, path: WalPath, start_lsn: int, since: datetime) -> tuple[int, int | None]:
    """Go back to a place that says which transactions were running: what began behind it is counted whole.

    Return the position to read from, and the first transaction that began behind it; None where no such place was
    found, and any transaction may have begun before. The clock of S3 need not be the server's: where even the first
    commit there is of the window, the window began before.
    """
    size = reader.archive.segment_bytes
    back, begins = 1, start_lsn
    while back <= _LEAD_SEGMENTS:
        upto, begins = begins, max(0, start_lsn - back * size)
        if begins // size not in path.segments:
            break
        records = [
            record for told in reader.read(path, begins, upto, ("Standby", "Transaction")) for record in told.records
        ]
        first = next((each.at for each in records if isinstance(each, Commit)), None)
        running = next((each.next_xid for each in records if isinstance(each, Running)), None)
        if running is not None and (first is None or first <= since):
            return begins, running
        back *= 2
    earliest = start_lsn
    while earliest // size - 1 in path.segments and earliest > start_lsn - _LEAD_SEGMENTS * size:
        earliest -= size
    return earliest, None


@dataclass
class _Found:
    """A transaction that may turn out to have removed rows of the table."""

    commit: Commit
    rows: Rows
    total: int
    gid: str
    before: Rows
    commits_before: int
    first_after: datetime | None = None


class _Replaced(NamedTuple):
    """The file that a relation had before."""

    file: RelationFile
    why: str
    """Why it is no more than inferred that it was this one; empty where it is certain."""
    is_empty: bool
    """Whether the new one began empty; else the rows were copied."""


_Emptied = dict[int, tuple[Manner, "_Exchange", dict[RelationFile, str]]]
"""The position of a commit to how it let go of which files, and of whose."""


@dataclass
class _Exchange:
    """A transaction that locked relations against everybody, and dropped files."""

    found: _Found
    locked: tuple[int, ...]
    created: tuple[RelationFile, ...]
    copied: frozenset[RelationFile]
    in_window: bool

    def replaced(self, oid: int, file: RelationFile) -> _Replaced | None:
        """Return the file that a relation had before; None where it had the same.

        A relation that is rewritten is made anew under a number of its own, which becomes its file's; it is locked
        under that number, too. TRUNCATE makes files alone, and drops the old ones in the opposite order.
        """
        dropped = self.found.commit.dropped
        if oid not in self.locked or file not in self.created or not dropped:
            return None
        place = self.created.index(file)
        rewritten = file.node in self.locked
        if not rewritten and len(dropped) == len(self.created):
            before = dropped[len(dropped) - 1 - place]
            why = f"transaction {self.found.commit.xid} let go of {len(dropped)} files, the table's taken for {before} "
            why += "by its place among them: TRUNCATE drops in the opposite order to that in which it makes"
            return _Replaced(before, "" if self._is_certain(oid, before) else why, file not in self.copied)
        return _Replaced(*self.oldest(oid), is_empty=False)

    def oldest(self, oid: int) -> tuple[RelationFile, str]:
        """Return the oldest of the files that were dropped, and why it is no more than inferred to be the relation's.

        Of the old files the table's is the oldest: its TOAST table and its indexes are made after it.
        """
        dropped = self.found.commit.dropped
        oldest = min(dropped, key=lambda each: each.node)
        if self._is_certain(oid, oldest):
            return oldest, ""
        return oldest, (
            f"transaction {self.found.commit.xid} let go of {len(dropped)} files, the table's taken for {oldest}, the "
            "one of the lowest number"
        )

    def _is_certain(self, oid: int, file: RelationFile) -> bool:
        # A relation's first file has the relation's own number; and of one file there is nothing to choose.
        return file.node == oid or len(self.found.commit.dropped) == 1


@dataclass
class _Search:
    """What is gathered while the WAL is read, in one pass and in bounded memory."""

    table: Table
    since: datetime
    until: datetime | None
    running: int | None
    open: dict[int, Rows] = field(default_factory=dict)
    """The rows of every transaction and subtransaction that has not ended."""
    locks: dict[int, list[int]] = field(default_factory=dict)
    created: dict[int, list[RelationFile]] = field(default_factory=dict)
    pages: dict[int, set[RelationFile]] = field(default_factory=dict)
    gids: dict[int, str] = field(default_factory=dict)
    committed: Rows = field(default_factory=Counter)
    """The rows of all that was committed so far."""
    count: int = 0
    in_window: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None
    largest: dict[RelationFile, list[tuple[int, int, _Found]]] = field(default_factory=dict)
    """The largest transactions that deleted from each file that may be the table's: smallest first, as a heap."""
    deleting: Counter[RelationFile] = field(default_factory=Counter)
    """How many transactions of the window deleted from it."""
    exchanges: list[_Exchange] = field(default_factory=list)
    waiting: list[_Found] = field(default_factory=list)
    """Those that wait to hear of the next commit."""
    _inferred: dict[RelationFile, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._foreign = {each.file for each in self.table.others}

    def take_in(self, told: Told) -> None:
        """Take in what a run told."""
        for (xid, kind, file), rows in told.rows.items():
            of = self.open.get(xid)
            if of is None:
                of = self.open[xid] = Counter()
            of[file, kind] = of.get((file, kind), 0) + rows
        for xid, file in told.pages:
            self.pages.setdefault(xid, set()).add(file)
        for record in told.records:
            self._record(record)

    def _record(self, record: Record) -> None:
        if isinstance(record, Commit):
            self._end(record)
        elif isinstance(record, Locked) and record.database == self.table.database:
            self.locks.setdefault(record.xid, []).append(record.relation)
        elif isinstance(record, Created):
            self.created.setdefault(record.xid, []).append(record.file)
        elif isinstance(record, Running):
            self.running = record.next_xid if self.running is None else self.running
        elif isinstance(record, Prepared):
            self.gids[record.xid] = record.gid

    def _end(self, commit: Commit) -> None:
        rows = self.open.pop(commit.xid, None) or Counter()
        locked: list[int] = []
        created: list[RelationFile] = []
        copied: set[RelationFile] = set()
        for xid in (commit.xid, *commit.subtransactions):
            if xid in self.open:
                rows.update(self.open.pop(xid))
            locked += self.locks.pop(xid, [])
            created += self.created.pop(xid, [])
            copied |= self.pages.pop(xid, set())
        gid = self.gids.pop(commit.xid, "")
        if commit.aborted:
            return
        for each in self.waiting:
            each.first_after = commit.at
        self.waiting.clear()
        self.count += 1
        self.first_at = self.first_at or commit.at
        self.last_at = commit.at
        inside = self.since <= commit.at and (self.until is None or commit.at <= self.until)
        self.in_window += inside
        for each_kind, number in rows.items():  # many times faster than Counter.update where there are few
            self.committed[each_kind] += number
        deleted = {file: number for (file, kind), number in rows.items() if kind is RowKind.DELETED}
        found: _Found | None = None
        if inside:
            for file, number in deleted.items():
                if not self._may_be_ours(file):
                    continue
                self.deleting[file] += 1
                heap = self.largest.setdefault(file, [])
                if len(heap) < _KEPT_A_FILE or number > heap[0][0]:
                    found = found or self._found(commit, rows, gid)
                    heapq.heappush(heap, (number, commit.lsn, found))
                    if len(heap) > _KEPT_A_FILE:
                        heapq.heappop(heap)
        if commit.dropped and locked:
            found = found or self._found(commit, rows, gid)
            self.exchanges.append(_Exchange(found, tuple(locked), tuple(created), frozenset(copied), inside))

    def _may_be_ours(self, file: RelationFile) -> bool:
        return file.database == self.table.database and file.node >= _FIRST_OF_USERS and file not in self._foreign

    def _found(self, commit: Commit, rows: Rows, gid: str) -> _Found:
        found = _Found(commit, rows, sum(rows.values()), gid, Counter(self.committed), self.count)
        self.waiting.append(found)
        return found

    def moment(self, where: str, start_lsn: int, end_lsn: int, findings: list[Finding]) -> Moment:
        """Say which of what was gathered is the table's."""
        files: dict[RelationFile, str] = {}
        losses: list[Loss] = []
        emptied: _Emptied = {}
        for relation in self.table.relations:
            self._trace(relation, files, emptied)
        self._lost_partitions(files, emptied)
        self._names = {each.file: each for each in (*self.table.others, *self.table.relations) if each.file}
        self._old = files
        by_commit: dict[int, _Found] = {}
        for file in files:
            for _, lsn, found in self.largest.get(file, ()):
                by_commit[lsn] = found
        for manner, exchange, gone in emptied.values():
            if exchange.in_window:
                by_commit.pop(exchange.found.commit.lsn, None)
                losses.append(self._loss(manner, exchange.found, files, gone))
        wholly = len(losses)
        losses.sort(key=lambda each: each.commit.lsn)
        losses += sorted(
            (self._loss(Manner.DELETED, found, files, {}) for found in by_commit.values()),
            key=lambda each: (-each.deleted, each.commit.lsn),
        )
        # A transaction that deleted from two partitions is one; where each file has few they are all kept, and counted.
        counts = [self.deleting[file] for file in files]
        kept_all = all(count <= _KEPT_A_FILE for count in counts)
        transactions = len(losses) if kept_all else wholly + max(max(counts), len(losses) - wholly)
        return Moment(
            self.table.name,
            self.since,
            self.until,
            tuple(losses),
            transactions,
            kept_all,
            self.in_window,
            where,
            start_lsn,
            end_lsn,
            self.first_at,
            self.last_at,
            tuple(findings),
            tuple(self._untold(files)),
            {str(file): why for file, why in self._inferred.items()},
        )

    def _untold(self, files: Mapping[RelationFile, str]) -> Iterator[Finding]:
        if self.table.is_dropped and not files:
            yield Finding(
                "moment.dropped",
                self.table.name,
                "the WAL that was read has no transaction that dropped it: which file its rows were in is not known",
                Outcome.UNPROVEN,
                "ask for a longer window, and compare the OID with that of the backup's table of contents",
            )

    def _trace(self, relation: NamedFile, files: dict[RelationFile, str], emptied: _Emptied) -> None:
        """Follow a relation's file back through what exchanged it, and note who let go of it."""
        file = relation.file
        exchanges = [each for each in reversed(self.exchanges) if relation.oid in each.locked]
        if file is None:
            if not exchanges or not self.table.is_dropped:  # else a partitioned table, which has no file
                return
            last = exchanges.pop(0)
            file, why = last.oldest(relation.oid)
            if last.created:
                why = (
                    f"transaction {last.found.commit.xid} made files as well, and may have rewritten the table instead"
                )
            self._infer(file, why, last)
            emptied.setdefault(last.found.commit.lsn, (Manner.DROPPED, last, {}))[2][file] = relation.name
        files[file] = relation.name
        for exchange in exchanges:
            before = exchange.replaced(relation.oid, file)
            if before is None:
                continue
            file = before.file
            self._infer(file, before.why, exchange)
            if before.is_empty:
                emptied.setdefault(exchange.found.commit.lsn, (Manner.TRUNCATED, exchange, {}))[2][file] = relation.name
            files[file] = relation.name

    def _infer(self, file: RelationFile, why: str, exchange: _Exchange) -> None:
        if why and exchange.found.commit.at >= self.since:  # what it had before the window nothing was removed from
            self._inferred[file] = why

    def _lost_partitions(self, files: dict[RelationFile, str], emptied: _Emptied) -> None:
        """Note who dropped a file under a partitioned table's lock that none of its partitions has or had."""
        parents = {each.oid for each in self.table.relations if each.file is None and len(self.table.relations) > 1}
        for exchange in self.exchanges:
            if not parents & set(exchange.locked) or exchange.created or exchange.found.commit.lsn in emptied:
                continue
            with_rows = {file for file, _ in self.committed}
            gone = [each for each in exchange.found.commit.dropped if each not in files and each in with_rows]
            if gone:
                names = {each: f"a partition of {self.table.name} whose file was {each}" for each in gone}
                emptied[exchange.found.commit.lsn] = (Manner.DROPPED, exchange, names)
                files.update(names)
                for each in gone:
                    why = f"transaction {exchange.found.commit.xid} held the lock on the partitioned table when it let "
                    self._infer(each, why + f"go of {each}, which had rows", exchange)

    def _loss(
        self,
        manner: Manner,
        found: _Found,
        files: Mapping[RelationFile, str],
        gone: Mapping[RelationFile, str],
    ) -> Loss:
        def of(*kinds: RowKind) -> int:
            return sum(rows for (file, kind), rows in found.rows.items() if kind in kinds and file in files)

        deleted_of = {file for (file, kind) in found.rows if kind is RowKind.DELETED and file in files}
        return Loss(
            manner,
            found.commit,
            deleted=of(RowKind.DELETED),
            updated=of(RowKind.UPDATED),
            inserted=of(RowKind.INSERTED),
            is_complete=self._is_complete(found.commit),
            relations=tuple(dict.fromkeys(gone.values() or sorted(files[file] for file in deleted_of))),
            later=self._later(found),
            gid=found.gid,
            inferred=tuple(self._inferred[file] for file in sorted({*gone, *deleted_of} & self._inferred.keys())),
        )

    def _is_complete(self, commit: Commit) -> bool:
        if self.running is None:
            return False
        began = min((commit.xid, *commit.subtransactions), key=lambda xid: (xid - self._anchor) % (1 << 32))
        return (began - self.running) % (1 << 32) < _HALF_OF_XIDS

    @property
    def _anchor(self) -> int:
        """A transaction that is older than any here, so that numbers compare across their wraparound."""
        return ((self.running or 0) - _HALF_OF_XIDS) % (1 << 32)

    def _later(self, found: _Found) -> Later:
        later = self.count - found.commits_before
        rows: dict[str, list[int]] = {}
        places = {RowKind.INSERTED: 0, RowKind.UPDATED: 1, RowKind.DELETED: 2}
        for (file, kind), number in self.committed.items():
            more = number - found.before[file, kind]
            name = self._name(file)
            if more and name and kind in places:
                rows.setdefault(name, [0, 0, 0])[places[kind]] += more
        return Later(
            later,
            found.first_after if later else None,
            self.last_at if later else None,
            {name: (each[0], each[1], each[2]) for name, each in rows.items()},
        )

    def _name(self, file: RelationFile) -> str:
        """Return a table's name; nothing for PostgreSQL's own, and for values that are kept beside their row."""
        if file.node < _FIRST_OF_USERS or not file.database:
            return ""
        if (known := self._names.get(file)) is not None:
            return "" if known.is_toast or known.oid < _FIRST_OF_USERS else known.name
        return self._old.get(file, str(file))


def describe(found: Iterable[Loss]) -> list[Mapping[str, str]]:
    """Return transactions as the rows of a table, for a report."""
    return [
        {
            "transaction": str(each.commit.xid),
            "manner": each.manner.value,
            "rows": each.rows,
            "committed": each.commit.at.isoformat(),
            "recover to before": lsn_text(each.commit.lsn),
            "gives up": f"{each.later.transactions} transactions",
        }
        for each in found
    ]
