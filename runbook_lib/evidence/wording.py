"""Numbers as people read them: ``12.4 s``, ``1 h 05 min``, ``3.4 GB``."""

from __future__ import annotations

from runbook_lib.phases import Progress

_SIZES = ("bytes", "kB", "MB", "GB", "TB", "PB")


def duration(seconds: float) -> str:
    """Return a length of time in the two units that matter: ``0.4 s``, ``2 min 05 s``, ``1 h 05 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if seconds < 3599.5:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02d} s" if rest else f"{minutes} min"
    hours, rest = divmod(round(seconds / 60), 60)
    return f"{hours} h {rest:02d} min" if rest else f"{hours} h"


def size(count: int) -> str:
    """Return a number of bytes in decimal units: ``3.4 GB``."""
    amount, unit = float(count), 0
    while amount >= 999.5 and unit < len(_SIZES) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{amount:.1f} {_SIZES[unit]}" if unit and amount < 99.95 else f"{amount:.0f} {_SIZES[unit]}"


def progress(seen: Progress) -> str:
    """Return how far a phase is: ``restore data: 1.2 GB of 3.4 GB (35 %), public.audit_logs``."""

    def amount(count: int) -> str:
        return size(count) if seen.unit == "bytes" else f"{count:,} {seen.unit}"

    far = amount(seen.done)
    if seen.total:
        of = amount(seen.total)
        if seen.unit != "bytes":
            far = f"{seen.done:,}"
        far = f"{far} of {of} ({min(100, 100 * seen.done // seen.total)} %)"
    return f"{seen.phase}: {far}" + (f", {seen.detail}" if seen.detail else "")
