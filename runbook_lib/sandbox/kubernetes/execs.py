"""Commands in pods, at the server's end: real processes, and the protocol that carries their streams."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import WSMsgType, web

from runbook_lib.sandbox import interpreter
from runbook_lib.sandbox.kubernetes.faults import Fault, Kind
from runbook_lib.sandbox.kubernetes.objects import Json, Refusal
from runbook_lib.sandbox.kubernetes.topology import Container

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_IN, _OUT, _ERRORS, _ENDED, _CLOSE = 0, 1, 2, 3, 255
_PIECE_BYTES = 1 << 15


@dataclass(eq=False)
class _Running:
    """A command that runs."""

    pod: str
    """The pod it runs in."""
    process: asyncio.subprocess.Process
    """Its process, which leads a group of its own."""
    cut: bool = False
    """Whether nobody is to say how it ended."""
    sent_bytes: int = field(default=0)
    """How much output was sent."""


class Execs:
    """All commands that run in a cluster's pods."""

    def __init__(self, environment: Mapping[str, str], protocols: tuple[str, ...] = PROTOCOLS) -> None:
        self._environment = environment
        self._running: set[_Running] = set()
        self.protocols = protocols

    async def serve(
        self, request: web.Request, pod: str, container: Container, fault: Fault | None
    ) -> web.StreamResponse:
        """Run the command that a request names, for as long as its connection is there."""
        query = request.query
        command = query.getall("command", [])
        if not command:
            raise Refusal(400, "BadRequest", "you must specify at least one command for the container")
        if query.get("tty") == "true":
            raise Refusal(400, "BadRequest", "this sandbox has no terminals: leave -t away")
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise Refusal(400, "BadRequest", "Upgrade request required: this sandbox streams over WebSockets alone")
        socket = web.WebSocketResponse(protocols=self.protocols, max_msg_size=0, compress=False, timeout=2.0)
        await socket.prepare(request)
        if socket.ws_protocol is None:
            await socket.close(code=1002, message=b"none of the protocols is known")
            return socket
        environment = {**self._environment, **container.env, "POD_NAME": pod}
        program = _found(command[0], environment.get("PATH", os.defpath))
        if program is None:
            why = f'exec: "{command[0]}": executable file not found in $PATH'
            await self._end(socket, _failure(500, "InternalError", f"error executing command in container: {why}"))
            return socket
        takes_input = query.get("stdin") == "true"
        try:
            process = await asyncio.create_subprocess_exec(
                program,
                *command[1:],
                stdin=asyncio.subprocess.PIPE if takes_input else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=container.folder,
                env=environment,
                start_new_session=True,
                preexec_fn=interpreter.pass_on_capability if container.uses_interpreter else None,
            )
        except OSError as failed:
            why = f'exec: "{command[0]}": {(failed.strerror or str(failed)).lower()}'
            await self._end(socket, _failure(500, "InternalError", f"error executing command in container: {why}"))
            return socket
        running = _Running(pod, process)
        self._running.add(running)
        try:
            await self._converse(request, socket, running, fault)
        finally:
            self._running.discard(running)
            _kill(process)
            await process.wait()
        return socket

    def kill(self, pod: str | None = None) -> None:
        """Kill all commands in a pod, or in all of them, and let nobody say how they ended."""
        for running in self._running:
            if pod in {None, running.pod}:
                running.cut = True
                _kill(running.process)

    @property
    def processes(self) -> list[tuple[str, int]]:
        """The pod and the process id of every command that runs."""
        return [(running.pod, running.process.pid) for running in self._running]

    async def _converse(
        self, request: web.Request, socket: web.WebSocketResponse, running: _Running, fault: Fault | None
    ) -> None:
        process = running.process
        assert process.stdout is not None
        assert process.stderr is not None
        most_bytes = fault.bytes if fault is not None and fault.kind is Kind.CUT else None
        outputs = asyncio.gather(
            self._send(socket, running, _OUT, process.stdout, most_bytes),
            self._send(socket, running, _ERRORS, process.stderr, None),
        )
        listening = asyncio.create_task(self._listen(socket, process))

        async def run_out() -> None:
            await outputs
            await process.wait()

        ending = asyncio.create_task(run_out())
        try:
            await asyncio.wait({ending, listening}, return_when=asyncio.FIRST_COMPLETED)
            if not ending.done():
                return  # nobody is there any more
            await ending
            # From here on what comes is read and dropped, by `close`: closed with something unread, a connection is
            # reset, and the other side may lose what was sent to it last.
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            if running.cut or (fault is not None and fault.kind is Kind.NO_STATUS):
                await socket.close()
                return
            await self._end(socket, _status_of(process.returncode or 0))
        except ConnectionError:  # nobody is there any more, or it is to seem so
            if fault is not None and request.transport is not None:
                request.transport.abort()
        finally:
            _kill(process)  # also what is left of its group
            for task in ending, listening:
                task.cancel()
            outputs.cancel()
            await asyncio.gather(ending, listening, outputs, return_exceptions=True)

    async def _send(
        self,
        socket: web.WebSocketResponse,
        running: _Running,
        channel: int,
        stream: asyncio.StreamReader,
        most_bytes: int | None,
    ) -> None:
        while piece := await stream.read(_PIECE_BYTES):
            await socket.send_bytes(bytes([channel]) + piece)
            running.sent_bytes += len(piece)
            if most_bytes is not None and running.sent_bytes >= most_bytes:
                raise ConnectionResetError("cut, as was asked for")

    async def _listen(self, socket: web.WebSocketResponse, process: asyncio.subprocess.Process) -> None:
        """Pass on what comes, and return when the other side has gone."""
        async for message in socket:
            if message.type is WSMsgType.BINARY and message.data:
                channel, data = message.data[0], message.data[1:]
            elif message.type is WSMsgType.TEXT and message.data:
                encoded = message.data.encode()
                channel, data = encoded[0], encoded[1:]
            else:
                continue
            if process.stdin is None:
                continue
            if channel == _IN:
                with contextlib.suppress(ConnectionError):  # it reads no more, and may go on without
                    process.stdin.write(data)
                    await process.stdin.drain()
            elif channel == _CLOSE and data[:1] == bytes([_IN]) and socket.ws_protocol == PROTOCOLS[0]:
                process.stdin.close()

    async def _end(self, socket: web.WebSocketResponse, status: Json) -> None:
        await socket.send_bytes(bytes([_ENDED]) + json.dumps(status).encode())
        await socket.close()


def _found(name: str, path: str) -> str | None:
    """Look a program up; not with `shutil.which`, which asks for less than this process may (access(2))."""
    if "/" in name:
        return name
    for folder in path.split(os.pathsep):
        with contextlib.suppress(OSError):
            mode = os.stat(candidate := f"{folder or '.'}/{name}").st_mode  # noqa: PTH116
            if stat.S_ISREG(mode) and mode & 0o111:
                return candidate
    return None


def _status_of(returncode: int) -> Json:
    if returncode == 0:
        return {"metadata": {}, "status": "Success"}
    code = returncode if returncode > 0 else 128 - returncode
    failed = _failure(500, "NonZeroExitCode", f"command terminated with non-zero exit code: exit status {code}")
    failed["details"] = {"causes": [{"reason": "ExitCode", "message": str(code)}]}
    return failed


def _failure(code: int, reason: str, message: str) -> Json:
    return {"metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code}


def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill a command and all it has started, where it has not made them a group of their own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
