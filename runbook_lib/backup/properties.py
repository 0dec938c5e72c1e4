"""What belongs to the database itself.

A dump of a database holds what is *in* it. How it was created, whose it is, who may connect and what
``ALTER DATABASE ... SET`` says are properties *of* it; ``pg_restore`` brings them back only together with the old
name, which is the one thing a restore beside the living database must not do. So the manifest keeps them, and a
restore applies them under whatever name it chose.

The schema ``public`` and the language ``plpgsql`` are on the border. Every new database has them, so that a dump says
nothing where they were dropped, and pg_restore before 15 passes over the owner of ``public`` and its comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import Session

_PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin"}
_LISTS = frozenset(
    {
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    }
)
"""Settings whose value is a list that is stored as it is written: quoting it once more would make one name of it.
The same list stands in pg_dump's variable_is_guc_list_quote()."""


@dataclass(frozen=True)
class Setting:
    """One ``ALTER DATABASE ... SET``, or ``ALTER ROLE ... IN DATABASE ... SET``."""

    role: str
    """The role it is for; empty for all."""
    name: str
    """The setting's name."""
    value: str
    """Its value, as stored."""


@dataclass(frozen=True)
class Grant:
    """One privilege on the database, or on its schema ``public``."""

    grantee: str
    """Who has it; empty for PUBLIC."""
    privilege: str
    """``CONNECT``, ``CREATE``, ``TEMPORARY`` or ``USAGE``."""
    grantable: bool
    """Whether it may be passed on."""
    grantor: str
    """Who gave it."""


@dataclass(frozen=True)
class PublicSchema:
    """The schema that every database is created with."""

    owner: str
    """The owner's name."""
    comment: str
    """Empty for none."""
    grants: tuple[Grant, ...]
    """All privileges on it, the default ones written out."""


@dataclass(frozen=True)
class DatabaseProperties:
    """The properties of one database."""

    encoding: str
    """Such as ``UTF8``."""
    collate: str
    """``LC_COLLATE``."""
    ctype: str
    """``LC_CTYPE``."""
    locale_provider: str
    """``c`` for libc, ``i`` for ICU, ``b`` for PostgreSQL's own (17 and newer)."""
    locale: str
    """The provider's locale; empty for libc."""
    icu_rules: str
    """Additional sorting rules; empty for none."""
    owner: str
    """The owner's name."""
    connection_limit: int
    """-1 for none."""
    comment: str
    """Empty for none."""
    settings: tuple[Setting, ...]
    """All settings of it."""
    grants: tuple[Grant, ...]
    """All privileges on it, the default ones written out."""
    public: PublicSchema | None
    """Its schema ``public``; None where it was dropped."""
    plpgsql: bool
    """Whether it has ``plpgsql``."""

    def creation(self, name: str) -> str:
        """Return the statement that creates an empty database of this kind under another name."""
        return f"CREATE DATABASE {postgres.identifier(name)} {self.options}"

    @property
    def options(self) -> str:
        """The options of ``CREATE DATABASE`` that make an empty database of this kind."""
        text = postgres.literal
        parts = [
            f"TEMPLATE template0 ENCODING {text(self.encoding)}",
            f"LC_COLLATE {text(self.collate)} LC_CTYPE {text(self.ctype)}",
        ]
        if self.locale_provider != "c":
            parts.append(f"LOCALE_PROVIDER {_PROVIDERS[self.locale_provider]}")
            parts.append(f"{'ICU' if self.locale_provider == 'i' else 'BUILTIN'}_LOCALE {text(self.locale)}")
        if self.icu_rules:
            parts.append(f"ICU_RULES {text(self.icu_rules)}")
        return " ".join(parts)

    def application(self, name: str) -> Iterator[str]:
        """Yield the statements that give a restored database these properties, in their order.

        They are to be executed in that database.
        """
        if not self.plpgsql:
            yield "DROP EXTENSION plpgsql"
        if self.public is None:
            yield "DROP SCHEMA public"
        else:
            yield f"ALTER SCHEMA public OWNER TO {postgres.identifier(self.public.owner)}"
            yield f"COMMENT ON SCHEMA public IS {postgres.literal(self.public.comment)}"
            yield from _granting("SCHEMA public", self.public.owner, self.public.grants)
        database = postgres.identifier(name)
        yield f"ALTER DATABASE {database} OWNER TO {postgres.identifier(self.owner)}"
        yield f"ALTER DATABASE {database} CONNECTION LIMIT {self.connection_limit}"
        if self.comment:
            yield f"COMMENT ON DATABASE {database} IS {postgres.literal(self.comment)}"
        for setting in self.settings:
            of_role = f"ROLE {postgres.identifier(setting.role)} IN " if setting.role else ""
            values = _listed(setting.value) if setting.name in _LISTS else [setting.value]
            value = ", ".join(map(postgres.literal, values or [""]))
            yield f"ALTER {of_role}DATABASE {database} SET {postgres.identifier(*setting.name.split('.'))} = {value}"
        yield from _granting(f"DATABASE {database}", self.owner, self.grants)


def _listed(value: str) -> list[str]:
    """Take a stored list apart: its parts are separated by commas, and quoted where they hold one."""
    parts = re.findall(r'"(?:[^"]|"")*"|[^,\s]+', value)
    return [part[1:-1].replace('""', '"') if part.startswith('"') else part for part in parts]


def _granting(what: str, owner: str, grants: Iterable[Grant]) -> Iterator[str]:
    yield f"REVOKE ALL ON {what} FROM PUBLIC, {postgres.identifier(owner)}"
    # The owner's own grants first: the others can only pass on what they were given.
    for grant in sorted(grants, key=lambda each: each.grantor != owner):
        grantee = postgres.identifier(grant.grantee) if grant.grantee else "PUBLIC"
        option = " WITH GRANT OPTION" if grant.grantable and grant.grantee else ""
        statement = f"GRANT {grant.privilege} ON {what} TO {grantee}{option}"
        if grant.grantor == owner:
            yield statement
        else:
            yield f"SET SESSION AUTHORIZATION {postgres.identifier(grant.grantor)}"
            yield statement
            yield "RESET SESSION AUTHORIZATION"


def read(session: Session) -> DatabaseProperties:
    """Read the properties of the session's database."""
    row = session.row(postgres.load_sql(__package__, "properties"))
    public = row["public"]
    return DatabaseProperties(
        **{
            **row,
            "settings": tuple(Setting(**each) for each in row["settings"]),
            "grants": _grants(row),
            "public": PublicSchema(**{**public, "grants": _grants(public)}) if public else None,
        }
    )


def _grants(row: Mapping[str, Any]) -> tuple[Grant, ...]:
    return tuple(Grant(**each) for each in row["grants"])
