"""However a procedure ends, what it did is taken back, the last act first, and what could not be is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest

from runbook_lib.errors import Denied, NoRoom, NotPermitted, Planned, RunbookError, ToolFailed
from runbook_lib.safety import journal
from runbook_lib.safety.act import Act, Before
from runbook_lib.safety.journal import Header, Journal, Record
from runbook_lib.safety.permit import Asked, Permit, Procedure, why_not_granted
from runbook_lib.safety.systems import Systems

SYSTEMS = Systems()
HEADER = Header.here_and_now(cluster="here", profile="here.toml", system_identifier="7", reason="a test")


@dataclass(frozen=True)
class WriteFile(Act):
    """Put a word into a file; the line that it appends to ``history`` shows what was done in which order."""

    kind: ClassVar[str] = "write a file"

    folder: str
    name: str
    fails: str = ""
    """``do`` or ``undo``: what raises."""

    def look(self, systems: Systems) -> Before:
        path = Path(self.folder, self.name)
        return {"word": path.read_text() if path.exists() else None}

    def describe(self, before: Before) -> str:
        return f"write {self.name}"

    def describe_undoing(self, before: Before) -> str:
        return f"put {self.name} back"

    def do(self, systems: Systems, before: Before) -> None:
        self._history("do")
        Path(self.folder, self.name).write_text("changed")

    def undo(self, systems: Systems, before: Before) -> str:
        self._history("undo")
        path = Path(self.folder, self.name)
        if before["word"] is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(before["word"])
        return f"{self.name} is back"

    def _history(self, did: str) -> None:
        with Path(self.folder, "history").open("a") as history:
            history.write(f"{did} {self.name}\n")
        if self.fails == did:
            raise Denied(f"to {did} {self.name}", where=self.folder, why="the test said so", remedy="none")


class World:
    """A folder to change, and the journal of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "world"
        self.folder.mkdir()
        self.journals = folder / "journal"
        (self.folder / "a").write_text("as it was")
        self.permit = Permit(
            "here",
            granted=True,
            reason="a test",
            open_journal=partial(journal.opened, self.journals, HEADER, recover="recover!"),
            recover="recover!",
        )

    def act(self, name: str, *, fails: str = "") -> WriteFile:
        return WriteFile(str(self.folder), name, fails)

    @property
    def history(self) -> list[str]:
        path = self.folder / "history"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def is_as_before(self) -> bool:
        files = {path.name: path.read_text() for path in self.folder.iterdir() if path.name != "history"}
        return files == {"a": "as it was"}

    @property
    def record(self) -> Record:
        (record,) = journal.read_all(self.journals)
        return record


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def carry_out(permit: Permit, *steps: Act | Callable[[Procedure], object]) -> None:
    """Carry out a procedure of these steps, each an act or something else that happens in between."""
    with permit.procedure("rehearse", SYSTEMS) as procedure:
        for step in steps:
            if isinstance(step, Act):
                procedure.do(step)
            else:
                step(procedure)


def raising(error: BaseException) -> Callable[[Procedure], object]:
    def step(procedure: Procedure) -> object:
        raise error

    return step


IN_REVERSE = ["do a", "do b", "do c", "undo c", "undo b", "undo a"]


def test_success_takes_back_in_reverse(world: World) -> None:
    with world.permit.procedure("rehearse", SYSTEMS) as procedure:
        for name in "abc":
            procedure.do(world.act(name))
        assert (world.folder / "a").read_text() == "changed"
    assert world.history == IN_REVERSE
    assert world.is_as_before
    assert [(each.state, each.last) for each in world.record.entries] == [("undone", f"{n} is back") for n in "abc"]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_however_it_ends(world: World, error: BaseException) -> None:
    with pytest.raises(type(error)) as raised:
        carry_out(world.permit, *map(world.act, "abc"), raising(error))
    assert raised.value is error
    assert world.history == IN_REVERSE
    assert world.is_as_before
    assert list(world.record.outstanding) == []


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_in_the_middle_of_an_act(world: World, error: BaseException) -> None:
    """Whether it was done nobody knows: so it is taken back too."""

    def half(procedure: Procedure) -> None:
        with procedure.doing(world.act("b")):
            (world.folder / "b").write_text("half")
            raise error

    with pytest.raises(type(error)):
        carry_out(world.permit, world.act("a"), half)
    assert world.history == ["do a", "undo b", "undo a"]
    assert world.is_as_before


def test_its_own_failure_is_told(world: World) -> None:
    with pytest.raises(Denied, match="to do b"):
        carry_out(world.permit, world.act("a"), world.act("b", fails="do"))
    assert world.history == ["do a", "do b", "undo b", "undo a"]
    assert world.is_as_before


def test_a_halt_in_the_middle(world: World) -> None:
    """The act that comes next is not begun, nor announced; what was done is taken back although a halt lies there."""
    said: list[str] = []
    permit = replace(world.permit, withheld=lambda: "".join(said))
    with pytest.raises(NotPermitted, match="stop it"):
        carry_out(permit, world.act("a"), lambda _: said.append("stop it"), world.act("b"))
    assert world.history == ["do a", "undo a"]
    assert [each.says for each in world.record.entries] == ["write a"]
    assert world.is_as_before


def test_a_halt_at_the_beginning(world: World) -> None:
    permit = replace(world.permit, withheld=lambda: "stop it")
    with pytest.raises(NotPermitted, match="stop it"), permit.procedure("rehearse", SYSTEMS):
        pass
    assert not world.journals.exists()


class TestWhatCannotBeTakenBack:
    def test_does_not_stop_the_others(self, world: World) -> None:
        with pytest.raises(ToolFailed) as raised:
            carry_out(world.permit, world.act("a"), world.act("b", fails="undo"), world.act("c"))
        assert world.history == IN_REVERSE
        assert (world.folder / "a").read_text() == "as it was"
        assert not (world.folder / "c").exists()
        assert [each.says for each in world.record.outstanding] == ["write b"]
        assert (raised.value.sought, raised.value.why) == ("to put b back", "the test said so")
        assert raised.value.remedy.endswith("recover!")
        with pytest.raises(NotPermitted, match="write b"), world.permit.procedure("again", SYSTEMS):
            pass

    def test_all_of_it_is_told(self, world: World) -> None:
        with pytest.raises(ToolFailed, match="put c back") as raised:
            carry_out(world.permit, *(world.act(name, fails="undo") for name in "abc"))
        assert [note.partition(",")[0] for note in raised.value.__notes__] == ["to put b back", "to put a back"]

    def test_is_told_beside_the_error_that_ended_it(self, world: World) -> None:
        with pytest.raises(ValueError, match="its own") as raised:
            carry_out(world.permit, world.act("b", fails="undo"), raising(ValueError("its own")))
        assert [note.partition(",")[0] for note in raised.value.__notes__] == ["to put b back"]


class TestAJournalThatFails:
    """The disk of the journal may fill at any row: what was done is taken back all the same, and told as it is."""

    @pytest.fixture
    def full_after(self, world: World) -> Callable[[int], Permit]:
        class Full(Journal):
            """A journal on a disk that has room for some rows."""

            room = 0

            def note(self, state: str, number: int, says: str = "") -> None:
                self._must_have_room()
                super().note(state, number, says)

            def announce(self, *arguments: object, **named: object) -> int:
                self._must_have_room()
                return super().announce(*arguments, **named)  # type: ignore[arg-type]

            def _must_have_room(self) -> None:
                Full.room -= 1
                if Full.room < 0:
                    raise NoRoom("to write down what is done", where="the disk", why="No space left", remedy="free it")

        def of(rows: int) -> Permit:
            Full.room = rows
            return replace(world.permit, open_journal=lambda: _as(Full, world))

        return of

    @pytest.mark.parametrize("rows", range(5))
    def test_at_every_row(self, rows: int, world: World, full_after: Callable[[int], Permit]) -> None:
        with pytest.raises(NoRoom) as raised:
            carry_out(full_after(rows), world.act("a"), world.act("b"))
        assert world.is_as_before
        done = [line for line in world.history if line.startswith("do")]
        assert done == ["do a", "do b"][: (rows + 1) // 2]
        assert len(world.history) == 2 * len(done)
        told = [str(raised.value), *getattr(raised.value, "__notes__", [])]
        assert sum("is back, and this could not be written down" in each for each in told) == len(done)
        assert len(world.record.outstanding) == len(done)

    def test_the_acts_own_failure_is_the_one_to_tell(self, world: World, full_after: Callable[[int], Permit]) -> None:
        with (
            pytest.raises(Denied, match="to do a") as raised,
            full_after(1).procedure("rehearse", SYSTEMS) as procedure,
        ):
            procedure.do(world.act("a", fails="do"))
        assert len(raised.value.__notes__) == 1


@contextmanager
def _as(form: type[Journal], world: World) -> Iterator[Journal]:
    with journal.opened(world.journals, HEADER, recover="recover!") as real:
        yield form(real.path, real._descriptor)


class TestKeep:
    def test_what_was_kept_stays(self, world: World) -> None:
        with world.permit.procedure("rehearse", SYSTEMS) as procedure:
            procedure.do(world.act("b"))
            procedure.keep()
            procedure.do(world.act("a"))
        assert world.history == ["do b", "do a", "undo a"]
        assert (world.folder / "b").read_text() == "changed"
        assert [each.state for each in world.record.entries] == ["kept", "undone"]
        assert list(world.record.outstanding) == []

    def test_it_stays_where_the_rest_fails(self, world: World) -> None:
        with pytest.raises(Denied):
            carry_out(world.permit, world.act("b"), Procedure.keep, world.act("a", fails="do"))
        assert (world.folder / "b").read_text() == "changed"
        assert (world.folder / "a").read_text() == "as it was"


def test_take_back_by_hand_takes_back_once(world: World) -> None:
    with world.permit.procedure("rehearse", SYSTEMS) as procedure:
        procedure.do(world.act("a"))
        assert procedure.take_back() == []
        assert world.is_as_before
        assert procedure.take_back() == []
    assert world.history == ["do a", "undo a"]


class TestPlanning:
    def test_lists_each_act_with_its_undoing_and_does_nothing(self, world: World) -> None:
        permit = replace(world.permit, planning=True)
        with (
            pytest.raises(Planned) as raised,
            permit.procedure("rehearse", SYSTEMS, [world.act("a"), world.act("b")]),
        ):
            pytest.fail("a plan is not carried out")
        assert str(raised.value).splitlines()[1:] == [
            "1. write a",
            "   to take it back: put a back",
            "2. write b",
            "   to take it back: put b back",
            "It would be permitted now.",
        ]
        assert world.is_as_before
        assert world.history == []
        assert not world.journals.exists()

    def test_says_that_it_would_not_be_permitted(self, world: World) -> None:
        halted = replace(world.permit, planning=True, withheld=lambda: "a halt lies there")
        with pytest.raises(Planned, match="not be permitted now: a halt lies there"), halted.procedure("x", SYSTEMS):
            pass
        refused = replace(halted, granted=False, reason="type more")
        with pytest.raises(Planned, match="not be permitted now: type more"), refused.procedure("x", SYSTEMS):
            pass

    def test_what_cannot_be_looked_at_is_no_plan(self, world: World) -> None:
        class Nowhere(WriteFile):
            def look(self, systems: Systems) -> Before:
                systems.must_have_bucket()
                return {}

        permit = replace(world.permit, planning=True)
        with pytest.raises(RunbookError) as raised, permit.procedure("x", SYSTEMS, [Nowhere("", "")]):
            pass
        assert not isinstance(raised.value, Planned)


def test_a_permit_that_was_not_granted(world: World) -> None:
    permit = replace(world.permit, granted=False, reason="type more")
    with pytest.raises(NotPermitted, match="type more"), permit.procedure("rehearse", SYSTEMS):
        pass
    assert not world.journals.exists()


@pytest.mark.parametrize(
    ("asked", "missing"),
    [
        (Asked(), "add to the command: --allow-changes-to tensafe-production --reason"),
        (Asked("production", "x"), "this is the cluster tensafe-production, and production was typed"),
        (Asked("tensafe-production", "  "), "say why"),
        (Asked("tensafe-production", "because"), ""),
    ],
)
def test_what_must_be_typed(asked: Asked, missing: str) -> None:
    found = why_not_granted("tensafe-production", asked)
    assert found.startswith(missing)
    assert bool(found) == bool(missing)


def test_nothing_is_done_without_looking_first(world: World) -> None:
    def run(procedure: Procedure) -> Before:
        return procedure.do(world.act("a"))

    with world.permit.procedure("rehearse", SYSTEMS) as procedure:
        assert run(procedure) == {"word": "as it was"}
    assert world.record.entries[0].before == {"word": "as it was"}
