"""The one moment that a recovery is to come to.

PostgreSQL takes a moment in four ways, refuses two at once only when it starts, and reads a time without an offset in
whatever zone the server was set to: an hour too much or too little is the commonest way to recover the wrong thing. So
a target is one value, made from text that a person can read aloud, and a time without an offset is none.

Where it stops is PostgreSQL's own rule, and not everywhere what one would guess:

==============  ====================================================  =========================================
target          up to and including it                                just before it
==============  ====================================================  =========================================
time            every transaction that ended at it or earlier         every transaction that ended earlier
position        and the record that begins at it, or the next one     every record that begins before it
transaction     and that transaction                                  not that transaction
restore point   always                                                there is no such thing
==============  ====================================================  =========================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Self

from runbook_lib.errors import ProfileInvalid
from runbook_lib.wal.segment import lsn_of, lsn_text

_JUST_BEFORE = re.compile(r"(?:to\s+)?(?:just\s+)?before\s+", re.IGNORECASE)
_LSN = re.compile(r"(?:lsn\s*:?\s*)?([0-9A-F]{1,8}/[0-9A-F]{1,8})", re.IGNORECASE)
_XID = re.compile(r"(?:xid|transaction)\s*:?\s*(\d{1,10})", re.IGNORECASE)
_NAME = re.compile(r"(?:restore\s+point|name)\s*:?\s*(\S.*)", re.IGNORECASE)
_UTC = re.compile(r"\s*\bUTC$", re.IGNORECASE)
_FIRST_XID, _LAST_XID = 3, (1 << 32) - 1
"""The ids below it are PostgreSQL's own."""
_LONGEST_NAME_BYTES = 63
"""``MAXFNAMELEN`` less its end: pg_create_restore_point refuses a longer one."""


class TargetKind(Enum):
    """In which of PostgreSQL's four ways a moment is told."""

    TIME = "time"
    """When transactions ended, by the server's clock."""
    LSN = "lsn"
    """A position in the WAL."""
    NAME = "name"
    """A restore point that somebody laid by pg_create_restore_point."""
    XID = "xid"
    """The end of one transaction."""


@dataclass(frozen=True)
class RecoveryTarget:
    """One moment, told in exactly one way."""

    kind: TargetKind
    """In which way."""
    value: datetime | int | str
    """The time, in UTC; the position; the name; or the transaction's id."""
    inclusive: bool = True
    """Whether what happened at this very moment is to be there, or the moment just before it is meant."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a target as people write it.

        ``2026-11-24 12:00:00+00``, ``0/3000060``, ``xid 742``, ``restore point before_release``; each but the last
        also with ``just before`` in front of it.

        Raise `ProfileInvalid` where it is none, or a time without an offset.
        """
        told = text.strip()
        before = _JUST_BEFORE.match(told)
        inclusive, told = before is None, told[before.end() :] if before else told
        if found := _LSN.fullmatch(told):
            return cls(TargetKind.LSN, lsn_of(found[1].upper()), inclusive)
        if found := _XID.fullmatch(told):
            return cls.transaction(int(found[1]), inclusive=inclusive, where=text)
        if found := _NAME.fullmatch(told):
            return cls._named(found[1].strip("'\""), inclusive=inclusive, where=text)
        try:
            moment = datetime.fromisoformat(_UTC.sub("+00:00", told))
        except ValueError:
            raise _refused(text, "it is neither a time nor a position, a transaction or a restore point") from None
        return cls.time(moment, inclusive=inclusive, where=text)

    @classmethod
    def time(cls, moment: datetime, *, inclusive: bool = True, where: str = "") -> Self:
        """Return the target at a time. Raise `ProfileInvalid` where that has no offset."""
        if moment.tzinfo is None:
            raise _refused(where or str(moment), "it has no offset, so that it could be any of two dozen moments")
        return cls(TargetKind.TIME, moment.astimezone(UTC), inclusive)

    @classmethod
    def transaction(cls, xid: int, *, inclusive: bool = True, where: str = "") -> Self:
        """Return the target at the end of a transaction. Raise `ProfileInvalid` where no transaction has such an id."""
        if not _FIRST_XID <= xid <= _LAST_XID:
            raise _refused(where or str(xid), f"transactions have the ids {_FIRST_XID} to {_LAST_XID}")
        return cls(TargetKind.XID, xid, inclusive)

    @classmethod
    def _named(cls, name: str, *, inclusive: bool, where: str) -> Self:
        if not inclusive:
            raise _refused(where, "PostgreSQL stops behind a restore point always, and never just before it")
        if not name or len(name.encode()) > _LONGEST_NAME_BYTES:
            raise _refused(where, f"the name of a restore point has 1 to {_LONGEST_NAME_BYTES} bytes")
        return cls(TargetKind.NAME, name)

    @property
    def moment(self) -> datetime:
        """The time of a target of that kind, in UTC."""
        assert isinstance(self.value, datetime)
        return self.value

    @property
    def number(self) -> int:
        """The position, or the transaction's id, of a target of those kinds."""
        assert isinstance(self.value, int)
        return self.value

    @property
    def settings(self) -> Mapping[str, str]:
        """The one ``recovery_target_*`` that says it, and whether it is included."""
        told = {f"recovery_target_{self.kind.value}": self._text}
        if self.kind is not TargetKind.NAME:
            told["recovery_target_inclusive"] = "on" if self.inclusive else "off"
        return told

    def __str__(self) -> str:
        """Return it as `parse` reads it."""
        before = "" if self.inclusive else "just before "
        return (
            before
            + {
                TargetKind.TIME: self._text,
                TargetKind.LSN: self._text,
                TargetKind.XID: f"xid {self._text}",
                TargetKind.NAME: f"restore point {self._text}",
            }[self.kind]
        )

    @property
    def _text(self) -> str:
        if self.kind is TargetKind.TIME:
            return time_text(self.moment)
        return lsn_text(self.number) if self.kind is TargetKind.LSN else str(self.value)


def time_text(moment: datetime) -> str:
    """Write a time to the microsecond, with its offset."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00"


def _refused(text: str, why: str) -> ProfileInvalid:
    return ProfileInvalid(
        "a moment to recover to",
        where=repr(text),
        why=why,
        remedy="write one of: '2026-11-24 12:00:00+00', '0/3000060', 'xid 742', 'restore point before_release'; with "
        "'just before' in front of it to leave out what happened at it",
    )
