"""What is reachable, permitted or missing, told before anybody needs it.

Everything here is asked, and nothing is altered: rights are asked for, not tried out, and what cannot be known without
altering something is said to be unknown. It is the first thing to run with a new profile, and the thing to run when a
scenario ended as unproven.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from runbook_lib.environment import Environment
from runbook_lib.errors import RunbookError, TargetRefused
from runbook_lib.outcome import Outcome
from runbook_lib.reach import binaries, postgres
from runbook_lib.reach.kubernetes import Cluster
from runbook_lib.reach.postgres import Session
from runbook_lib.safety import journal
from runbook_lib.settings import KubernetesCluster

_COPIES = 2
"""A drill holds a dump and the database it makes of it."""
_GRANTED_SINCE = 150_000
"""The first server on which a single setting may be granted."""


@dataclass(frozen=True)
class Examined:
    """One thing that was looked at."""

    what: str
    """What: ``database``, ``kubernetes primary``."""
    outcome: Outcome
    """Whether it is as it should be."""
    says: str
    """What was found."""
    remedy: str = ""
    """What to do about it; empty where there is nothing to do."""


def examine(environment: Environment) -> Iterator[Examined]:
    """Look at everything that a profile names, one thing after the other; nothing raises, and nothing is altered."""
    settings = environment.settings
    yield _proven("profile", f"{settings.path or settings.name} is understood; the cluster is {settings.cluster_name}")
    yield from _guarded("database", lambda: _database(environment))
    yield from _guarded("kept", lambda: _kept(environment))
    yield from _guarded("programs", lambda: _programs(environment))
    yield from _guarded("backups", lambda: _backups(environment))
    yield from _guarded("room", lambda: _room(environment))
    for region, told in settings.kubernetes.regions.items():
        yield from _guarded(f"kubernetes {region}", partial(_cluster, environment, region, told))
    yield from _guarded("journal", lambda: _journal(environment))
    yield from _changes(environment)


def _database(environment: Environment) -> Iterator[Examined]:
    with environment.database() as session:
        server = session.server()
        yield _proven("database", f"PostgreSQL {server.version} answers, system identifier {server.system_identifier}")
        if not environment.settings.database.system_identifier:
            yield _unproven(
                "database",
                "the profile names no system identifier, so that any cluster will do",
                f'set system_identifier = "{server.system_identifier}" under [database] if this is the one',
            )
        yield from _rights(session)


def _rights(session: Session) -> Iterator[Examined]:
    row = session.row(postgres.load_sql(__package__, "rights"))
    who = f"the role {row['role']}"
    wanted = (
        ("reads_everything", "reads every table: backups and comparisons", "GRANT pg_read_all_data TO {role}"),
        ("monitors", "sees what every session does: checks before maintenance", "GRANT pg_monitor TO {role}"),
        ("reads_passwords", "reads the passwords' hashes: a backup of the roles with them", "back up as a superuser"),
        ("ends_sessions", "may end other sessions: fences and remedies", "GRANT pg_signal_backend TO {role}"),
        ("makes_databases", "may make databases: a restore beside the living one", "ALTER ROLE {role} CREATEDB"),
        ("owns_database", "may alter the database: a fence, a swap", "use the database's owner, or a superuser"),
    )
    for key, says, remedy in wanted:
        if row[key]:
            yield _proven("rights", f"{who} {says}")
        else:
            role = postgres.identifier(row["role"])
            yield _unproven("rights", f"{who} does not have what this needs: {says}", remedy.format(role=role))
    yield _may_merge(session, row["role"])


def _may_merge(session: Session, role: str) -> Examined:
    says = "may write rows without firing triggers (session_replication_role): merges into a living table"
    if session.value(postgres.load_sql(__package__, "rights_to_replicate", session.version_num)):
        return _proven("rights", f"the role {role} {says}")
    grant = f"GRANT SET ON PARAMETER session_replication_role TO {postgres.identifier(role)}"
    remedy = grant if session.version_num >= _GRANTED_SINCE else "merge as a superuser: before 15 it cannot be granted"
    return _unproven("rights", f"the role {role} does not have what this needs: {says}", remedy)


def _kept(environment: Environment) -> Iterator[Examined]:
    found = environment.kept()
    check = found.nothing_is_past_its_time
    if not check.findings:
        yield _proven("kept", f"{check.looked_at}: {check.question}")
    for finding in check.findings:
        yield _unproven("kept", f"{finding.subject}: {finding.says}", finding.remedy)


def _programs(environment: Environment) -> Iterator[Examined]:
    tools = binaries.find(environment.identity().major, directory=environment.tools_directory)
    yield _proven("programs", f"PostgreSQL {tools.version}: {tools.source}, {tools.bin}")


def _backups(environment: Environment) -> Iterator[Examined]:
    yield _proven("backups", f"last night's is there: {environment.last_nights_backup()}")


def _room(environment: Environment) -> Iterator[Examined]:
    folder = Path(environment.settings.restore.folder or tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    manifest = environment.last_nights_backup().manifest
    needed = _COPIES * manifest.database.bytes if manifest else 0
    told = f"{folder} has {free / 1e9:.1f} GB free; a drill takes about {needed / 1e9:.1f} GB"
    enough = free > needed
    yield _proven("room", told) if enough else _unproven("room", told, "name a folder with room as restore.folder")


def _cluster(environment: Environment, region: str, told: KubernetesCluster) -> Iterator[Examined]:
    what = f"kubernetes {region}"
    with environment.kubernetes(region) as cluster:
        yield _proven(what, f"{cluster} answers, {cluster.version()}, uid {cluster.identity()}")
        if not told.cluster_uid:
            yield _unproven(
                what,
                "the profile names no uid, so that any cluster will do",
                f'set cluster_uid = "{cluster.identity()}" under [kubernetes.{region}] if this is the one',
            )
        yield from _guarded(what, lambda: _api(cluster, told, what))
        pods = [pod.name for pod in cluster.pods(told.database_selector)]
        if pods:
            yield _proven(what, f"the database's pods are {', '.join(pods)}")
        else:
            yield _unproven(what, f"no pod is labelled {told.database_selector}", "correct database_selector")
        for verb, resource, subresource, group, need in (
            ("create", "pods", "exec", "", "commands in pods"),
            ("get", "pods", "log", "", "Patroni's log"),
            ("get", "configmaps", "", "", "a halt in a ConfigMap"),
            ("update", "deployments", "scale", "apps", "taking the application out of service"),
        ):
            name = f"{resource}/{subresource}" if subresource else resource
            if cluster.may(verb, resource, subresource=subresource, group=group):
                yield _proven(what, f"we may {verb} {name}: {need}")
            else:
                remedy = f"allow it in the namespace {told.namespace}, if {need} are wanted from here"
                yield _unproven(what, f"we may not {verb} {name}: {need}", remedy)


def _api(cluster: Cluster, told: KubernetesCluster, what: str) -> Iterator[Examined]:
    found = cluster.deployment(told.api_deployment)
    yield _proven(what, f"{told.api_deployment} has {found.ready_replicas} of {found.replicas} replicas ready")


def _journal(environment: Environment) -> Iterator[Examined]:
    folder = environment.settings.journal_folder
    left = [record for record in journal.read_all(folder) if record.outstanding] if folder.is_dir() else []
    for record in left:
        acts = "; ".join(entry.says for entry in record.outstanding)
        yield _unproven(
            "journal",
            f"the run of {record.header.by} at {record.header.at} left outstanding: {acts}",
            environment.settings.recover_command,
        )
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        yield _unproven("journal", f"{existing} is no folder", "name another folder as changes.journal")
    elif not os.access(existing, os.W_OK | os.X_OK):
        yield _unproven("journal", f"{existing} may not be written to", "name another folder as changes.journal")
    elif not left:
        yield _proven("journal", f"{folder}: nothing is outstanding")


def _changes(environment: Environment) -> Iterator[Examined]:
    permit = environment.permit
    if not permit.granted:
        yield _proven("changes", f"none are permitted to this command; {permit.reason}")
    elif not (why := permit.withheld()):
        yield _proven("changes", f"would be permitted now: {permit.reason}")
    if why := permit.withheld():
        yield _unproven("changes", f"would not be permitted now: {why}", "wait until they are")


def _guarded(what: str, look: Callable[[], Iterator[Examined]]) -> Iterator[Examined]:
    try:
        yield from look()
    except RunbookError as error:
        yield _of(what, error)
    except postgres.DriverError as error:
        yield _unproven(what, str(error).splitlines()[0], "look at the server's log, and ask again")
    except OSError as error:
        yield _unproven(what, f"{error.filename or ''}: {error.strerror}".lstrip(": "), "see that it can be read")


def _of(what: str, error: RunbookError) -> Examined:
    wrong = isinstance(error, TargetRefused)
    says = f"{error.sought}, {error.where}: {error.says}: {error.why}"
    return Examined(what, Outcome.FAILED if wrong else Outcome.UNPROVEN, says, error.remedy)


def _proven(what: str, says: str) -> Examined:
    return Examined(what, Outcome.PROVEN, says)


def _unproven(what: str, says: str, remedy: str) -> Examined:
    return Examined(what, Outcome.UNPROVEN, says, remedy)
