"""The sandbox in a container proves and finds what the other does, says so where it cannot, and leaves nothing."""

from __future__ import annotations

import io
import os
import platform
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import docker
import psycopg
import pytest
from docker.models.containers import Container
from psycopg.conninfo import conninfo_to_dict
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.config import ConnectionMode, testcontainers_config

from runbook_lib.environment import Environment
from runbook_lib.errors import Denied, TargetRefused, ToolFailed
from runbook_lib.reach import binaries, postgres
from runbook_lib.reach.workspace import Workspace, sweep
from runbook_lib.restore.restored import RestoredDatabase
from runbook_lib.sandbox import engine
from runbook_lib.sandbox.containers import LABEL, LEASED, ContainerServer, in_a_container
from runbook_lib.sandbox.sandbox import Sandbox, primary
from runbook_lib.settings import Settings
from runbook_lib.waiting import wait_for
from tests.bad_input.running import PROJECT, environment, processes_with, runbook
from tests.deploy.engines import ENGINE, NOWHERE, VARIABLES, private, short_folder, some_engine
from tests.detection.mutation import Mutation
from tests.detection.mutations_content import ROWS
from tests.detection.place import findings_of, mutated, twin

MAJOR = 17
SCALE = "0.02"
GONE_SECONDS = 90
REACHED_SECONDS = 90
A_ROW_LOST = next(each for each in ROWS if each.name == "one row lost")
A_GRANT_LOST = Mutation(
    "a grant lost",
    0,
    "REVOKE SELECT ON public.training_clients FROM tensafe_readonly",
    ("catalog.grant*public.training_clients*",),
)


@pytest.fixture
def short() -> Iterator[Path]:
    with short_folder() as made:
        yield made


WITHOUT_AN_ARCHIVE = {"The WAL archive is continuous", "There is a base backup to recover from"}
"""What cannot be proven of a server that archives to a folder of its own container."""


class TestWithoutAnEngine:
    @pytest.mark.parametrize("kind", ["missing", "dead", "deaf", "refusing"])
    def test_every_scenario_is_unproven_and_says_so(self, short: Path, kind: str) -> None:
        path, why = short / "docker.sock", "No such file or directory"
        with ExitStack() as stack:
            host = f"unix://{path}"
            if kind in {"dead", "deaf"}:
                listening = stack.enter_context(socket.socket(socket.AF_UNIX))
                listening.bind(str(path))
                why = "Connection refused"
            if kind == "deaf":
                listening.listen()
                why = "timed out"
            if kind == "refusing":
                with socket.create_server(("127.0.0.1", 0)) as taken:
                    host = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
                why = "Connection refused"
            (short / "t").mkdir()
            ran = runbook(
                *("features/backup", "-m", "weekly or reads", "--env", "containers"),
                reports=short / "reports",
                env=environment(short / "t", DOCKER_HOST=host),
            )
        assert (ran.exit_code, ran.outcome) == (5, "unproven"), ran.output
        assert len(ran.reasons) == len(ran.summary["scenarios"]) > 3
        for reason in ran.reasons:
            assert reason.startswith(f"a Docker engine, {host}: no answer: ")
            assert why in reason
            assert "To fix this: start Docker" in reason
        assert "Traceback" not in ran.output
        assert list((short / "t").iterdir()) == []
        assert ran.summary["seconds"] < 30, ran.summary


@private
class TestWithoutARegistry:
    def test_a_base_image_that_is_not_to_be_had_is_told(self, short: Path) -> None:
        reports, temporary = short / "reports", short / "t"
        temporary.mkdir()
        path = os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"])  # debootstrap is in /usr/sbin
        ran = subprocess.run(
            [
                *(sys.executable, str(ENGINE), "--folder", str(short / "engine"), "--", "env", f"PATH={path}"),
                *(sys.executable, "-m", "pytest", "features/backup", "-m", "reads", "--env", "containers"),
                *("--reports", str(reports)),
            ],
            cwd=PROJECT,
            env=environment(
                temporary, DOCKER_HOST=NOWHERE, TESTCONTAINERS_HUB_IMAGE_NAME_PREFIX="127.0.0.1:9/", CI="false"
            ),
            capture_output=True,
            text=True,
            timeout=REACHED_SECONDS,
            check=False,
        )
        assert ran.returncode == 5, ran.stdout + ran.stderr
        assert "the base image 127.0.0.1:9/debian:bookworm-slim, unix://" in ran.stdout
        assert "and cannot be made here: debootstrap is not installed. To fix this: let the engine reach" in ran.stdout
        assert "Traceback" not in ran.stdout
        assert list(temporary.iterdir()) == []


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    """An engine, with this process set up for it."""
    with some_engine() as told, pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        for name, value in told.items():
            patch.setenv(name, value)
        # testcontainers looked at its variables when it was imported.
        patch.setattr(testcontainers_config, "tc_host_override", told.get(VARIABLES[1]))
        mode = told.get(VARIABLES[2])
        patch.setattr(testcontainers_config, "connection_mode_override", ConnectionMode(mode) if mode else None)
        yield stack.enter_context(engine.connected())


@pytest.fixture(scope="module")
def sandbox(client: docker.DockerClient) -> Iterator[Sandbox]:
    with Sandbox.up(major=MAJOR, scale=float(SCALE), name="containers", serving=in_a_container) as up:
        yield up


@pytest.fixture(scope="module")
def server(sandbox: Sandbox) -> ContainerServer:
    assert isinstance(sandbox.server, ContainerServer)
    return sandbox.server


@pytest.fixture(scope="module")
def restored(sandbox: Sandbox) -> Iterator[RestoredDatabase]:
    reached = Environment.of(sandbox.settings)
    with reached.scratch() as place:
        restored = reached.restore_into_scratch(reached.last_nights_backup(), "tensafe_verify", place)
        assert restored.restored.holds(), restored.restored.explain()
        yield restored
        restored.remove()


class TestSandbox:
    def test_proves_a_healthy_copy(self, restored: RestoredDatabase) -> None:
        with twin(restored, "twin") as copy, mutated(copy, ()):
            assert findings_of(copy) == []

    @pytest.mark.parametrize("fault", [A_ROW_LOST, A_GRANT_LOST], ids=lambda fault: fault.name)
    def test_finds_a_planted_fault_and_nothing_else(self, restored: RestoredDatabase, fault: Mutation) -> None:
        with twin(restored, "twin") as copy, mutated(copy, [fault]):
            findings = findings_of(copy)
        assert fault.missed(findings) == [], [str(finding) for finding in findings]
        assert [str(finding) for finding in findings if not fault.explains(finding)] == []

    def test_is_an_ordinary_profile_without_a_password(self, sandbox: Sandbox) -> None:
        settings = sandbox.settings
        assert isinstance(settings, Settings)
        assert settings.name == "containers"
        assert not postgres.holds_password(settings.database.dsn)
        parts = conninfo_to_dict(settings.database.dsn)
        password_file = Path(str(parts["passfile"]))
        assert password_file.stat().st_mode & 0o777 == 0o600
        secret = password_file.read_text().strip().rpartition(":")[2]
        assert len(secret) > 20
        assert secret not in repr(settings)

    def test_lets_nobody_in_without_the_password(self, sandbox: Sandbox) -> None:
        dsn = f"{sandbox.settings.database.dsn} passfile=/nonexistent"
        with pytest.raises(Denied, match="no password supplied"), postgres.session(dsn):
            pass

    def test_names_the_cluster_that_it_is(self, sandbox: Sandbox) -> None:
        with Environment.of(sandbox.settings).database() as session:
            assert session.server().system_identifier == sandbox.settings.database.system_identifier
        other = replace(sandbox.settings.database, system_identifier="1")
        with pytest.raises(TargetRefused):
            Environment.of(replace(sandbox.settings, database=other)).identity()

    def test_serves_the_very_version_that_is_pinned(self, sandbox: Sandbox) -> None:
        with postgres.session(sandbox.settings.database.dsn) as session:
            found = session.server().version
        assert found == binaries.for_linux(MAJOR, platform.machine()).version

    def test_opens_its_port_to_this_machine_only(self, client: docker.DockerClient, server: ContainerServer) -> None:
        if server.host != "127.0.0.1":
            pytest.skip(f"the engine is elsewhere: {server.host}")
        bound = server.container.get_wrapped_container().ports["5432/tcp"]
        assert {each["HostIp"] for each in bound} == {"127.0.0.1"}


class TestServer:
    def test_that_does_not_come_up_is_told_with_its_log(
        self, client: docker.DockerClient, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = traces(client)
        wrong = {**primary(), "no_such_setting": "on"}
        monkeypatch.setattr("runbook_lib.sandbox.containers.primary", lambda: wrong)
        with (
            Workspace.open() as workspace,
            pytest.raises(ToolFailed, match='unrecognized configuration parameter "no_such_setting"') as told,
            in_a_container(sandbox.server.tools, workspace),
        ):
            pytest.fail("it cannot have come up")
        assert "its container has ended" in told.value.why
        assert traces(client) == before


def test_what_the_image_is_built_from_is_written_for_docker_to_read() -> None:
    written = subprocess.run(
        [sys.executable, "-m", "runbook_lib.sandbox.images", str(MAJOR)], cwd=PROJECT, capture_output=True, check=True
    ).stdout
    assert tarfile.TarInfo.frombuf(written[:512], "utf-8", "strict").isfile()  # docker looks at the first block alone
    with tarfile.open(fileobj=io.BytesIO(written)) as context:
        found = {member.name: member for member in context}
    assert {"Dockerfile", "entrypoint", "libraries.txt", "programs/bin/postgres", "programs/bin/psql"} < found.keys()
    assert found["entrypoint"].mode & 0o555 == 0o555
    assert {(member.uid, member.gid) for member in found.values()} == {(0, 0)}
    assert all(member.mode & 0o044 == 0o044 for member in found.values() if member.isfile())


class TestImage:
    def test_understands_what_the_official_one_does(self, server: ContainerServer) -> None:
        official = PostgresContainer("unused", username="someone", password="it's", dbname="odd", driver=None)
        official.image = server.container.image
        with official, psycopg.connect(official.get_connection_url()) as connection:
            asked = connection.execute(
                "SELECT current_user, current_database(), usesuper FROM pg_user WHERE usename = current_user"
            )
            assert asked.fetchone() == ("someone", "odd", True)
            wrong = official.get_connection_url().replace("it%27s", "its")
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                psycopg.connect(wrong)

    def test_ends_when_the_lease_ended_between_two_looks(
        self, client: docker.DockerClient, server: ContainerServer
    ) -> None:
        with serving_alone(client, server.container.image, lease_seconds=1000) as alone:
            wait_for(
                "the server to take the mark of a lease",
                lambda: alone.exec_run(["psql", "-Upostgres", "-c", LEASED]).exit_code,
                until=lambda code: code == 0,
                where=engine.address(),
                within_seconds=GONE_SECONDS,
            )
            gone(client, {"id": alone.id})

    def test_ends_when_nobody_came_to_hold_the_lease(
        self, client: docker.DockerClient, server: ContainerServer
    ) -> None:
        with serving_alone(client, server.container.image, lease_seconds=3) as alone:
            gone(client, {"id": alone.id})


@contextmanager
def serving_alone(client: docker.DockerClient, image: str, *, lease_seconds: int) -> Iterator[Container]:
    """Run a server that nobody holds a lease of."""
    alone = client.containers.run(
        image,
        detach=True,
        auto_remove=True,
        environment={"POSTGRES_PASSWORD": "any", "RUNBOOK_LEASE_SECONDS": str(lease_seconds)},
        labels={LABEL: "alone"},
    )
    try:
        yield alone
    finally:
        for left in client.containers.list(all=True, filters={"id": alone.id}):
            left.remove(force=True)


def gone(client: docker.DockerClient, filters: dict[str, str]) -> None:
    wait_for(
        "the container to be gone",
        lambda: client.containers.list(all=True, filters=filters, ignore_removed=True),
        until=lambda left: not left,
        where=engine.address(),
        within_seconds=GONE_SECONDS,
        every_seconds=0.3,
    )


@contextmanager
def loading(short: Path, env: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run the runbook in a process of its own, and hand it out while psql loads its database, which does not end."""
    (short / "slow.sql").write_text("CREATE TABLE public.t (n int); SELECT pg_sleep(1000);")
    log = short / "log"
    with log.open("wb") as opened:
        runner = subprocess.Popen(
            [
                *(sys.executable, "-m", "pytest", "features/backup", "-m", "reads", "--env", "containers"),
                *("--database", str(short / "slow.sql"), "--reports", str(short / "reports")),
            ],
            cwd=PROJECT,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=opened,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for(
            "psql to load the database",
            lambda: runner.poll() is not None or processes_running("psql", env["TMPDIR"]),
            where=str(log),
            within_seconds=REACHED_SECONDS,
        )
        assert runner.poll() is None, log.read_text()
        yield runner
    finally:
        runner.kill()
        runner.wait()


def processes_running(program: str, folder: str) -> list[int]:
    """The processes that run a program and name a folder in their arguments or live in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            argv = (process / "cmdline").read_bytes()
            inside = str((process / "cwd").readlink()).startswith(f"{folder}/")
        except OSError:
            continue
        if Path(os.fsdecode(argv.split(b"\0")[0])).name == program and (inside or os.fsencode(folder) in argv):
            found.append(int(process.name))
    return found


def traces(client: docker.DockerClient) -> dict[str, set[str]]:
    return {
        "containers": {each.id for each in client.containers.list(all=True, ignore_removed=True)},
        "volumes": {each.id for each in client.volumes.list()},
        "networks": {each.id for each in client.networks.list()},
        "images": {each.id for each in client.images.list(all=True)},
    }


class TestRuns:
    def test_the_runbook_is_proven_and_nothing_is_left(
        self, client: docker.DockerClient, sandbox: Sandbox, short: Path
    ) -> None:
        before = traces(client)
        (short / "t").mkdir()
        ran = runbook(
            *("features/backup", "-m", "weekly or reads", "--env", "containers", "--scale", SCALE),
            reports=short / "reports",
            env=environment(short / "t", **{name: os.environ[name] for name in VARIABLES if name in os.environ}),
        )
        assert (ran.exit_code, ran.outcome) == (5, "unproven"), ran.output
        endings = {each["scenario"]: each["outcome"] for each in ran.summary["scenarios"]}
        assert {name for name, ending in endings.items() if ending != "proven"} == WITHOUT_AN_ARCHIVE
        assert {endings[name] for name in WITHOUT_AN_ARCHIVE} == {"unproven"}
        assert traces(client) == before
        assert list((short / "t").iterdir()) == []

    @pytest.mark.parametrize("killed", ["the runner", "everything on this side"])
    def test_a_killed_one_leaves_nothing_either(
        self, client: docker.DockerClient, sandbox: Sandbox, short: Path, killed: str
    ) -> None:
        before = traces(client)
        temporary = short / "t"
        temporary.mkdir()
        variables = {name: os.environ[name] for name in VARIABLES if name in os.environ}
        with loading(short, environment(temporary, **variables)) as runner:
            assert len(traces(client)["containers"] - before["containers"]) == 1
            if killed == "the runner":
                runner.kill()
            else:
                for pid in (runner.pid, *processes_with(f"TMPDIR={temporary}")):
                    os.kill(pid, signal.SIGKILL)
            wait_for(
                "everything to be gone",
                lambda: traces(client),
                until=lambda left: left == before,
                where=engine.address(),
                within_seconds=GONE_SECONDS,
                every_seconds=0.3,
            )
            if killed == "everything on this side":
                sweep(temporary)  # as whoever opens the next workspace there does
            else:
                wait_for(
                    "the workspace to be gone",
                    lambda: list(temporary.iterdir()),
                    until=lambda left: not left,
                    where=str(temporary),
                    within_seconds=GONE_SECONDS,
                )
