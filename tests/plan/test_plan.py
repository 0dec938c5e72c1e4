"""A plan says what would be done and how it is taken back, does nothing, and is never a proof."""

from __future__ import annotations

import json
from pathlib import Path

from runbook_lib.evidence import history
from tests.bad_input.conftest import DRILL, READ, TAKE, User, World

UNPROVEN = 5
NAMED = ("--allow-changes-to", "here", "--reason", "a test")


def test_a_change_is_told_and_not_done(user: User) -> None:
    ran = user.runs(*TAKE, "--plan", *NAMED, profile=user.profile())  # which sees that the bucket is as before
    assert (ran.exit_code, ran.outcome) == (UNPROVEN, "planned")
    assert "1. add a backup, postgres/manual/" in ran.output
    assert "to take it back: remove what was written of postgres/manual/" in ran.output
    assert "It would be permitted now." in ran.output
    assert "changes: planned only" in ran.output
    (scenario,) = ran.summary["scenarios"]
    assert [step["outcome"] for step in scenario["steps"]][:3] == ["proven", "planned", "not run"]


def test_it_says_what_would_keep_it_from_being_done(user: User, tmp_path: Path) -> None:
    ran = user.runs(*TAKE, "--plan", profile=user.profile())
    assert "It would not be permitted now: add to the command: --allow-changes-to here" in ran.output
    (tmp_path / "halt").write_text("Ada: not today")
    ran = user.runs(*TAKE, "--plan", *NAMED, profile=user.profile(changes__halt_file=str(tmp_path / "halt")))
    assert "It would not be permitted now: a halt lies in" in ran.output
    assert "Ada: not today" in ran.output


def test_nothing_is_restored(user: User) -> None:
    ran = user.runs(*DRILL, "--plan", profile=user.profile())
    assert (ran.exit_code, ran.outcome) == (UNPROVEN, "planned")
    assert "to restore, a throwaway server of this machine: planned, and not done" in ran.output


def test_what_is_only_read_is_read(user: User) -> None:
    ran = user.runs(*READ, "--plan", profile=user.profile())
    assert {each["outcome"] for each in ran.summary["scenarios"]} == {"proven", "failed"} or ran.outcome != "planned"
    assert "planned" not in {each["outcome"] for each in ran.summary["scenarios"]}


def test_the_journal_is_not_even_begun(user: User, tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    user.runs(*TAKE, "--plan", *NAMED, profile=user.profile(changes__journal=str(folder)))
    assert not folder.exists()


def test_history_predicts_how_long_it_takes(user: User, world: World, tmp_path: Path) -> None:
    ran = user.runs(*TAKE, "--plan", *NAMED, profile=user.profile())
    assert "How long it takes nobody knows yet" in ran.output
    (scenario,) = ran.summary["scenarios"]
    known = {"environment": "here", "feature": scenario["feature"], "scenario": scenario["scenario"]}
    lines = [
        {**known, "ending": "proven", "seconds": 61.0},
        {**known, "ending": "proven", "seconds": 63.0},
        {**known, "ending": "proven", "seconds": 62.0},
        {**known, "ending": "failed", "seconds": 1.0},
        {**known, "environment": "elsewhere", "ending": "proven", "seconds": 5.0},
    ]
    file = tmp_path / "reports" / history.FILE
    file.write_text("no row\n" + "".join(json.dumps(line) + "\n" for line in lines) + '{"seconds": ')
    ran = user.runs(*TAKE, "--plan", *NAMED, profile=user.profile())
    assert (
        "It took 1 min 02 s (the median of the last 3 times it was proven here, 1 min 01 s to 1 min 03 s)."
        in ran.output
    )


def test_a_run_adds_to_the_history_and_a_plan_does_not(user: User, tmp_path: Path) -> None:
    file = tmp_path / "reports" / history.FILE
    user.runs(*TAKE, "--plan", *NAMED, profile=user.profile())
    assert not file.exists()
    user.runs(*DRILL, profile=user.profile())
    (told,) = map(json.loads, file.read_text().splitlines())
    assert (told["environment"], told["ending"]) == ("here", "proven")
    assert told["seconds"] > 0
