"""How soon a cluster of three members is up, beside Patroni's own bootstrap of the same one.

Patroni's arm is its documentation's: the first member runs initdb, the others take base backups of it, with the
settings, the etcd and the waiting of ours.
"""

from __future__ import annotations

import pwd
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from runbook_lib.phases import Stopwatch
from runbook_lib.reach import binaries, programs
from runbook_lib.reach.workspace import Account, Workspace
from runbook_lib.sandbox import interpreter
from runbook_lib.sandbox.patroni.cluster import PatroniCluster
from runbook_lib.sandbox.patroni.member import Member

MAJOR = 17
PROMISED = 1.3


class BootstrappingMember(Member):
    """A member that may have to run initdb, which wants an account with a name."""

    def start(self) -> None:
        if self.workspace.account is None:
            super().start()
            return
        nobody = pwd.getpwnam("nobody")
        programs.run(["chown", "-R", f"{nobody.pw_uid}:{nobody.pw_gid}", self.folder], sought="", timeout_seconds=60)
        reads = "+dac_read_search"
        command = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
        command += [f"--inh-caps={reads}", f"--ambient-caps={reads}", "--", *interpreter.argv("patroni")]
        self._process = self.workspace.start(
            [*command, self.configuration],
            log=self.patroni_log,
            env={**interpreter.environment(), "HOME": str(self.folder), "TMPDIR": str(self.folder)},
            account=Account(0, 0),
        )


class BootstrappedCluster(PatroniCluster):
    """A cluster that is made as the documentation says: one member after the other, by Patroni alone."""

    def _start(self, follows: PatroniCluster | None, initdb_args: Sequence[str], stopwatch: Stopwatch) -> None:
        initdb = ["data-checksums", "no-sync", {"encoding": "UTF8"}, {"locale": "C.UTF-8"}]
        bootstrap = {"dcs": self._shared_configuration(follows), "initdb": initdb}
        self.etcd.await_ready()
        for member in self.members:
            member.__class__ = BootstrappingMember
            member.configure({**self._configuration(member), "bootstrap": bootstrap})
        first, *others = self.members
        first.start()
        self.await_leader(within_seconds=60)
        for member in others:
            member.start()
        self.await_steady(within_seconds=60)


@contextmanager
def timed(kind: type[PatroniCluster]) -> Iterator[float]:
    """Yield how long a cluster took to be up, in seconds."""
    with Workspace.open() as workspace:
        began = time.monotonic()
        with kind.up(workspace, binaries.find(MAJOR)):
            yield time.monotonic() - began


def main(rounds: int) -> None:
    """Print our time divided by Patroni's, round by round, the two arms taking turns at being first."""
    ratios = []
    for number in range(rounds):
        seconds: dict[type[PatroniCluster], float] = {}
        for kind in (PatroniCluster, BootstrappedCluster)[:: -1 if number % 2 else 1]:
            with timed(kind) as taken:
                seconds[kind] = taken
        ratios.append(seconds[PatroniCluster] / seconds[BootstrappedCluster])
    median = statistics.median(ratios)
    print(
        f"a cluster of three is up, beside Patroni's own bootstrap: {median:.2f} ({min(ratios):.2f} .. "
        f"{max(ratios):.2f}), promised at most {PROMISED}: {'kept' if median <= PROMISED else 'NOT KEPT'}"
    )


if __name__ == "__main__":
    main(rounds=3)
