"""A database like TenSafe's, with everything in it that breaks naive restores.

A drill is worth what it is practised on. So this database has, beside the application's tables and its hash-chained
audit log, at least one of every kind of thing that a dump, a restore or a comparison is known to lose, to change, or to
take for a difference where there is none. Every SQL file is named after what it makes and says what it is a trap for.
"""

from runbook_lib.sandbox.tensafe.build import build

__all__ = ["build"]
