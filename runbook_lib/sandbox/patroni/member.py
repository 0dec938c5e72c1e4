"""One member of a sandbox's cluster: a PostgreSQL server and the Patroni that keeps it.

Patroni is what `pip` installs, unaltered, and started as in production: it starts PostgreSQL, not we. So the server is
nobody's child, and what we know of it is its ``postmaster.pid``.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from psycopg.conninfo import make_conninfo

from runbook_lib.errors import ToolFailed
from runbook_lib.reach import programs
from runbook_lib.reach.binaries import PostgresTools
from runbook_lib.reach.server import SUPERUSER, has_name
from runbook_lib.reach.workspace import Workspace
from runbook_lib.sandbox import interpreter
from runbook_lib.waiting import wait_for

_END_SECONDS = 20.0
_SEED_LOOKS = 6000
"""At 0.02 s each: two minutes."""


@dataclass(frozen=True)
class Place:
    """Where a member is."""

    name: str
    """What Patroni calls it: ``postgres-0``."""
    host: str
    """Its own loopback address."""
    port: int
    """Where PostgreSQL listens."""
    api_port: int
    """Where Patroni's REST API listens."""

    @property
    def api_url(self) -> str:
        """The address of its REST API."""
        return f"http://{self.host}:{self.api_port}"


class Member:
    """A member, whose processes may be there or not."""

    def __init__(self, workspace: Workspace, tools: PostgresTools, place: Place, *, password: str) -> None:
        """Stand for the member of this place; nothing is started.

        :param password: of PostgreSQL's superuser
        """
        self.workspace = workspace
        """The workspace that it runs in."""
        self.tools = tools
        """PostgreSQL's programs."""
        self.place = place
        """Where it is."""
        self.folder = workspace.folder(place.name)
        """The folder that holds its data directory, its configuration, its socket and its logs."""
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        """What Patroni calls it."""
        return self.place.name

    @property
    def data_directory(self) -> Path:
        """PostgreSQL's data directory."""
        return self.folder / "data"

    @property
    def configuration(self) -> Path:
        """Patroni's configuration, for ``patroni`` and for ``patronictl -c``."""
        return self.folder / "patroni.yml"

    @property
    def patroni_log(self) -> Path:
        """What Patroni says."""
        return self.folder / "patroni.log"

    @property
    def postgres_log(self) -> Path:
        """What PostgreSQL says."""
        return self.folder / "postgres.log"

    @property
    def patroni_pid(self) -> int | None:
        """The process id of Patroni; None where it is not there."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def postmaster_pid(self) -> int | None:
        """The process id of PostgreSQL's first process; None where it is not there."""
        postmaster = self._postmaster()
        return postmaster.pid if postmaster is not None else None

    def dsn(self, dbname: str = "postgres") -> str:
        """Return the connection string of one database, over TCP, as the superuser and with the password."""
        place = self.place
        return make_conninfo(
            host=place.host, port=place.port, user=SUPERUSER, password=self._password, dbname=dbname, sslmode="disable"
        )

    def local_dsn(self, dbname: str = "postgres") -> str:
        """Return the same over the socket, which needs no password."""
        return make_conninfo(host=str(self.folder), port=self.place.port, user=SUPERUSER, dbname=dbname)

    def configure(self, patroni: Mapping[str, Any], *, seed: Path | None = None) -> None:
        """Write Patroni's configuration, and what it starts PostgreSQL by.

        :param seed: where the data directory will be that the member begins with; None where it takes another's
        """
        for name, script in (("postgres", self._postgres()), ("initdb", self._initdb(seed))):
            self.programs[name].write_text(script)
            self.programs[name].chmod(0o700)
        self.configuration.touch(mode=0o600)
        self.configuration.write_text(json.dumps(patroni, indent=2))  # JSON is YAML
        self.workspace.give(self.folder)

    @property
    def programs(self) -> Mapping[str, Path]:
        """What Patroni is to take instead of PostgreSQL's own programs, by their names."""
        return {name: self.folder / name for name in ("postgres", "initdb")}

    def start(self) -> None:
        """Start Patroni, and return at once."""
        self._process = interpreter.start(
            self.workspace, "patroni", [self.configuration], log=self.patroni_log, env={"PATRONICTL_CONFIG_FILE": ""}
        )

    def must_be_running(self) -> None:
        """Raise `ToolFailed`, with the end of its log, where Patroni has ended."""
        if self._process is None or self._process.poll() is None:
            return
        raise ToolFailed(
            f"running Patroni of {self.name}",
            where=str(self.folder),
            why=f"it ended with code {self._process.returncode}; the end of its log:\n{self.log_tail()}",
            remedy="correct what its log complains of",
        )

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines of Patroni's log, and of PostgreSQL's."""
        said = []
        for log in self.patroni_log, self.postgres_log:
            with contextlib.suppress(FileNotFoundError):
                said.append(programs.tail(log.read_text(errors="replace"), lines))
        return "\n".join(said)

    def signal_patroni(self, number: signal.Signals) -> None:
        """Send Patroni alone a signal."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def signal_postgres(self, number: signal.Signals, *, all_processes: bool = False) -> None:
        """Send PostgreSQL's first process a signal, or all of its processes, those that it forked first."""
        postmaster = self._postmaster()
        if postmaster is None:
            return
        for process in (*(_children(postmaster) if all_processes else ()), postmaster):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def crash(self) -> None:
        """Kill Patroni and all of PostgreSQL at once, as if the machine were gone; return when they are."""
        processes: list[psutil.Process] = []
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        postmaster = self._postmaster()
        if postmaster is not None:
            processes = [postmaster, *_children(postmaster)]
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        if self._process is not None:
            self._process.wait(timeout=_END_SECONDS)
        wait_for(
            f"the processes of {self.name} to be gone",
            lambda: [process.pid for process in processes if _lives(process)],
            until=lambda left: not left,
            where=str(self.folder),
            within_seconds=_END_SECONDS,
        )

    def stop(self) -> None:
        """End Patroni in good order: it stops PostgreSQL, and gives the leader's key away where it has it."""
        if self._process is None:
            return
        self.signal_patroni(signal.SIGTERM)
        try:
            self._process.wait(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.crash()

    def _postgres(self) -> str:
        """Return a shell script that is PostgreSQL to Patroni.

        It gives up what lets Patroni reach its interpreter (see `interpreter`), which is nothing for a server that
        can be told to read any file, and keeps PostgreSQL's words apart from Patroni's. And where our user id has no
        name, which ``postgres --single`` insists on, it does by other means what Patroni calls that for before it
        rewinds a primary that crashed: crash recovery, and a clean end.
        """
        postgres, pg_ctl = self._bare("postgres"), self._bare("pg_ctl")
        log, data = shlex.quote(str(self.postgres_log)), shlex.quote(str(self.data_directory))
        lines = ["#!/bin/sh"]
        if self.workspace.account or not has_name(os.geteuid()):
            alone = {"listen_addresses": "", "unix_socket_directories": str(self.data_directory), "autovacuum": "off"}
            kept = {"archive_mode": "on", "archive_command": ""}  # what waits to be archived is kept, and still waits
            options = " ".join(f"-c {name}={shlex.quote(value)}" for name, value in {**alone, **kept}.items())
            lines += [
                'if [ "$1" = --single ]; then',
                f"    {pg_ctl} start -w -s -D {data} -l {log} -o {shlex.quote(options)} || exit",
                f"    exec {pg_ctl} stop -w -s -m fast -D {data}",
                "fi",
            ]
        return "\n".join([*lines, f'exec {postgres} "$@" 2>>{log}', ""])

    def _initdb(self, seed: Path | None) -> str:
        """Return a shell script that is ``initdb`` to Patroni: where there is a seed, it is taken for what was made.

        So initdb runs while Patroni starts, and under an account that has a name, which it insists on too.
        """
        if seed is None:
            return f'#!/bin/sh\nexec {self._bare("initdb")} "$@"\n'
        taken, data = shlex.quote(str(seed)), shlex.quote(str(self.data_directory))
        return f"""#!/bin/sh
looks=0
until [ -d {taken} ]; do
    looks=$((looks + 1))
    [ $looks -lt {_SEED_LOOKS} ] || exit 1
    sleep 0.02
done
exec mv {taken} {data}
"""

    def _bare(self, program: str) -> str:
        """Return the beginning of a command line that runs one of PostgreSQL's programs and nothing else."""
        command = ["setpriv", "--inh-caps=-all", "--ambient-caps=-all", "--"] if self.workspace.account else []
        libraries = self.tools.bin.parent / "lib"
        if (libraries / "libpq.so.5").exists():  # else its WAL receiver takes the system's: none, or one too old
            command = ["env", f"LD_LIBRARY_PATH={libraries}", *command]
        return shlex.join([*command, str(self.tools.program(program))])

    def _postmaster(self) -> psutil.Process | None:
        """Return PostgreSQL's first process, if what ``postmaster.pid`` names is still that."""
        with contextlib.suppress(OSError, ValueError, IndexError, psutil.Error):
            process = psutil.Process(int((self.data_directory / "postmaster.pid").read_text().splitlines()[0]))
            if _lives(process) and os.fspath(self.data_directory) in process.cmdline():
                return process
        return None


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _children(process: psutil.Process) -> Iterator[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        yield from process.children(recursive=True)
