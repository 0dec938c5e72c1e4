"""What only the machine of the drill lacks is no fault of the backup: it leaves it unproven, and says what lacks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from runbook_lib.backup import dump
from runbook_lib.backup.catalog import Archive, Backup
from runbook_lib.backup.definitions import Definition
from runbook_lib.errors import Unproven
from runbook_lib.outcome import Finding, Outcome
from runbook_lib.reach import postgres
from runbook_lib.restore.restored import RestoredDatabase
from runbook_lib.restore.scratch import Scratch
from tests.detection import small, tools
from tests.detection.place import PERMIT, Place
from tests.detection.tools import Tools


@pytest.fixture(scope="module")
def archive(place: Place) -> Archive:
    return place.archive("lacking")


@pytest.fixture(scope="module")
def taken(place: Place, archive: Archive) -> Backup:
    """A backup of a database that uses an extension and a role of its own."""
    with postgres.session(place.source.dsn(), read_only=False) as session:
        session.execute("CREATE ROLE ledger_keeper")
    dsn = small.ledger(place, "lacking", "CREATE EXTENSION hstore", "ALTER TABLE holders OWNER TO ledger_keeper")
    return dump.take(dsn, archive, permit=PERMIT).backup


@pytest.fixture
def installation() -> Iterator[Tools]:
    with tools.whole_installation() as made:
        yield made


def edited(backup: Backup, **changes: Any) -> Backup:
    """Have a backup's manifest say something else."""
    assert backup.manifest is not None
    return replace(backup, manifest=replace(backup.manifest, **changes))


def found(restored: RestoredDatabase) -> list[Finding]:
    return [*restored.restored.findings, *(f for check in restored.compare().checks for f in check.findings)]


def outcomes(findings: Iterable[Finding]) -> set[Outcome]:
    return {finding.outcome for finding in findings}


def test_a_target_that_lacks_nothing(place: Place, archive: Archive, taken: Backup, installation: Tools) -> None:
    with Scratch.open(tools_directory=installation.bin) as scratch:
        assert found(place.restore(taken, archive, scratch=scratch)) == []


def test_an_extension_is_missing(place: Place, archive: Archive, taken: Backup, installation: Tools) -> None:
    (installation.share / "extension/hstore.control").unlink()
    with Scratch.open(tools_directory=installation.bin) as scratch:
        with pytest.raises(Unproven, match="hstore"):
            place.restore(taken, archive, scratch=scratch)
        assert not list(scratch.workspace.folder("dump").iterdir())


def test_an_extension_is_of_another_version(place: Place, archive: Archive, taken: Backup, installation: Tools) -> None:
    control = installation.share / "extension/hstore.control"
    older = control.read_text().replace("default_version = '1.8'", "default_version = '1.7'")
    assert "1.7" in older
    control.unlink()
    control.write_text(older)
    with Scratch.open(tools_directory=installation.bin) as scratch:
        findings = found(place.restore(taken, archive, scratch=scratch))
    assert [(f.check, f.subject, f.outcome) for f in findings] == [("catalog.extension", "hstore", Outcome.UNPROVEN)]


def test_a_role_is_missing(place: Place, archive: Archive, taken: Backup) -> None:
    """The globals could not be dumped, and nobody made the role on the target."""
    with Scratch.open() as scratch:
        restored = place.restore(edited(taken, globals=None), archive, scratch=scratch)
        check = restored.restored
    assert {(f.check, f.outcome) for f in check.findings} == {("restore.target_lacks", Outcome.UNPROVEN)}
    assert all('role "ledger_keeper" does not exist' in f.says for f in check.findings)


def test_a_locale_is_missing(place: Place, archive: Archive, taken: Backup) -> None:
    assert taken.manifest is not None
    nowhere = "xx_XX.UTF-8"
    manifest = taken.manifest
    definitions = tuple(
        Definition(d.kind, d.name, nowhere)
        if (d.kind, d.name) in {("database", "collate"), ("database", "ctype")}
        else d
        for d in manifest.inventory.definitions
    )
    elsewhere = edited(
        taken,
        properties=replace(manifest.properties, collate=nowhere, ctype=nowhere),
        inventory=replace(manifest.inventory, definitions=definitions),
    )
    restored = place.restore(elsewhere, archive)
    findings = found(restored)
    restored.remove()
    assert "restore.locale" in {f.check for f in findings}
    assert outcomes(findings) == {Outcome.UNPROVEN}, [str(f) for f in findings]


def test_hash_functions_that_differ(place: Place, archive: Archive, taken: Backup) -> None:
    assert taken.manifest is not None
    elsewhere = edited(taken, inventory=replace(taken.manifest.inventory, hash_vector="1"))
    restored = place.restore(elsewhere, archive)
    comparison = restored.compare()
    restored.remove()
    assert [f.check for f in comparison.contents.findings] == ["content.hash_functions"]
    assert comparison.contents.outcome is Outcome.UNPROVEN
    assert comparison.rows.holds()
    assert comparison.catalog.holds()
