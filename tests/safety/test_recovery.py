"""What a killed run left is taken back by another process, once, on the right cluster, and never blindly."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runbook_lib.errors import NotPermitted, TargetRefused
from runbook_lib.safety import journal, recovery
from runbook_lib.safety.act import Before
from runbook_lib.safety.journal import Header
from runbook_lib.safety.recovery import TakenBack
from runbook_lib.safety.systems import Systems
from tests.safety.test_procedure import SYSTEMS, World, WriteFile

SPAWNING = multiprocessing.get_context("spawn")


def killed_run(folder: str, names: str, fails: str) -> None:
    """Change files under a permit, and be killed."""
    world = World.__new__(World)
    world.folder = Path(folder, "world")
    world.journals = Path(folder, "journal")
    header = Header.here_and_now(cluster="here", profile="here.toml", system_identifier="7", reason="a test")
    with journal.opened(world.journals, header, recover="recover!") as opened:
        for name in names:
            act = WriteFile(str(world.folder), name, fails if name == "b" else "")
            before = act.look(SYSTEMS)
            told = {"says": act.describe(before), "undoing": act.describe_undoing(before)}
            number = opened.announce("rehearse", act.kind, act.arguments, before, **told)
            act.do(SYSTEMS, before)
            if name != names[-1]:
                opened.note("done", number)
        os.kill(os.getpid(), 9)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def killed(world: World, tmp_path: Path) -> Callable[..., None]:
    def run(names: str, fails: str = "") -> None:
        process = SPAWNING.Process(target=killed_run, args=(str(tmp_path), names, fails))
        process.start()
        process.join(60)
        assert process.exitcode == -9

    return run


def recover(world: World, *, cluster: str = "here", identifier: str = "7") -> list[TakenBack]:
    return recovery.recover(world.journals, SYSTEMS, [WriteFile], cluster=cluster, system_identifier=identifier)


def test_everything_is_taken_back_and_twice_is_once(world: World, killed: Callable[..., None]) -> None:
    killed("abc")
    assert (world.folder / "a").read_text() == "changed"
    taken_back = recover(world)
    assert [(each.entry.says, each.is_stuck) for each in taken_back] == [
        ("write c", False),
        ("write b", False),
        ("write a", False),
    ]
    assert world.history == ["do a", "do b", "do c", "undo c", "undo b", "undo a"]
    assert world.is_as_before
    assert taken_back[0].header.reason == "a test"
    assert recover(world) == []
    assert len(world.history) == 6


def test_nothing_is_outstanding_where_nothing_ran(world: World) -> None:
    assert recover(world) == []
    assert not world.journals.exists()


class TestStuck:
    def test_stays_and_is_tried_again(self, world: World, killed: Callable[..., None]) -> None:
        killed("abc", "undo")
        first = recover(world)
        assert [(each.entry.says, each.is_stuck) for each in first] == [
            ("write c", False),
            ("write b", True),
            ("write a", False),
        ]
        assert "the test said so" in first[1].says
        with pytest.raises(NotPermitted, match="write b"), world.permit.procedure("x", SYSTEMS):
            pass
        assert [each.is_stuck for each in recover(world)] == [True]
        # Mended: the journal names the arguments, so what kept it is mended in the world. Here, in the journal itself.
        (path,) = world.journals.glob("*.jsonl")
        path.write_text(path.read_text().replace('"fails": "undo"', '"fails": ""'))
        assert [each.is_stuck for each in recover(world)] == [False]
        assert world.is_as_before
        assert recover(world) == []

    @pytest.mark.parametrize(
        "old_and_new", [('"write a file"', '"write a novel"'), ('"fails": ""', '"volume": 11')], ids=["kind", "field"]
    )
    def test_an_act_that_this_version_does_not_know(
        self, old_and_new: tuple[str, str], world: World, killed: Callable[..., None]
    ) -> None:
        killed("a")
        (path,) = world.journals.glob("*.jsonl")
        path.write_text(path.read_text().replace(*old_and_new))
        (stuck,) = recover(world)
        assert stuck.is_stuck
        assert "take it back by hand" in stuck.says
        assert world.history == ["do a"]
        assert [each.state for each in world.record.outstanding] == ["stuck"]

    def test_one_that_breaks_does_not_stop_the_others(self, world: World, killed: Callable[..., None]) -> None:
        killed("ab")
        (path,) = world.journals.glob("*.jsonl")
        path.write_text(path.read_text().replace('"before": {"word": null}', '"before": {}'))
        assert [(each.is_stuck, each.entry.says) for each in recover(world)] == [(True, "write b"), (False, "write a")]
        assert (world.folder / "a").read_text() == "as it was"


class TestWhere:
    @pytest.mark.parametrize(("cluster", "identifier"), [("there", "7"), ("here", "8")])
    def test_another_cluster_is_refused(
        self, cluster: str, identifier: str, world: World, killed: Callable[..., None]
    ) -> None:
        killed("a")
        with pytest.raises(TargetRefused, match=r"here\.toml"):
            recover(world, cluster=cluster, identifier=identifier)
        assert world.history == ["do a"]
        assert [each.state for each in world.record.outstanding] == ["intent"]

    def test_nothing_is_done_where_one_of_two_is_of_another(self, world: World, killed: Callable[..., None]) -> None:
        """What is refused is refused before the first act is taken back, not after."""
        killed("a")
        (path,) = world.journals.glob("*.jsonl")
        other = path.read_text().replace('"cluster": "here"', '"cluster": "there"')
        path.with_name("00000000.jsonl").write_text(other)
        with pytest.raises(TargetRefused):
            recover(world)
        assert world.history == ["do a"]


def test_a_run_that_is_alive_is_left_alone(world: World) -> None:
    with world.permit.procedure("rehearse", SYSTEMS) as procedure:
        procedure.do(world.act("a"))
        with pytest.raises(NotPermitted, match="another run is altering the same cluster"):
            recover(world)
        assert world.history == ["do a"]
    assert world.is_as_before


def test_two_recoveries_at_once(world: World, killed: Callable[..., None]) -> None:
    killed("a")
    with journal.alone_in(world.journals), pytest.raises(NotPermitted):
        recover(world)
    assert world.history == ["do a"]


def test_the_last_run_first(world: World, killed: Callable[..., None]) -> None:
    """Nothing new is begun while acts are outstanding; journals put together by hand are read all the same."""
    killed("a")
    (path,) = world.journals.glob("*.jsonl")
    aside = path.rename(path.with_name("aside"))
    killed("b")
    aside.rename(path)
    assert [each.entry.says for each in recover(world)] == ["write b", "write a"]
    assert world.is_as_before


def test_systems_that_cannot_be_reached(world: World, killed: Callable[..., None]) -> None:
    class Elsewhere(WriteFile):
        def undo(self, systems: Systems, before: Before) -> str:
            systems.must_have_bucket()
            return ""

    killed("a")
    (stuck,) = recovery.recover(world.journals, SYSTEMS, [Elsewhere], cluster="here", system_identifier="7")
    assert stuck.is_stuck
    assert "fill in [backups]" in stuck.says
