"""Why something could not be carried out, and what to do about it.

The tree::

    RunbookError
    +-- Unproven            a precondition is missing, so nothing can be said (outcome: unproven)
    |   +-- ToolMissing     a program is not to be had
    |   +-- Unreachable     a system does not answer
    |   +-- Denied          a system answers, and refuses
    |   +-- NotFound        what was asked for is not there
    |   +-- WaitTimedOut    a bounded wait came to its end
    |   +-- NotPermitted    this run may not alter the target, or may no longer
    |   +-- Planned         it was asked what would be done, and nothing was
    +-- TargetRefused       this is not the target that was named, or it may not be touched
    +-- ToolFailed          a program ran and failed, or its claim of success did not hold
    +-- DamagedArtefact     a backup's bytes are not the bytes that were written
    +-- NotRecoverable      no base backup and WAL that are kept lead to the moment that was asked for
    +-- ProfileInvalid      a profile or an option cannot be understood
    +-- NoRoom              a disk is full, or would be

None of them is an ``AssertionError``: a check that *fails* asserts, in a step, so that pytest and Allure show it as
failed. A library error says that the work could not be carried out, and the scenario ends as unproven; the one
exception is `DamagedArtefact`, which *is* the finding that a drill is made for, so that steps report it as failed.

Every error says what was sought, where, why it failed, and what to do.
"""

from __future__ import annotations


class RunbookError(Exception):
    """The base of all errors of this library.

    :param sought: what was being looked for or done, as the object of a sentence: "the newest backup of tensafe"
    :param where: the place it was looked for: an endpoint, a path, a database
    :param why: the reason it failed, in the words of the system that knows
    :param remedy: what the reader can do about it, as an imperative sentence
    """

    says = "failed"

    def __init__(self, sought: str, *, where: str, why: str, remedy: str) -> None:
        self.sought = sought
        self.where = where
        self.why = why
        self.remedy = remedy
        super().__init__(sought, where, why, remedy)

    def __str__(self) -> str:
        """Return the whole story as one paragraph of plain text."""
        return f"{self.sought}, {self.where}: {self.says}: {self.why.rstrip('. ')}. To fix this: {self.remedy}"


class Unproven(RunbookError):
    """A precondition is missing, so that neither "holds" nor "does not hold" can be said."""

    says = "could not be checked"


class ToolMissing(Unproven):
    """A program is not to be had in the version that is needed."""

    says = "not to be had"


class Unreachable(Unproven):
    """A system does not answer."""

    says = "no answer"


class Denied(Unproven):
    """A system answers, and refuses."""

    says = "refused"


class NotFound(Unproven):
    """What was asked for is not there."""

    says = "not found"


class WaitTimedOut(Unproven):
    """A bounded wait came to its end; the reason says what was seen last."""

    says = "did not happen in time"


class NotPermitted(Unproven):
    """This run may not alter the target, or may no longer: a permit is missing, a window is closed, a halt is on."""

    says = "not permitted"


class Planned(Unproven):
    """It was asked what would be done; this says what, and nothing was done."""

    says = "planned, and not done"

    def __str__(self) -> str:
        """Return the plan alone: there is nothing to fix."""
        return f"{self.sought}, {self.where}: {self.says}:\n{self.why}"


class TargetRefused(RunbookError):
    """This is not the target that was named, or it may not be touched."""

    says = "refused to touch it"


class ToolFailed(RunbookError):
    """A program ran and failed, or its claim of success did not hold."""

    says = "failed"


class DamagedArtefact(RunbookError):
    """A backup's bytes are not the bytes that were written."""

    says = "damaged"


class NotRecoverable(RunbookError):
    """No base backup and WAL that are kept lead to the moment that was asked for; the remedy names those they do."""

    says = "cannot be recovered"


class ProfileInvalid(RunbookError):
    """A profile or an option cannot be understood."""

    says = "cannot be used"


class NoRoom(RunbookError):
    """A disk is full, or would be."""

    says = "no room"
