"""Keeps secrets out of whatever is told of a run.

Library code does not put secrets into its errors; the programs and servers that it quotes might. So every text passes
here before it reaches a terminal's log, a report or an attachment.
"""

from __future__ import annotations

import re

HIDDEN = "***"
"""What stands in a secret's place."""

_NAME = r"[\w-]*(?:pass(?:word|wd|phrase)|pwd|secret|token|(?:access|api)[_-]?key|credential|signature)[\w-]*"

_SHAPES = (
    # scheme://user:password@host
    (re.compile(r"(?<=://)([^\s/:@]+):[^\s/@]+(?=@)"), rf"\1:{HIDDEN}"),
    # password=..., "secret_key": "...", X-Amz-Signature=...
    (
        re.compile(rf"(?i)(?<![\w-])({_NAME}[\"']?\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^\s\"'&,;)}}\]]+)"),
        rf"\g<1>{HIDDEN}",
    ),
    # Authorization: Bearer ...
    (re.compile(r"(?i)(authorization\s*:\s*\w+\s+|\bbearer\s+)[A-Za-z0-9+/=._~-]{8,}"), rf"\g<1>{HIDDEN}"),
    # AWS access key ids
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), HIDDEN),
)


def redacted(text: str) -> str:
    """Return a text with everything that looks like a secret hidden."""
    for shape, instead in _SHAPES:
        text = shape.sub(instead, text)
    return text


def redacted_value(name: str, value: object) -> str:
    """Return a named value as text; hidden altogether where the name says that it is a secret."""
    return HIDDEN if re.fullmatch(rf"(?i){_NAME}", name) and value not in (None, "") else redacted(str(value))
