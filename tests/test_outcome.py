"""Three outcomes, and how many of them make one."""

from __future__ import annotations

import itertools

import pytest

from runbook_lib.errors import Unproven
from runbook_lib.outcome import Check, Finding, Outcome

FAULT = Finding("content.rows", "public.t", "expected 3 rows, found 2", remedy="look for it")
UNSEEN = Finding("content.large_objects", "pg_largeobject", "not readable", Outcome.UNPROVEN, "grant SELECT")


def check(*findings: Finding) -> Check:
    return Check("row counts match", "tensafe_verify", "3 tables", findings)


class TestWorst:
    @pytest.mark.parametrize("order", list(itertools.permutations(Outcome)))
    def test_a_failure_outweighs_everything(self, order: tuple[Outcome, ...]) -> None:
        assert Outcome.worst(order) is Outcome.FAILED

    def test_unproven_outweighs_a_proof(self) -> None:
        assert Outcome.worst([Outcome.PROVEN, Outcome.UNPROVEN]) is Outcome.UNPROVEN

    def test_proofs_alone_are_a_proof(self) -> None:
        assert Outcome.worst([Outcome.PROVEN, Outcome.PROVEN]) is Outcome.PROVEN

    def test_nothing_has_proven_nothing(self) -> None:
        assert Outcome.worst([]) is Outcome.UNPROVEN


class TestCheck:
    def test_without_findings_holds(self) -> None:
        assert check().outcome is Outcome.PROVEN
        assert check().holds()

    def test_with_a_fault_does_not_hold(self) -> None:
        assert not check(FAULT).holds()

    def test_a_fault_is_not_hidden_by_what_could_not_be_seen(self) -> None:
        assert check(UNSEEN, FAULT).outcome is Outcome.FAILED
        assert not check(UNSEEN, FAULT).holds()

    def test_what_could_not_be_seen_neither_holds_nor_fails(self) -> None:
        with pytest.raises(Unproven, match=r"row counts match, tensafe_verify: could not be checked") as raised:
            check(UNSEEN).holds()
        assert raised.value.remedy == "grant SELECT"
        assert "pg_largeobject: not readable" in str(raised.value)

    def test_explains_question_place_and_findings(self) -> None:
        told = check(FAULT).explain()
        assert told.splitlines() == [
            "row counts match: failed of tensafe_verify (3 tables)",
            "  content.rows public.t: expected 3 rows, found 2",
        ]

    def test_a_thousand_findings_are_told_in_few_lines(self) -> None:
        told = check(*[FAULT] * 1000).explain().splitlines()
        assert len(told) < 30
        assert told[-1].strip() == "... and 975 more"
