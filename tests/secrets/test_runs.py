"""Real runs over a database full of canaries, in healthy and in failing ways: not one of them is told anywhere.

Each run is as loud as pytest can be made. What is searched is all that it wrote (terminal, reports, JUnit, Allure,
journal, temporary files that were left), and what anybody could see of its processes while it ran.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bad_input.running import processes_with
from tests.secrets.planted import DEFINITIONS, Planted
from tests.secrets.watching import LOUD, Told, run

DRILL = ("features/backup/backup_verification.feature", "-k", "without_an_audit_log")
READ = ("features/backup/automated_backups.feature", "-k", "night")
NEW_DEFINITIONS = tuple(f"new_{name}" for name in DEFINITIONS)


class Operator:
    """Somebody who runs the runbook, loudly."""

    def __init__(self, planted: Planted, folder: Path, temporary: Path) -> None:
        self.planted = planted
        self.folder = folder / "told"
        self.folder.mkdir()
        self.home = folder
        self.temporary = temporary

    def runs(self, *arguments: str | Path, profile: Path, **env: str) -> Told:
        told = run(
            *arguments,
            *LOUD,
            "--env",
            profile,
            folder=self.folder,
            temporary=self.temporary,
            env=self.planted.env(self.temporary, **env),
        )
        assert list(self.temporary.iterdir()) == []
        return told

    def must_not_tell(self, told: Told, *, but: tuple[str, ...] = ()) -> None:
        assert told.places["environment"], "no process in a private workspace was seen"
        variables = {each.partition(b"=")[0] for each in told.places["environment"].replace(b"\n", b"\0").split(b"\0")}
        assert b"TENSAFE_WORKSPACE" in variables
        assert [name for name in variables if name.startswith((b"AWS_", b"KUBE", b"PGPASS", b"PGSERVICE"))] == []
        assert self.planted.canaries.found_in(told.places, but=but) == [], told.terminal


@pytest.fixture
def operator(planted: Planted, tmp_path: Path, temporary: Path) -> Operator:
    return Operator(planted, tmp_path, temporary)


def test_a_backup_is_taken_and_restored(operator: Operator) -> None:
    """The roles' verifiers are in it; the password comes from a service file."""
    planted = operator.planted
    told = operator.runs(
        *("features/backup/manual_backup.feature", "--allow-changes-to", "here", "--reason", "a test"),
        profile=planted.profile(operator.home, dsn="service=tensafe", prefix="taken/"),
        PGSERVICEFILE=planted.servicefile(operator.home),
    )
    assert told.exit_code == 0, told.terminal
    assert any("state/" in place for place in told.places), "the journal was written"
    operator.must_not_tell(told)


def test_a_drill_is_proven(operator: Operator) -> None:
    planted = operator.planted
    told = operator.runs(
        *DRILL,
        profile=planted.profile(operator.home, dsn=planted.dsn("clerk_env")),
        PGPASSWORD=planted.canaries["password_env"],
    )
    assert told.exit_code == 0, told.terminal
    operator.must_not_tell(told)


def test_the_restored_content_differs(operator: Operator) -> None:
    """A changed CHECK is shown, or the finding helps nobody; a changed password is not."""
    told = operator.runs(*DRILL, profile=operator.planted.profile(operator.home, prefix="differs/"))
    assert told.exit_code == 1, told.terminal
    operator.must_not_tell(told, but=(*DEFINITIONS, *NEW_DEFINITIONS))
    shown = {found.split(" in ")[0] for found in operator.planted.canaries.found_in(told.places)}
    assert shown == {*DEFINITIONS, *NEW_DEFINITIONS}
    summary = told.places["reports/summary.json"].decode()
    for words in (
        "expected 2 rows, found 1",
        "catalog.foreign_server",
        "options host=farther, password (not shown), url=https://(not shown)@farther",
        "differs in a credential, which is not shown: owner postgres CREATE OR REPLACE FUNCTION public.far()",
        "expected options password, user, found options more, password, user",
    ):
        assert words in summary, summary


def test_the_restore_fails_over_rows(operator: Operator) -> None:
    """PostgreSQL quotes each of them; what is kept says which table, which constraint, which line."""
    told = operator.runs(*DRILL, profile=operator.planted.profile(operator.home, prefix="broken/"))
    assert told.exit_code == 1, told.terminal
    operator.must_not_tell(told)
    summary = told.places["reports/summary.json"].decode().replace('\\"', "'")
    for words in (
        "new row for relation 'fails' violates check constraint 'fails_check' (COPY fails, line 1)",
        "'raised': ERROR:  *** (the database's own code may have written it) (COPY raised, line 1)",
        "invalid input syntax for type integer: '***' (COPY cast, line 1)",
        "could not create unique index 'doubled_tag'",
        "insert or update on table 'orphan' violates foreign key constraint 'orphan_parent_fkey'",
    ):
        assert words in summary, summary


def test_the_comparison_breaks_over_a_row(operator: Operator) -> None:
    """Nobody foresaw it, so that a traceback is shown, with the driver's error at its end."""
    told = operator.runs(*DRILL, profile=operator.planted.profile(operator.home, prefix="unreadable/"))
    assert told.exit_code == 5, told.terminal
    assert "InvalidTextRepresentation: invalid input syntax for type integer" in told.terminal
    operator.must_not_tell(told)


def test_ctrl_c(operator: Operator) -> None:
    """With --full-trace pytest shows a traceback of the interruption by itself."""

    def restoring(_: int) -> bool:
        for pid in processes_with(f"TMPDIR={operator.temporary}"):
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b" tensafe_verify " in title and b"COPY" in title:
                return True
        return False

    planted = operator.planted
    told = run(
        *DRILL,
        *LOUD,
        *("--env", planted.profile(operator.home, prefix="slow/")),
        folder=operator.folder,
        temporary=operator.temporary,
        env=planted.env(operator.temporary, PGPASSWORD=planted.canaries["password_env"]),
        interrupt=restoring,
    )
    assert told.exit_code == int(pytest.ExitCode.INTERRUPTED), told.terminal
    assert "KeyboardInterrupt" in told.terminal
    assert "timed_restore(" in told.terminal, "the traceback is there"
    operator.must_not_tell(told)


class TestRefusals:
    """Nothing comes up here, so that there are no processes in a private workspace to look at."""

    @staticmethod
    def must_not_tell(told: Told, operator: Operator) -> None:
        assert told.exit_code == 5, told.terminal
        assert operator.planted.canaries.found_in(told.places) == [], told.terminal

    def test_the_password_is_wrong(self, operator: Operator) -> None:
        planted = operator.planted
        profile = planted.profile(operator.home, dsn=planted.dsn("clerk_file"))
        wrong = planted.passfile(operator.home, "clerk_file", planted.canaries["wrong_password"])
        told = operator.runs(*READ, profile=profile, PGPASSFILE=wrong)
        assert "password authentication failed" in told.terminal
        self.must_not_tell(told, operator)

    def test_the_password_is_right(self, operator: Operator) -> None:
        """And what is then asked for is not there."""
        planted = operator.planted
        profile = planted.profile(operator.home, dsn=planted.dsn("clerk_file"), bucket="nowhere")
        right = planted.passfile(operator.home, "clerk_file", planted.canaries["password_file"])
        told = operator.runs(*READ, profile=profile, PGPASSFILE=right)
        assert "404 NoSuchBucket" in told.terminal
        self.must_not_tell(told, operator)

    def test_the_s3_secret_is_wrong(self, operator: Operator) -> None:
        planted = operator.planted
        secrets = {"AWS_SECRET_ACCESS_KEY": "wrong_secret", "AWS_SESSION_TOKEN": "session_token"}
        told = operator.runs(
            *READ,
            profile=planted.profile(operator.home, dsn=planted.dsn("clerk_env")),
            PGPASSWORD=planted.canaries["password_env"],
            **{name: planted.canaries[canary] for name, canary in secrets.items()},
        )
        assert "S3 answers 403" in told.terminal
        self.must_not_tell(told, operator)

    def test_nobody_answers(self, operator: Operator) -> None:
        planted = operator.planted
        profile = planted.profile(operator.home, dsn="host=127.0.0.1 port=9 dbname=app user=clerk_env")
        told = operator.runs(*READ, "-k", "archived", profile=profile, PGPASSWORD=planted.canaries["password_env"])
        assert "Connection refused" in told.terminal
        self.must_not_tell(told, operator)

    def test_the_cluster_does_not_answer(self, operator: Operator) -> None:
        told = operator.runs(
            "features/maintenance",
            *("--allow-changes-to", "here", "--reason", "a test"),
            profile=operator.planted.profile(operator.home),
        )
        assert "127.0.0.1:9" in told.terminal
        self.must_not_tell(told, operator)

    def test_the_doctor(self, operator: Operator) -> None:
        planted = operator.planted
        profile = planted.profile(operator.home, dsn=planted.dsn("clerk_env"))
        told = run(
            *("doctor", "--env", profile),
            folder=operator.folder,
            temporary=operator.temporary,
            env=planted.env(operator.temporary, PGPASSWORD=planted.canaries["password_env"]),
            program=("runbook_lib",),
        )
        assert "reads the passwords' hashes" in told.terminal
        self.must_not_tell(told, operator)
