"""A profile says what a run acts on; what nobody understands is refused, by its name."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import time, timedelta
from pathlib import Path
from typing import Any

import pytest

from runbook_lib import settings
from runbook_lib.errors import ProfileInvalid

EXAMPLE = Path(settings.__file__).parent / "profiles" / "production.example.toml"
LEAST: Mapping[str, Any] = {"name": "here", "database": {"dsn": "service=tensafe"}, "backups": {"bucket": "b"}}


def parse(**changed: object) -> settings.Settings:
    return settings.parse({**LEAST, **changed}, where="here.toml")


class TestExample:
    def test_loads_by_its_name_and_by_its_path(self) -> None:
        assert settings.load("production.example") == settings.load(str(EXAMPLE))

    def test_explains_every_key_there_is(self) -> None:
        told = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))
        loaded = settings.load(str(EXAMPLE))
        sections = {key: value for key, value in told.items() if isinstance(value, dict)}
        assert set(told) == set(vars(loaded))
        for section, keys in sections.items():
            known = set(vars(getattr(loaded, section)))
            assert set(keys) >= known - {"endpoint_url"}, section
            assert set(keys) <= known, section

    def test_changes_nothing(self) -> None:
        assert not settings.load("production.example").changes.granted


class TestDefaults:
    def test_are_the_runbooks_own(self) -> None:
        found = parse()
        assert found.backups.daily_at == time(2, 0)
        assert found.backups.retention_days == 30
        assert found.backups.schedule.ready_within == timedelta(hours=1)
        assert found.restore.rto_target_seconds == 3600
        assert found.restore.rto_maximum_seconds == 4 * 3600
        assert found.archiving.rpo_seconds == 300
        assert not found.changes.granted


class TestRefused:
    @pytest.mark.parametrize(
        ("changed", "says"),
        [
            ({"databse": {}}, "unknown key databse"),
            ({"restore": {"job": 2}}, "unknown key restore.job"),
            ({"database": {"dsn": "x=y", "sytem_identifier": "1"}}, "unknown key database.sytem_identifier"),
            ({"database": {}}, "missing key database.dsn"),
            ({"backups": {}}, "missing key backups.bucket"),
            ({"restore": {"jobs": "many"}}, "restore.jobs = 'many': "),
            ({"backups": {"bucket": "b", "daily_at": "25:00"}}, "backups.daily_at = '25:00': "),
            ({"changes": {"granted": "maybe"}}, "changes.granted = 'maybe': "),
            ({"database": "tensafe"}, "database = 'tensafe': "),
        ],
    )
    def test_names_the_key(self, changed: dict[str, object], says: str) -> None:
        with pytest.raises(ProfileInvalid) as raised:
            parse(**changed)
        assert says in raised.value.why
        assert raised.value.where == "here.toml"
        assert "production.example.toml" in raised.value.remedy

    def test_names_every_key_at_once(self) -> None:
        with pytest.raises(ProfileInvalid) as raised:
            parse(a=1, b=2, restore={"c": 3})
        assert {"unknown key a", "unknown key b", "unknown key restore.c"} <= set(raised.value.why.split("; "))

    @pytest.mark.parametrize(
        "dsn",
        [
            "host=h password=hunter2",
            "host=h PASSWORD = hunter2",
            "postgresql://clerk:hunter2@h/tensafe",
            "postgres://clerk:hunter2@h/tensafe?sslmode=require",
            "postgresql://h/tensafe?user=clerk&password=hunter2",
        ],
    )
    def test_a_password_and_does_not_repeat_it(self, dsn: str) -> None:
        with pytest.raises(ProfileInvalid) as raised:
            parse(database={"dsn": dsn})
        assert "PGPASSFILE" in raised.value.remedy
        assert "hunter2" not in str(raised.value)

    @pytest.mark.parametrize("dsn", ["postgresql://clerk@h:5432/tensafe", "host=h passfile=/etc/pgpass", "service=x"])
    def test_no_connection_string_without_one(self, dsn: str) -> None:
        assert parse(database={"dsn": dsn}).database.dsn == dsn


class TestFile:
    def test_missing_lists_what_is_there(self, tmp_path: Path) -> None:
        (tmp_path / "staging.toml").write_text("")
        with pytest.raises(ProfileInvalid) as raised:
            settings.load(str(tmp_path / "prod.toml"))
        assert "profiles there: staging" in raised.value.why

    def test_missing_name_lists_what_is_shipped(self) -> None:
        with pytest.raises(ProfileInvalid, match=r"profiles there: production\.example"):
            settings.load("prod")

    @pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe", b"[a]\n[a]\n"])
    def test_not_toml(self, content: bytes, tmp_path: Path) -> None:
        path = tmp_path / "prod.toml"
        path.write_bytes(content)
        with pytest.raises(ProfileInvalid, match="it must be TOML") as raised:
            settings.load(str(path))
        assert raised.value.where == str(path)

    def test_a_folder(self, tmp_path: Path) -> None:
        folder = tmp_path / "prod.toml"
        folder.mkdir()
        with pytest.raises(ProfileInvalid, match="Is a directory"):
            settings.load(str(folder))
