"""May this be changed?

Whatever alters a target takes a `Permit` as an argument, so that there is no path around it: a procedure that was
given none cannot be called. Who grants one is decided where a run's settings are read, and nowhere else.

A permit is not a fact of the beginning: a window closes, somebody lays down a halt. So it is asked again before each
act; and each act is written to the journal before it is done, and taken back when the procedure ends, however it ends,
unless the procedure said that it is to stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass

from runbook_lib.effect import Effect
from runbook_lib.errors import NotFound, NotPermitted, Planned, RunbookError, ToolFailed
from runbook_lib.safety.act import Act, Before, Undoable
from runbook_lib.safety.journal import Journal
from runbook_lib.safety.systems import Systems

OpenJournal = Callable[[], AbstractContextManager[Journal]]
"""Opens the journal of this run, when there is something to write."""


@dataclass(frozen=True)
class Asked:
    """What the operator typed to have something altered."""

    allow_changes_to: str = ""
    """The cluster's name, in full."""
    reason: str = ""
    """Why."""
    plan: bool = False
    """Whether only to say what would be done."""


@dataclass(frozen=True)
class Permit:
    """The permission to alter one target, or the reason why there is none."""

    target: str
    """What may be altered, as the profile names it."""
    granted: bool
    """Whether it may."""
    reason: str
    """Why it was granted, or what to do to have it granted."""
    planning: bool = False
    """Whether to say what would be done, and do nothing."""
    withheld: Callable[[], str] = lambda: ""
    """Asked before each act: why it may not be done at this moment; empty where it may."""
    open_journal: OpenJournal | None = None
    """None where nothing has to outlive the process: in a test, and while a sandbox is built."""
    recover: str = "runbook recover"
    """What to type where something could not be taken back."""

    def require(self, act: str) -> None:
        """Return if the act is permitted, at this moment.

        :param act: what is about to be done, as an infinitive: "add a backup to s3://..."

        Raise `NotPermitted` otherwise: what may not be done has not been proven, and has not failed either.
        """
        if not self.granted:
            why = "this run may change nothing there"
            raise NotPermitted(f"permission to {act}", where=self.target, why=why, remedy=self.reason)
        if why := self.withheld():
            remedy = "wait until it may be done; what was begun is taken back"
            raise NotPermitted(f"permission to {act}", where=self.target, why=why, remedy=remedy)

    @contextmanager
    def procedure(self, name: str, systems: Systems, acts: Sequence[Undoable] = ()) -> Iterator[Procedure]:
        """Begin a procedure: a few acts that belong together, and are taken back together.

        :param name: what it is for, as an infinitive: "take the API out of service"
        :param acts: what it will do, for a plan

        When the block ends, whether well, by an exception or by Ctrl-C, every act that was not kept is taken back,
        the last one first. Raise `Planned` where only a plan was asked for, `NotPermitted` where it may not be done.
        """
        if self.planning:
            raise self._plan(name, systems, acts)
        self.require(name)
        with self.open_journal() if self.open_journal else nullcontext() as journal:
            procedure = Procedure(name, self, systems, journal)
            try:
                yield procedure
            except BaseException as error:
                for problem in procedure.take_back():
                    error.add_note(str(problem))
                raise
            if problems := procedure.take_back():
                for further in problems[1:]:
                    problems[0].add_note(str(further))
                raise problems[0]

    def _plan(self, name: str, systems: Systems, acts: Sequence[Undoable]) -> Planned:
        lines: list[str] = []
        for number, act in enumerate(acts, start=1):
            try:
                before = act.look(systems)
            except NotFound as not_yet:  # what an earlier act would make
                lines.append(f"   ({not_yet.sought}, which the next act needs, is not there yet)")
                before = {}
            lines += [f"{number}. {act.describe(before)}", f"   to take it back: {act.describe_undoing(before)}"]
        now = self.withheld() if self.granted else self.reason
        lines.append(f"It would not be permitted now: {now}" if now else "It would be permitted now.")
        return Planned(f"to {name}", where=self.target, why="\n".join(lines), remedy="run it without --plan")


class Procedure:
    """A few acts under one permit, each written down before it is done."""

    def __init__(self, name: str, permit: Permit, systems: Systems, journal: Journal | None) -> None:
        """Begin it; use `Permit.procedure` instead, which also sees to its end."""
        self.name = name
        self._permit = permit
        self._systems = systems
        self._journal = journal
        self._outstanding: list[tuple[int, Undoable, Before]] = []

    def do(self, act: Act) -> Before:
        """Do an act, and return what was there before it."""
        with self.doing(act) as before:
            act.do(self._systems, before)
        return before

    @contextmanager
    def doing(self, act: Undoable) -> Iterator[Before]:
        """Announce an act that the caller does in the block, and yield what was there before it."""
        before = act.look(self._systems)
        says = act.describe(before)
        self._permit.require(says)
        number = 0
        if self._journal is not None:
            number = self._journal.announce(
                self.name, act.kind, act.arguments, before, says=says, undoing=act.describe_undoing(before)
            )
        self._outstanding.append((number, act, before))
        try:
            yield before
        except Exception as error:
            with suppress(RunbookError):  # the act's own error is the one to tell
                self._note("failed", number, f"{type(error).__name__}: {error}")
            raise
        self._note("done", number)

    def keep(self, *acts: Undoable) -> None:
        """Say that what was done so far is to stay.

        :param acts: which of it; all of it where none is named
        """
        kept = [each for each in self._outstanding if not acts or each[1] in acts]
        if self._journal is not None:
            self._journal.keep([number for number, _, _ in kept])
        self._outstanding = [each for each in self._outstanding if each not in kept]

    def take_back(self) -> list[RunbookError]:
        """Take back every act that was not kept, the last one first, and return what could not be taken back."""
        problems: list[RunbookError] = []
        while self._outstanding:
            number, act, before = self._outstanding[-1]
            try:
                says = act.undo(self._systems, before)
            except Exception as error:  # noqa: BLE001 - the others must be taken back all the same
                problems.append(self._stuck(number, act, before, error))
            else:
                problems += self._undone(number, says)
            self._outstanding.pop()
        return problems

    def _undone(self, number: int, says: str) -> list[RunbookError]:
        try:
            self._note("undone", number, says)
        except RunbookError as unwritten:
            unwritten.why = f"{says}, and this could not be written down: {unwritten.why}"
            unwritten.remedy = f"{unwritten.remedy}; then have it looked at once more: {self._permit.recover}"
            return [unwritten]
        return []

    def _stuck(self, number: int, act: Undoable, before: Before, error: Exception) -> ToolFailed:
        why = error.why if isinstance(error, RunbookError) else f"{type(error).__name__}: {error}"
        try:
            self._note("stuck", number, why)
        except RunbookError as unwritten:
            why += f"; and this could not be written down: {unwritten.why}"
        stuck = ToolFailed(
            f"to {act.describe_undoing(before)}",
            where=self._permit.target,
            why=why,
            remedy=f"mend what kept it from it, and type: {self._permit.recover}",
        )
        stuck.__cause__ = error
        return stuck

    def _note(self, state: str, number: int, says: str = "") -> None:
        if self._journal is not None:
            self._journal.note(state, number, says)


def refused(target: str, effect: Effect, *, planning: bool) -> Permit:
    """Return the permit of a scenario whose tag says that it alters nothing."""
    reason = f"tag the scenario @changes: it is tagged @{effect.value}"
    return Permit(target, granted=False, reason=reason, planning=planning)


def why_not_granted(cluster: str, asked: Asked) -> str:
    """Return what is missing in what the operator typed, with the sentence to type; empty where nothing is."""
    typed = f"--allow-changes-to {cluster} --reason 'why it has to be'"
    if not asked.allow_changes_to:
        return f"add to the command: {typed}"
    if asked.allow_changes_to != cluster:
        return f"this is the cluster {cluster}, and {asked.allow_changes_to} was typed; to mean this one, type: {typed}"
    if not asked.reason.strip():
        return f"say why, for the journal: {typed}"
    return ""
