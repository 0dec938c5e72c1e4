"""Reading a profile, and telling what is wrong with one."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pydantic

from runbook_lib.errors import ProfileInvalid
from runbook_lib.reach import postgres
from runbook_lib.settings.profile import Settings

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
    return replace(parse(told, where=str(path)), path=str(path))


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
    if "path" in told:
        raise ProfileInvalid(
            "every key of the profile",
            where=where,
            why="unknown key path",
            remedy="remove it: where a profile was read from is not for it to say",
        )
    if postgres.holds_password(settings.database.dsn):
        raise ProfileInvalid(
            "database.dsn without a credential",
            where=where,
            why="it holds a password, and profiles are shared",
            remedy="put the password into PGPASSFILE (~/.pgpass) or a PGSERVICEFILE",
        )
    if re.search(r"://[^/]*@", settings.backups.endpoint_url):
        raise ProfileInvalid(
            "backups.endpoint_url without a credential",
            where=where,
            why="it names somebody who logs in, and profiles are shared",
            remedy="give AWS credentials by AWS_PROFILE, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role",
        )
    if settings.changes.granted:
        raise ProfileInvalid(
            "a profile that does not grant changes to itself",
            where=where,
            why="it says changes.granted = true, which only a sandbox may",
            remedy="remove the key, and type what is to be changed:"
            f" --allow-changes-to {settings.cluster_name} --reason 'why it has to be'",
        )
    if settings.changes.window and not any(each.operation == settings.changes.window for each in settings.windows):
        raise ProfileInvalid(
            f"the maintenance window {settings.changes.window!r} that changes.window names",
            where=where,
            why="no entry of maintenance.windows is of that operation",
            remedy="write the operation as it stands there",
        )
    clusters = settings.kubernetes
    if settings.changes.halt_config_map and clusters.primary is None:
        raise ProfileInvalid(
            f"the ConfigMap {settings.changes.halt_config_map} that changes.halt_config_map names",
            where=where,
            why="the profile names no kubernetes.primary to read it from, so that nobody could stop anything by it",
            remedy="fill in [kubernetes.primary], or use changes.halt_file",
        )
    if clusters.primary and clusters.dr and clusters.primary.context == clusters.dr.context:
        raise ProfileInvalid(
            "two Kubernetes clusters",
            where=where,
            why=f"kubernetes.primary and kubernetes.dr are the same context {clusters.dr.context!r}",
            remedy="name each region's own context: kubectl config get-contexts",
        )
    return settings


def _problem(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown key {key}"
    if error["type"] in ("missing", "missing_argument"):
        return f"missing key {key}"
    return f"{key} = {error['input']!r}: {error['msg'][:1].lower()}{error['msg'][1:]}"
