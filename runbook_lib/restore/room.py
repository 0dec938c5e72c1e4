"""Is there room on the database's own disk?

A restore beside the living database needs room for a second copy of it, and a full disk stops the living one too. SQL
has no way to ask for free space, so it is asked in the pod, where there is one.
"""

from __future__ import annotations

from runbook_lib.outcome import Check, Finding, Outcome
from runbook_lib.reach.kubernetes import Cluster
from runbook_lib.reach.postgres import Session

_COPIES = 1.2
"""The copy, and its indexes while they are built."""
_ASK_SECONDS = 30.0


def room_for_a_copy(session: Session, cluster: Cluster, *, selector: str, container: str, needed_bytes: int) -> Check:
    """Compare what is free where the data directory is with what a second copy takes.

    :param cluster: through a client that may run commands in pods
    :param selector: selects the database's pods; the one that the session's server runs in is recognised by its data
        directory
    :param needed_bytes: the size of the database that is restored
    """
    question, needed = "there is room for a copy of it", round(needed_bytes * _COPIES)
    folder = session.value("SELECT current_setting('data_directory')")
    for pod in cluster.pods(selector):
        asked = cluster.exec(
            pod.name,
            ["df", "--block-size=1", "--output=avail", folder],
            container=container,
            timeout_seconds=_ASK_SECONDS,
            sought=f"how much is free in {folder}",
        )
        lines = asked.stdout.split()
        if not asked.succeeded or len(lines) < 2 or not lines[-1].isdigit():
            continue
        free = int(lines[-1])
        looked_at = f"{free / 1e9:.1f} GB free in {folder} of {pod.name}, {needed / 1e9:.1f} GB needed"
        findings = () if free > needed else (Finding("room.disk", pod.name, looked_at, remedy="enlarge its volume"),)
        return Check(question, str(cluster), looked_at, findings)
    finding = Finding(
        "room.disk",
        folder,
        "no pod of the database could be asked how much is free",
        Outcome.UNPROVEN,
        "allow commands in the database's pods (pods/exec), or correct database_selector in the profile",
    )
    return Check(question, str(cluster), "no pod", (finding,))
