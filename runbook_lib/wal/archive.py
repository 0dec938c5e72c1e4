"""The WAL archive: every segment of it under its own name, and nothing else.

Plain objects named as PostgreSQL names its files, as TenSafe's runbook has them: any tool can read them. What is ours
is in their metadata: digest, size, name and the cluster's identity, written when the file was still in front of us.

Three things are refused that the usual one-line commands do. Nothing is overwritten: a put is conditional, and what
is there already is compared, because PostgreSQL repeats a put whose answer it did not hear, and because two servers
with the same archive are a disaster that must be told at once. Nothing is stored unseen: a file that is not the
segment its name says is refused. And nothing is called absent because a request failed: an answer "not there" ends a
recovery, so it is proven from the list of what is there, and a segment that lies before others is no end but a hole.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from runbook_lib.errors import DamagedArtefact, Denied, NoRoom, NotFound, TargetRefused, Unreachable
from runbook_lib.reach.objects import Bucket, StoredObject
from runbook_lib.safety.mark import MARK
from runbook_lib.wal.segment import (
    DEFAULT_SEGMENT_BYTES,
    Fork,
    Kind,
    Segment,
    SegmentHeader,
    WalName,
    end_of_records,
    history_of,
    lsn_text,
    why_not,
)

SHA256 = "sha256"
"""Metadata: the digest of the file, in hexadecimal."""
SIZE = "bytes"
"""Metadata: its size."""
NAME = "wal-name"
"""Metadata: its name, so that an object copied to another key is recognised."""
SYSTEM_IDENTIFIER = "system-identifier"
"""Metadata: the identity of the cluster that wrote it."""

_BEGINNING_BYTES = 8192
_LARGEST_SMALL_BYTES = 1 << 20
"""Histories and labels are texts of a few lines."""
_PIECE_BYTES = 1 << 20
_AFTER_ALL = "~"
"""Sorts behind every character of a WAL file's name."""


@dataclass(frozen=True)
class Archived:
    """A file that is proven to be in the archive."""

    name: str
    """Its name."""
    object: StoredObject
    """What S3 says is there."""
    sha256: str
    """The digest of its bytes."""
    repeated: bool
    """Whether these very bytes were there already."""


@dataclass(frozen=True)
class Received:
    """A file that was fetched and is what its name says."""

    name: str
    """Its name."""
    path: Path
    """Where it lies."""
    bytes: int
    """Its size."""
    sha256: str
    """The digest of its bytes."""


@dataclass(frozen=True)
class Absence:
    """That a file is not in the archive, with the proof."""

    name: str
    """Its name."""
    proof: str
    """What was looked at."""


@dataclass(frozen=True)
class ArchiveEnd:
    """How far a timeline's WAL can be replayed from the archive."""

    timeline: int
    """The timeline."""
    segment: str
    """The last segment; the ancestor's, where the timeline has none of its own yet."""
    lsn: int
    """The position after the last whole record."""

    def __str__(self) -> str:
        """Return timeline, position and segment for a report."""
        return f"{lsn_text(self.lsn)} on timeline {self.timeline}, in {self.segment}"


@dataclass(frozen=True)
class Listing:
    """What lies in the archive, by name; sizes and times, nothing of what is in it."""

    segments: Mapping[int, Mapping[int, StoredObject]]
    """Timeline to segment number to object."""
    partials: Mapping[int, Mapping[int, StoredObject]]
    """The same of segments kept under a ``.partial`` name."""
    histories: Mapping[int, StoredObject]
    """Timeline to its history file."""
    labels: tuple[StoredObject, ...]
    """Labels of base backups."""
    foreign: tuple[StoredObject, ...]
    """Objects that no WAL file is named like."""

    @property
    def timelines(self) -> tuple[int, ...]:
        """Every timeline that there is anything of, ascending."""
        return tuple(sorted({*self.segments, *self.partials, *self.histories}))


class WalArchive:
    """The part of a bucket in which a cluster's WAL is kept.

    :param prefix: such as ``wal/``
    :param system_identifier: the cluster's identity, which every segment must bear; None where it is not known
    :param segment_bytes: the cluster's ``wal_segment_size``
    :param accept_without_digest: whether a segment that was archived without a digest, by another tool, may be
        fetched. Its header is looked at all the same; a flipped byte further on is not seen
    """

    def __init__(
        self,
        bucket: Bucket,
        prefix: str = "wal/",
        *,
        system_identifier: str | None = None,
        segment_bytes: int = DEFAULT_SEGMENT_BYTES,
        accept_without_digest: bool = False,
    ) -> None:
        self.bucket = bucket
        self.prefix = prefix
        self.system_identifier = system_identifier
        self.segment_bytes = segment_bytes
        self._accept_without_digest = accept_without_digest

    @property
    def where(self) -> str:
        """The address of the archive, for a report."""
        return f"s3://{self.bucket.name}/{self.prefix}"

    def of_segments(self, segment_bytes: int) -> WalArchive:
        """Return this archive for a cluster whose segments are of a size."""
        return WalArchive(
            self.bucket,
            self.prefix,
            system_identifier=self.system_identifier,
            segment_bytes=segment_bytes,
            accept_without_digest=self._accept_without_digest,
        )

    def key(self, name: str) -> str:
        """Return the key of a file."""
        return self.prefix + name

    def put(self, path: Path, name: str) -> Archived:
        """Archive a file, and return when it is proven to be there.

        The very same bytes under the same name are no error, however they came there. Raise `TargetRefused` where
        other bytes are there, `DamagedArtefact` where the file is not what its name says, and `Unreachable` or
        `Denied` where nothing can be said; then it must be tried again.
        """
        with path.open("rb") as source:
            return self.put_from(source, name)

    def put_from(self, source: BinaryIO, name: str) -> Archived:
        """Archive an open file as `put` does."""
        known = self._known(name)
        digest, size, beginning = _digested(source)
        self._must_be(known, beginning, size, where=getattr(source, "name", name))
        metadata = {**MARK, NAME: name, SHA256: digest, SIZE: str(size)}
        if (header := SegmentHeader.read(beginning)) is not None:
            metadata[SYSTEM_IDENTIFIER] = header.system_identifier
        elif self.system_identifier:
            metadata[SYSTEM_IDENTIFIER] = self.system_identifier
        if (there := self._there(name, digest, size)) is not None:
            return there
        source.seek(0)
        try:
            stored, told = self.bucket.write_file_once(self.key(name), source, sha256=digest, metadata=metadata)
        except Denied:
            # The key is taken since, perhaps by our own put whose answer was lost. A refusal of another kind stays one.
            if (there := self._there(name, digest, size)) is not None:
                return there
            raise
        if stored.bytes != size or told.get(SHA256) != digest:
            raise DamagedArtefact(
                f"the {size} bytes of {name} that were sent",
                where=stored.url,
                why=f"there are {stored.bytes} bytes, of the digest {told.get(SHA256)}",
                remedy="look who else writes this key; the file stays in pg_wal and is tried again",
            )
        return Archived(name, stored, digest, repeated=False)

    def get(self, name: str, into: Path, *, on_piece: Callable[[], object] = lambda: None) -> Received:
        """Fetch a file, and return when it lies there, whole, flushed and proven to be what its name says.

        :param into: a path at which nothing is yet
        :param on_piece: called after every piece; what it raises ends the work

        Raise `NotFound` where S3 says it is not there (which is no proof of it, see `prove_absent`), `DamagedArtefact`
        where it is another file than its name says or other bytes than were archived, `NoRoom` where the disk is
        full. On any of them nothing is left.
        """
        known = self._known(name)
        descriptor = os.open(into, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

        def write(piece: bytes) -> None:
            view = memoryview(piece)
            while view:
                view = view[os.write(descriptor, view) :]
            on_piece()

        receiver = _Receiver(self, known, write)
        try:
            with _room_for(into):
                try:
                    stored, _ = self.bucket.receive(self.key(name), receiver.begin, receiver.piece)
                    receiver.must_hold(stored)
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        except BaseException:
            into.unlink(missing_ok=True)
            raise
        return Received(name, into, stored.bytes, receiver.digest.hexdigest())

    def read(self, name: str) -> bytes:
        """Return a history or a label, or the bytes of a whole segment, proven as by `get`, in memory."""
        pieces: list[bytes] = []
        self._receive(name, pieces.append)
        return b"".join(pieces)

    def verify(self, name: str) -> None:
        """Fetch a file as `get` does and keep nothing of it. Raise `DamagedArtefact` where it is not what it should."""
        self._receive(name, lambda _: None)

    def _receive(self, name: str, into: Callable[[bytes], object]) -> None:
        receiver = _Receiver(self, self._known(name), into)
        stored, _ = self.bucket.receive(self.key(name), receiver.begin, receiver.piece)
        receiver.must_hold(stored)

    def history(self, timeline: int) -> tuple[Fork, ...]:
        """Return the ancestors of a timeline, the oldest first; none of timeline 1.

        Raise `NotFound` where its file is not there, `DamagedArtefact` where it cannot be read.
        """
        if timeline == 1:
            return ()
        name = f"{timeline:08X}.history"
        return history_of(self.read(name), timeline, where=self.where + name)

    def prove_absent(self, name: str) -> Absence:
        """Prove that a file is not in the archive, and that nothing says that it should be.

        Only a list that S3 answered is a proof: a missing permission, a missing bucket and a mistaken answer look like
        an absent key. Raise `Unreachable` where the file is there after all, `DamagedArtefact` where the archive has a
        hole at this place: later WAL is there, and a recovery that took this for the end would lose it. Raise what the
        bucket raises where the list cannot be had.
        """
        known = self._known(name)
        with ThreadPoolExecutor(max_workers=2, thread_name_prefix="wal-absent") as pool:  # two round trips in one
            after = pool.submit(self._after, known)
            timelines = pool.submit(
                self.timelines, known.timeline if known.kind is Kind.HISTORY else known.timeline + 1
            )
            following, newer = after.result(), timelines.result()
        if following == name:
            raise Unreachable(
                f"{name} from the archive",
                where=self.where,
                why="S3 said it was not there, and lists it",
                remedy="try again; S3 contradicts itself, or it has been archived this moment",
            )
        later = ""
        if known.kind is Kind.SEGMENT:
            later = self._later_than(known, following, newer)
        elif known.kind is Kind.HISTORY and known.timeline > 1 and newer:
            later = f"there is WAL of timeline {newer[0]}"
        if later:
            raise DamagedArtefact(
                "an archive without a hole",
                where=f"{self.where}{name}",
                why=f"it is not there, and {later}",
                remedy=f"look for {name} in pg_wal of every server and in older versions of the bucket, and put it "
                "there; without it recover to a target before it",
            )
        return Absence(name, f"{self.where} lists no {name}, and nothing that comes after it")

    def timelines(self, first: int = 1) -> list[int]:
        """Return every timeline from a first one on that there is anything of, ascending; a request for each."""
        found: list[int] = []
        after = f"{self.prefix}{first - 1:08X}{_AFTER_ALL}" if first > 1 else ""
        while True:
            stored = next(self.bucket.after(self.prefix, after, page=1), None)
            if stored is None:
                return found
            known = WalName.parse(stored.key.removeprefix(self.prefix))
            after = stored.key
            if known is not None:
                found.append(known.timeline)
                after = f"{self.prefix}{known.timeline:08X}{_AFTER_ALL}"

    def listing(self) -> Listing:
        """List all that lies in the archive; one request for a thousand objects."""
        segments: dict[int, dict[int, StoredObject]] = {}
        partials: dict[int, dict[int, StoredObject]] = {}
        histories: dict[int, StoredObject] = {}
        labels: list[StoredObject] = []
        foreign: list[StoredObject] = []
        for stored in self.bucket.objects(self.prefix):
            known = WalName.parse(stored.key.removeprefix(self.prefix))
            if known is None:
                foreign.append(stored)
            elif known.kind is Kind.HISTORY:
                histories[known.timeline] = stored
            elif known.kind is Kind.LABEL:
                labels.append(stored)
            else:
                into = segments if known.kind is Kind.SEGMENT else partials
                into.setdefault(known.timeline, {})[known.segment(self.segment_bytes).number] = stored
        return Listing(segments, partials, histories, tuple(labels), tuple(foreign))

    def end(self, timeline: int | None = None) -> ArchiveEnd:
        """Return how far a timeline can be replayed: the position that a recovery to its end must come to.

        :param timeline: by default the newest that there is anything of

        The last segment is fetched and its records are followed; an earlier one too, where a single record fills the
        last. Raise `NotFound` where the archive has nothing of the timeline.
        """
        there = self.timelines()
        timeline = timeline or max(there, default=1)
        if timeline not in there:
            raise NotFound(
                f"WAL of timeline {timeline}",
                where=self.where,
                why=f"there is WAL of {', '.join(map(str, there)) or 'none'}",
                remedy="name the bucket, the prefix and the timeline that the primary archives to",
            )
        forks = self.history(timeline)
        numbers = sorted(
            known.segment(self.segment_bytes).number
            for stored in self.bucket.after(f"{self.prefix}{timeline:08X}", "", page=1000)
            if (known := WalName.parse(stored.key.removeprefix(self.prefix))) and known.kind is Kind.SEGMENT
        )
        for number in reversed(numbers):
            segment = Segment(timeline, number, self.segment_bytes)
            reached = end_of_records(self.read(segment.name))
            if reached is not None:
                return ArchiveEnd(timeline, segment.name, reached)
        if not forks:
            raise NotFound(
                f"the end of a record on timeline {timeline}",
                where=self.where,
                why=f"none of its {len(numbers)} segments has one",
                remedy="look at them with pg_waldump",
            )
        fork = forks[-1]
        return ArchiveEnd(timeline, Segment.at(fork.parent, fork.lsn, self.segment_bytes).name, fork.lsn)

    @property
    def end_lsn(self) -> int:
        """The position that a recovery along the newest timeline must come to; see `end`."""
        return self.end().lsn

    def why_not(self, name: WalName, beginning: bytes, size_bytes: int) -> str:
        """Say why a file cannot be the one of this name in this archive; nothing where it can."""
        return why_not(
            name,
            beginning,
            size_bytes,
            segment_bytes=self.segment_bytes,
            system_identifier=self.system_identifier,
        )

    def why_not_said(self, name: WalName, stored: StoredObject, metadata: Mapping[str, str]) -> str:
        """Say what an object's metadata has against its being the file of this name; nothing where nothing."""
        if SIZE in metadata and metadata[SIZE] != str(stored.bytes):
            return f"it has {stored.bytes} bytes, and {metadata[SIZE]} were archived"
        if metadata.get(NAME, name.text) != name.text:
            return f"it was archived as {metadata[NAME]}"
        told = metadata.get(SYSTEM_IDENTIFIER)
        if self.system_identifier is not None and told not in (None, self.system_identifier):
            return f"it is of the cluster {told}, not of {self.system_identifier}"
        return ""

    def must_be_whole(self, name: WalName, why: str, where: str) -> None:
        """Raise `DamagedArtefact` where there is a reason."""
        if why:
            raise DamagedArtefact(
                f"{name.text} as it was archived",
                where=where,
                why=why,
                remedy="do not replay it; look for an older version of the object, or for the file in pg_wal of a "
                "server, and find out who wrote this one",
            )

    def _known(self, name: str) -> WalName:
        known = WalName.parse(name)
        if known is None:
            raise TargetRefused(
                f"a WAL file {name!r}",
                where=self.where,
                why="PostgreSQL gives no file such a name",
                remedy="call it as restore_command and archive_command do, with %f",
            )
        return known

    def _must_be(self, name: WalName, beginning: bytes, size: int, *, where: str) -> None:
        if why := self.why_not(name, beginning, size):
            raise DamagedArtefact(
                f"to archive {name.text}",
                where=where,
                why=why,
                remedy="nothing was archived; find out which server and which folder this file comes from",
            )

    def _there(self, name: str, digest: str, size: int) -> Archived | None:
        """Return the object where the very same bytes are there already; None where there is none or nobody tells.

        S3 hides what is not there behind a refusal from whoever may not list; then the conditional put decides.
        """
        try:
            stored, told = self.bucket.head(self.key(name))
        except (NotFound, Denied):
            return None
        found = told.get(SHA256)
        if found is None and stored.bytes == size:  # archived by another tool: its bytes alone can say
            counted = hashlib.sha256()
            self.bucket.receive(self.key(name), lambda *_: None, counted.update)
            found = counted.hexdigest()
        if stored.bytes != size or found != digest:
            raise TargetRefused(
                f"to archive {name}",
                where=stored.url,
                why=f"other bytes are there under that name: {stored.bytes} of the digest {found}, ours are {size} of "
                f"{digest}",
                remedy="nothing was overwritten; find out which other server archives there (two primaries, or a "
                "restored copy whose archive_mode is on), and stop it",
            )
        return Archived(name, stored, digest, repeated=True)

    def _after(self, name: WalName) -> str:
        """Return the name itself where it is listed, else of the next segment of its timeline; empty for neither."""
        beginning = f"{self.prefix}{name.timeline:08X}"
        for stored in self.bucket.after(beginning, self.key(name.text)[:-1]):
            each = stored.key.removeprefix(self.prefix)
            if each == name.text:
                return each
            known = WalName.parse(each)
            if each < name.text or known is None or known.kind not in (Kind.SEGMENT, Kind.PARTIAL):
                continue
            if name.kind is Kind.SEGMENT and (known.log, known.low) == (name.log, name.low):
                continue  # its partial
            return each
        return ""

    def _later_than(self, name: WalName, following: str, newer: list[int]) -> str:
        """Say what shows that a segment which is not there once was; nothing where nothing does.

        :param following: the next segment of its timeline that is there; empty for none
        :param newer: the timelines after its own
        """
        number = name.segment(self.segment_bytes).number
        if following and (name.timeline == 1 or number >= self._begins(name.timeline)):
            return f"{following} is, which comes after it"
        if following:
            return ""
        for timeline in newer:
            try:
                forks = self.history(timeline)
            except NotFound:
                continue  # told where its history is asked for
            for fork in forks:
                if fork.parent == name.timeline and fork.lsn // self.segment_bytes > number:
                    return f"timeline {timeline} goes on from {lsn_text(fork.lsn)} of this one"
        return ""

    def _begins(self, timeline: int) -> int:
        """Return the number of the segment that a timeline begins in; 0 where its history is not there."""
        try:
            return self.history(timeline)[-1].lsn // self.segment_bytes
        except NotFound:
            return 0

    @property
    def digest_is_needed(self) -> bool:
        """Whether a segment without a digest is refused."""
        return not self._accept_without_digest


class _Receiver:
    """Takes in one file: looks at its metadata, at its beginning and at its digest."""

    def __init__(self, archive: WalArchive, name: WalName, into: Callable[[bytes], object]) -> None:
        self.digest = hashlib.sha256()
        self._archive = archive
        self._name = name
        self._into = into
        self._looked = False
        self._expected: str | None = None
        self._where = archive.where + name.text
        self._bytes = 0

    def begin(self, stored: StoredObject, metadata: Mapping[str, str]) -> None:
        """Compare what is known before the first byte."""
        self._expected = metadata.get(SHA256)
        self._bytes = stored.bytes
        why = self._archive.why_not_said(self._name, stored, metadata)
        if not why and self._expected is None and self._archive.digest_is_needed:
            why = "nobody wrote down its digest, so that nobody can say whether these are its bytes"
        if not why and self._name.kind in (Kind.HISTORY, Kind.LABEL) and stored.bytes > _LARGEST_SMALL_BYTES:
            why = f"it has {stored.bytes} bytes, and is a text of a few lines"
        self._archive.must_be_whole(self._name, why, self._where)

    def piece(self, content: bytes) -> None:
        """Look at the first piece, count each, and put it where it belongs."""
        if not self._looked:
            self._look(content)
        self.digest.update(content)
        self._into(content)

    def must_hold(self, stored: StoredObject) -> None:
        """Compare the digest."""
        if not self._looked:
            self._look(b"")
        found = self.digest.hexdigest()
        if self._expected is not None and found != self._expected:
            why = f"its sha256 is {found}, and {self._expected} was written down when it was archived"
            self._archive.must_be_whole(self._name, why, stored.url)

    def _look(self, beginning: bytes) -> None:
        self._looked = True
        # A text that is too long for one piece was refused by its size.
        why = self._archive.why_not(self._name, beginning, self._bytes)
        self._archive.must_be_whole(self._name, why, self._where)


def _digested(source: BinaryIO) -> tuple[str, int, bytes]:
    """Return the digest, the size and the beginning of a file."""
    digest = hashlib.sha256()
    size, beginning = 0, b""
    for piece in _pieces(source):
        beginning = beginning or piece[: max(_BEGINNING_BYTES, _LARGEST_SMALL_BYTES)]
        digest.update(piece)
        size += len(piece)
    return digest.hexdigest(), size, beginning


def _pieces(source: BinaryIO) -> Iterator[bytes]:
    while piece := source.read(_PIECE_BYTES):
        yield piece


@contextmanager
def _room_for(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as failed:
        raise NoRoom(
            f"to write {path.name}",
            where=str(path.parent),
            why=failed.strerror or str(failed),
            remedy="free space there, or let the fetcher keep fewer segments ahead",
        ) from failed
