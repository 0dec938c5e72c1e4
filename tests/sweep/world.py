"""A world that outlives whoever is killed in it, and what it looks like from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from runbook_lib.backup import dump, inventory
from runbook_lib.backup.catalog import Archive
from runbook_lib.backup.inventory import Inventory
from runbook_lib.environment import Environment
from runbook_lib.reach import postgres
from runbook_lib.reach.binaries import find
from runbook_lib.reach.kubernetes import Cluster
from runbook_lib.reach.objects import Bucket
from runbook_lib.reach.server import FAST, PostgresServer
from runbook_lib.reach.workspace import Workspace
from runbook_lib.restore import swap
from runbook_lib.restore.scratch import Scratch
from runbook_lib.restore.staging import StageRows
from runbook_lib.restore.swap import KEPT_UNTIL
from runbook_lib.restore.table_backup import RestoredTable
from runbook_lib.safety import journal
from runbook_lib.safety.permit import Asked, Permit
from runbook_lib.sandbox.kubernetes.api import KubernetesApi
from runbook_lib.sandbox.kubernetes.topology import Topology, Workload
from runbook_lib.sandbox.object_store import ObjectStore
from runbook_lib.settings import load
from runbook_lib.waiting import wait_for
from tests.backup import real
from tests.bad_input.running import PROJECT, environment

CLUSTER = "sweep-cluster"
UID = "0f0f0f0f-1111-2222-3333-444444444444"
REPLICAS = 2
POD = ("sh", "-c", "echo ready > /dev/fd/$READINESS_FD; exec cat")
"""A pod that is ready at once and ends with its standard input."""
KEPT = ("tensafe_old_20200101_120000", "runbook_feed")
"""What `World.keep` has kept: a database that was replaced, and the schema of a merge."""
_LONG_AGO = "2020-01-08T12:00:00+00:00"
_ANSWER_SECONDS = 120.0
_PERMIT = Permit("the sweep's own archive", granted=True, reason="the test made it")


@dataclass(frozen=True)
class Look:
    """The world at one moment, as far as a procedure could have altered it."""

    replicas: tuple[int, int]
    """How many pods the application is to have, and how many are ready."""
    doors: tuple[tuple[str, bool], ...]
    """Every database, and whether it lets anybody in."""
    content: Inventory
    """Everything that the database holds."""
    objects: frozenset[tuple[str, str, int]]
    """Every version of every object in the bucket."""
    unfinished: tuple[str, ...]
    """The keys of uploads that nobody ended."""
    outstanding: tuple[str, ...]
    """The acts that a journal says may still have to be taken back."""


@dataclass
class World:
    """The systems that a profile leads to, and the operator."""

    server: PostgresServer
    bucket: Bucket
    store: ObjectStore
    api: KubernetesApi
    folder: Path
    runner: subprocess.Popen[str]
    profile: Path
    surroundings: dict[str, str] = field(repr=False)
    place: Scratch
    restored: RestoredTable | None = None

    @property
    def archive(self) -> Archive:
        return Archive(self.bucket)

    def run(self, procedure: str, *, kill_at: int = 0) -> dict[str, Any]:
        """Run a procedure in a process of its own, up to a position of its journal; 0 for to its end."""
        return self._ask({"procedure": procedure, "profile": str(self.profile), "kill_at": kill_at})

    def _ask(self, told: dict[str, Any]) -> dict[str, Any]:
        stdin, stdout = _pipe(self.runner.stdin), _pipe(self.runner.stdout)
        stdin.write(json.dumps(told) + "\n")
        stdin.flush()
        answer = stdout.readline()
        assert answer, "the runner is gone"
        found: dict[str, Any] = json.loads(answer)
        return found

    def recover(self) -> tuple[int, str]:
        """Type what a user types after a kill; return exit status and output."""
        ran = subprocess.run(
            [sys.executable, "-m", "runbook_lib", "recover", "--env", str(self.profile)],
            cwd=PROJECT,
            env=self.surroundings,
            capture_output=True,
            text=True,
            timeout=_ANSWER_SECONDS,
            check=False,
        )
        return ran.returncode, ran.stdout + ran.stderr

    def recover_again(self) -> tuple[int, str]:
        """The same once more, in a process that is forked from one that has imported everything already."""
        answer = self._ask({"recover": str(self.profile)})
        return int(answer["status"]), str(answer["said"])

    def look(self, *, besides: int = 0) -> Look:
        """Look at everything, once nobody is connected any more.

        :param besides: the server process of a session that may be
        """
        with postgres.session(self.server.dsn()) as session:
            wait_for(
                "our sessions to be gone",
                lambda: session.rows(
                    "SELECT pid, application_name, query FROM pg_stat_activity"
                    " WHERE pid NOT IN (pg_backend_pid(), %s) AND backend_type = 'client backend'",
                    besides,
                ),
                where="the sweep's server",
                within_seconds=30,
                until=lambda found: found == [],
            )
            doors = session.rows("SELECT datname, datallowconn FROM pg_database ORDER BY 1")
        dsn = self.server.dsn("tensafe")
        with self.cluster() as cluster:
            found = cluster.deployment("tensafe-api")
        return Look(
            replicas=(found.replicas, found.ready_replicas),
            doors=tuple((row["datname"], row["datallowconn"]) for row in doors),
            content=_without_sizes(inventory.take(lambda: postgres.session(dsn), workers=1))
            if ("tensafe", True) in [(row["datname"], row["datallowconn"]) for row in doors]
            else _NOTHING,
            objects=frozenset((each.key, each.version_id, each.bytes) for each in self.bucket.versions()),
            unfinished=tuple(self.bucket.unfinished_uploads()),
            outstanding=tuple(
                entry.says for record in journal.read_all(self.folder / "journal") for entry in record.outstanding
            ),
        )

    def cluster(self, *, read_only: bool = True) -> Cluster:
        return Cluster.connect(CLUSTER, namespace="tensafe", kubeconfig=str(self.api.kubeconfig), read_only=read_only)

    def forget_backup(self, before: Look, after: Look) -> Look:
        """Take the one new backup away, once it is seen to be whole; return what the world is without it."""
        new = {each for each in after.objects if each not in before.objects}
        taken = self.archive.newest(kind="manual")
        stem = taken.dump.key.removesuffix(".dump")
        assert taken.manifest is not None
        assert {key for key, _, _ in new} == {f"{stem}{end}" for end in (".dump", ".globals.sql", ".manifest")}
        for key, version, _ in new:
            self.bucket.remove(key, version)
        return replace(after, objects=after.objects - new)

    def forget_replaced(self, before: Look, after: Look) -> Look:
        """Drop the one database that was replaced, once it is seen to be shut; return what the world is without it."""
        new = [door for door in after.doors if door not in before.doors]
        assert [(name.startswith("tensafe_old_"), allows) for name, allows in new] == [(True, False)], new
        with postgres.session(self.server.dsn(), read_only=False) as session:
            session.execute(f"DROP DATABASE {postgres.identifier(new[0][0])}")
        return replace(after, doors=tuple(door for door in after.doors if door not in new))

    def merge(self) -> None:
        """Have the rows that are lost merged back, and see that they are there."""
        environment = self._operator()
        if self.restored is None:
            held = environment.table_backup(environment.last_nights_backup(), "training_clients")
            self.restored = environment.restore_table_into_scratch(held, "tensafe_table", self.place)
        environment.merge(environment.review(self.restored), self.restored, changed_too=True)
        assert self._lost() == 0

    def take_merge_back(self) -> Look:
        """Have the one merge taken back, once it is seen to be there; return what the world is without it."""
        assert self._lost() == 0
        environment = self._operator()
        environment.take_merge_back(environment.merged_last())
        return self.look()

    def keep(self) -> None:
        """Have a full restore and a merge of long ago keep something."""
        with postgres.session(self.server.dsn(), read_only=False) as session:
            session.execute(f"CREATE DATABASE {KEPT[0]} TEMPLATE template0 STRATEGY file_copy")
            session.execute(f"ALTER DATABASE {KEPT[0]} SET {KEPT_UNTIL} = '{_LONG_AGO}'")
            session.execute(f"ALTER DATABASE {KEPT[0]} ALLOW_CONNECTIONS false")
        act, systems = (
            StageRows("feed", "public.training_clients", ("id",), _LONG_AGO, _LONG_AGO),
            self._operator().systems,
        )
        act.do(systems, act.look(systems))

    def kept(self) -> set[str]:
        """What of it is there, as it was made."""
        with self._operator().systems.control(read_only=True) as session:
            found = {each.name for each in swap.kept(session) if each.until == _LONG_AGO and not each.allows}
        return found | (set(self._operator().kept().names) & {KEPT[1]})

    def drop_kept(self) -> Look:
        """Have it dropped; return what the world is without it."""
        self._operator().drop_kept(self._operator().kept())
        return self.look()

    def _operator(self) -> Environment:
        """Return what an operator acts on, in this process."""
        settings = load(str(self.profile))
        return replace(Environment.of(settings, asked=Asked(settings.cluster_name, "the sweep")), archive=self.archive)

    def _lost(self) -> int:
        """Count what a disaster did to the clients."""
        with postgres.session(self.server.dsn("tensafe")) as session:
            query = "SELECT 5000 - count(*) FROM public.training_clients WHERE word = md5(id::text)"
            return int(session.value(query))


_NOTHING = Inventory("", "", (), (), None, ())


def _without_sizes(taken: Inventory) -> Inventory:
    """Leave out how many bytes a table takes on the disk: a copy of it takes others."""
    return replace(taken, tables=tuple(replace(table, bytes=0) for table in taken.tables))


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


@contextmanager
def opened() -> Iterator[World]:
    """Build the world, and take it down at the end."""
    with (
        tempfile.TemporaryDirectory(prefix="sweep", dir="/tmp") as temporary,
        Workspace.open() as workspace,
        Scratch.open() as place,
    ):
        folder = Path(temporary)
        folder.chmod(0o711)  # the restore's own private folder lies in it, and its account has to pass
        workload = Workload("tensafe-api", POD, str(workspace.folder("pods")), replicas=REPLICAS)
        api = KubernetesApi.launch(workspace, [Topology(CLUSTER, UID, "tensafe", workloads=(workload,))])
        settings = {**FAST, "wal_level": "replica", "shared_buffers": "32MB"}
        server = PostgresServer.start(workspace, find(17), settings=settings)
        store = ObjectStore.start(workspace)
        bucket = real.bucket_in(store)
        with postgres.session(server.dsn(), read_only=False) as session:
            session.execute("CREATE DATABASE tensafe")
            identifier = session.server().system_identifier
        with postgres.session(server.dsn("tensafe"), read_only=False) as session:
            session.execute("CREATE TABLE public.training_clients (id int PRIMARY KEY, word text)")
            session.execute(
                "INSERT INTO public.training_clients SELECT n, md5(n::text) FROM generate_series(1, 5000) n"
            )
            session.execute("CREATE SEQUENCE public.numbers")
        dump.take(server.dsn("tensafe"), Archive(bucket), permit=_PERMIT, kind="daily")
        api.await_ready()
        with Cluster.connect(CLUSTER, namespace="tensafe", kubeconfig=str(api.kubeconfig)) as cluster:
            cluster.wait_for_replicas("tensafe-api", REPLICAS, within_seconds=60)
        surroundings = environment(folder, AWS_ACCESS_KEY_ID=store.access_key, AWS_SECRET_ACCESS_KEY=store.secret_key)
        profile = folder / "sweep.toml"
        profile.write_text(
            f"""
name = "sweep"
cluster = "tensafe-sweep"
[database]
dsn = "{server.dsn("tensafe")}"
system_identifier = "{identifier}"
[backups]
bucket = "{bucket.name}"
endpoint_url = "{store.endpoint_url}"
region = "{store.region}"
[kubernetes]
ready_within_seconds = 60
[kubernetes.primary]
context = "{CLUSTER}"
cluster_uid = "{UID}"
kubeconfig = "{api.kubeconfig}"
[changes]
journal = "{folder / "journal"}"
"""
        )
        runner = subprocess.Popen(
            [sys.executable, "-m", "tests.sweep.runner"],
            cwd=PROJECT,
            env={**surroundings, "PYTHONPATH": os.pathsep.join(("", str(PROJECT)))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield World(server, bucket, store, api, folder, runner, profile, surroundings, place)
        finally:
            with runner:
                runner.kill()
            api.stop()
            server.stop()
            store.stop()
