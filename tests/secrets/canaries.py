"""Values that must not be told, each unmistakable, and the looking for them.

A canary is found by its stem, in any case: a text that was cut short still gives it away. It is looked for as it is,
and as hexadecimal and base64, which is how bytea, dumps of memory and headers write it.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Canary:
    """One value that was planted somewhere."""

    stem: str
    """What it begins with, or all of it where somebody else made it: enough to know it by."""
    value: str
    """All of it."""

    @classmethod
    def new(cls, name: str) -> Canary:
        return cls(f"Canary0{name}", f"Canary0{name}0{secrets.token_hex(8)}")

    @property
    def forms(self) -> Iterator[bytes]:
        """How it can be written; base64 at each of its three alignments, without what the neighbours mix into."""
        stem = self.stem.encode()
        yield stem.lower()
        yield stem.hex().encode()
        for shift in range(3):
            yield base64.b64encode(b"\0" * shift + stem)[4 if shift else 0 : -4].lower()


@dataclass(frozen=True)
class Canaries:
    """All that was planted, by name; a new one is made when it is first asked for."""

    known: dict[str, Canary] = field(default_factory=dict)

    def __getitem__(self, name: str) -> str:
        return self.known.setdefault(name, Canary.new(name)).value

    def add(self, name: str, value: str) -> None:
        """Take somebody else's secret for a canary."""
        self.known[name] = Canary(value, value)

    def found_in(self, places: Mapping[str, bytes], *, but: Iterable[str] = ()) -> list[str]:
        """Return every canary that is told anywhere, as ``name in place``."""
        looked_for = {name: list(canary.forms) for name, canary in self.known.items() if name not in set(but)}
        return [
            f"{name} in {place}"
            for place, told in places.items()
            for name, forms in looked_for.items()
            if any(form in lower for lower in (told.lower(),) for form in forms)
        ]
