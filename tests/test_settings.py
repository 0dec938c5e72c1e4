"""A profile says what a run acts on; what nobody understands is refused, by its name."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from datetime import time, timedelta
from pathlib import Path
from typing import Any

import pytest

from runbook_lib import settings
from runbook_lib.errors import ProfileInvalid

EXAMPLE = Path(settings.__file__).parents[1] / "profiles" / "production.example.toml"
LEAST: Mapping[str, Any] = {"name": "here", "database": {"dsn": "service=tensafe"}, "backups": {"bucket": "b"}}


def parse(**changed: object) -> settings.Settings:
    return settings.parse({**LEAST, **changed}, where="here.toml")


def _keys(told: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the way to every key of a profile."""
    for key, value in told.items() if isinstance(told, dict) else enumerate(told):
        if isinstance(told, dict):
            yield (*above, str(key))
        if isinstance(value, dict | list):
            yield from _keys(value, (*above, str(key)))


class TestExample:
    def test_loads_by_its_name_and_by_its_path(self) -> None:
        assert settings.load("production.example") == settings.load(str(EXAMPLE))
        assert settings.load("production.example").path == str(EXAMPLE)

    def test_explains_every_key_there_is(self) -> None:
        told = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))
        loaded = settings.load(str(EXAMPLE))
        assert list(_unexplained(told, vars(loaded), "")) == ["path"]

    def test_changes_nothing(self) -> None:
        assert not settings.load("production.example").changes.granted


def _unexplained(told: Any, known: Mapping[str, Any], above: str) -> Iterator[str]:
    """Yield every key of a section, and of the sections in it, that the example does not give."""
    for key, value in known.items():
        if key not in told:
            yield above + key
        elif isinstance(value, tuple):
            yield from _unexplained(told[key][0], vars(value[0]), f"{above}{key}.")
        elif isinstance(told[key], dict) and key != "dr":  # the second region has the first one's keys
            yield from _unexplained(told[key], vars(value), f"{above}{key}.")


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
            ({"kubernetes": {"primery": {"context": "x"}}}, "unknown key kubernetes.primery"),
            ({"kubernetes": {"primary": {"contxt": "x"}}}, "unknown key kubernetes.primary.contxt"),
            ({"kubernetes": {"primary": {}}}, "missing key kubernetes.primary.context"),
            ({"patroni": {"scop": "x"}}, "unknown key patroni.scop"),
            ({"dns": {"nam": "x"}}, "unknown key dns.nam"),
            ({"contacts": [{"role": "DBA", "adress": "x"}]}, "unknown key contacts.0.adress"),
            ({"maintenance": {"window": []}}, "unknown key maintenance.window"),
            (
                {"maintenance": {"windows": [{"operation": "x", "opens": "Sun 02:00", "closes": "Sunday 04:00"}]}},
                "'Sun 02:00' does not begin with a day of the week",
            ),
            (
                {"maintenance": {"windows": [{"operation": "x", "opens": "Sunday 2", "closes": "Sunday 04:00"}]}},
                "'Sunday 2' does not end with a time of day",
            ),
            (
                {
                    "maintenance": {
                        "windows": [
                            {
                                "operation": "x",
                                "opens": "Sunday 02:00",
                                "closes": "Sunday 04:00",
                                "zone": "Mars/Olympus",
                            }
                        ]
                    }
                },
                "there is no time zone 'Mars/Olympus'",
            ),
            (
                {
                    "maintenance": {
                        "windows": [
                            {"operation": "x", "opens": "Sunday 02:00", "closes": "Sunday 04:00"},
                            {"operation": "x", "opens": "Sunday 03:00", "closes": "Sunday 05:00"},
                        ]
                    }
                },
                "two windows of 'x' overlap",
            ),
            ({"database": "tensafe"}, "database = 'tensafe': "),
        ],
    )
    def test_names_the_key(self, changed: dict[str, object], says: str) -> None:
        with pytest.raises(ProfileInvalid) as raised:
            parse(**changed)
        assert says in raised.value.why
        assert raised.value.where == "here.toml"
        assert "production.example.toml" in raised.value.remedy

    @pytest.mark.parametrize("path", list(_keys(tomllib.loads(EXAMPLE.read_text(encoding="utf-8")))), ids=".".join)
    def test_a_slip_in_any_key(self, path: tuple[str, ...]) -> None:
        told = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))
        *above, key = path
        section: Any = told
        for name in above:
            section = section[int(name)] if isinstance(section, list) else section[name]
        section[f"{key}s"] = section.pop(key)
        with pytest.raises(ProfileInvalid) as raised:
            settings.parse(told, where="here.toml")
        assert f"unknown key {'.'.join((*above, key))}s" in raised.value.why

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

    def test_changes_that_it_grants_itself(self) -> None:
        with pytest.raises(ProfileInvalid, match="only a sandbox may") as raised:
            parse(cluster="tensafe-here", changes={"granted": True})
        assert "--allow-changes-to tensafe-here" in raised.value.remedy

    def test_a_window_that_is_not_in_the_table(self) -> None:
        with pytest.raises(ProfileInvalid, match=r"no entry of maintenance\.windows"):
            parse(changes={"window": "VACUUM FUL"})

    def test_one_context_for_two_clusters(self) -> None:
        with pytest.raises(ProfileInvalid, match="are the same context 'prod'"):
            parse(kubernetes={"primary": {"context": "prod"}, "dr": {"context": "prod"}})

    def test_a_path_of_its_own(self) -> None:
        with pytest.raises(ProfileInvalid, match="unknown key path"):
            parse(path="/etc/other.toml")


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
