"""What a run acts on, as a file says it.

A profile names databases, buckets and budgets; it never holds a credential. An unknown key is an error that names the
key, because a misspelt limit that is silently ignored is worse than none. The same form describes production and the
sandbox, so that a drill and a production check differ by it alone.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import time, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import pydantic

from runbook_lib.backup.catalog import Schedule
from runbook_lib.errors import ProfileInvalid
from runbook_lib.reach import postgres

_STRICT = pydantic.ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Database:
    """The database that the runbook is about."""

    __pydantic_config__ = _STRICT

    dsn: str
    """A libpq connection string. What it leaves out comes from libpq's own files and variables (``PGSERVICE``,
    ``PGPASSFILE``); a password in it is refused."""
    system_identifier: str = ""
    """The cluster's identity: ``SELECT system_identifier FROM pg_control_system()``; empty to accept any."""
    audit_log: bool = True
    """Whether it has TenSafe's hash-chained ``public.audit_logs``."""


@dataclass(frozen=True)
class Backups:
    """Where its backups are, and how often they are taken."""

    __pydantic_config__ = _STRICT

    bucket: str
    """The S3 bucket."""
    prefix: str = "postgres/"
    """What the keys of dumps begin with; below it ``daily/``, ``manual/`` and ``tables/``."""
    endpoint_url: str = ""
    """Where S3 answers; empty for the AWS chain's own choice."""
    region: str = ""
    """The region; empty for the AWS chain's own choice."""
    daily_at: time = time(2, 0)
    """When the daily backup begins, in UTC (runbook 1.1)."""
    ready_within_minutes: int = 60
    """How long it may take before it counts as missed."""
    retention_days: int = 30
    """For how many days every night's backup is kept (runbook 1.1)."""
    compression: str = ""
    """As ``pg_dump --compress`` takes it; empty for zstd where pg_dump has it, else gzip:1."""

    @property
    def schedule(self) -> Schedule:
        """When a backup is due."""
        return Schedule(self.daily_at, timedelta(minutes=self.ready_within_minutes))


@dataclass(frozen=True)
class Archiving:
    """Continuous archiving of WAL."""

    __pydantic_config__ = _STRICT

    rpo_seconds: int = 300
    """How old the last archived segment may be: the recovery point objective, 5 minutes."""


@dataclass(frozen=True)
class Restore:
    """How a restore is rehearsed."""

    __pydantic_config__ = _STRICT

    rto_target_seconds: int = 3600
    """What a restore should take at most: the recovery time objective, 1 hour."""
    rto_maximum_seconds: int = 4 * 3600
    """What a restore may take at most, 4 hours."""
    jobs: int = 2
    """How many tables and indexes are restored at once, and how many tables are compared at once."""
    folder: str = ""
    """Where the throwaway server lives while the drill runs: room for dump and database. Empty for TMPDIR."""

    @property
    def limits(self) -> Mapping[str, float]:
        """Target and maximum, as a timeline takes them."""
        return {"target_seconds": self.rto_target_seconds, "maximum_seconds": self.rto_maximum_seconds}


@dataclass(frozen=True)
class Changes:
    """What a run may alter."""

    __pydantic_config__ = _STRICT

    granted: bool = False
    """Whether scenarios tagged @changes may do what they say."""


@dataclass(frozen=True)
class Settings:
    """One profile."""

    __pydantic_config__ = _STRICT

    name: str
    """The environment's name, such as ``production``."""
    database: Database
    """The database."""
    backups: Backups
    """Its backups."""
    archiving: Archiving = field(default_factory=Archiving)
    """Its WAL."""
    restore: Restore = field(default_factory=Restore)
    """Rehearsed restores."""
    changes: Changes = field(default_factory=Changes)
    """What may be altered."""


_FORM: pydantic.TypeAdapter[Settings] = pydantic.TypeAdapter(Settings)


def load(name_or_path: str) -> Settings:
    """Read a profile, by the name of one that is shipped or by the path of a file.

    Raise `ProfileInvalid` if there is none, or if it says something that nobody understands.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = Path(str(files("runbook_lib") / "profiles" / f"{name_or_path}.toml"))
    sought = f"the profile {name_or_path}"
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as missing:
        known = sorted(each.name for each in path.parent.glob("*.toml")) or ["none"]
        raise ProfileInvalid(
            sought,
            where=str(path),
            why=f"there is no such file; profiles there: {', '.join(known)}",
            remedy="copy runbook_lib/profiles/production.example.toml and give its path: --env ./production.toml",
        ) from missing
    except OSError as unreadable:
        raise ProfileInvalid(
            sought, where=str(path), why=unreadable.strerror or str(unreadable), remedy="give a file that you may read"
        ) from unreadable
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as malformed:
        raise ProfileInvalid(
            sought, where=str(path), why=str(malformed), remedy="correct it; it must be TOML"
        ) from malformed
    return parse(told, where=str(path))


def parse(told: Mapping[str, Any], *, where: str) -> Settings:
    """Read a profile from a mapping. Raise `ProfileInvalid` for every key and value that nobody understands."""
    try:
        settings = _FORM.validate_python(dict(told))
    except pydantic.ValidationError as invalid:
        problems = "; ".join(_problem(error) for error in invalid.errors())
        raise ProfileInvalid(
            "every key of the profile",
            where=where,
            why=problems,
            remedy="compare with runbook_lib/profiles/production.example.toml, which explains every key",
        ) from invalid
    if postgres.holds_password(settings.database.dsn):
        raise ProfileInvalid(
            "database.dsn without a credential",
            where=where,
            why="it holds a password, and profiles are shared",
            remedy="put the password into PGPASSFILE (~/.pgpass) or a PGSERVICEFILE",
        )
    return settings


def _problem(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown key {key}"
    if error["type"] in ("missing", "missing_argument"):
        return f"missing key {key}"
    return f"{key} = {error['input']!r}: {error['msg'][:1].lower()}{error['msg'][1:]}"
