"""Commands in pods.

``kubectl exec`` exits 0 when the command did, and also in some cases when nobody knows how it ended; the official
client's helper decodes output as text, keeps all of it in memory and writes and reads one TLS connection without an
end to wait for. A dump that goes through here is binary, larger than memory, and has succeeded only where the cluster
says how the command ended. So the protocol is spoken here, on aiohttp: one loop that reads and writes in turn, as much
at a time as the other side takes.

The protocol: a WebSocket whose messages begin with a byte that names the stream (0 in, 1 out, 2 errors), 3 being a
`Status` object that says how the command ended, sent once and last. ``v5.channel.k8s.io`` (Kubernetes 1.30) adds 255:
the stream named by the next byte has ended, without which a command that reads to the end of its input waits for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import select
import ssl
import stat
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import urlencode

import aiohttp
from kubernetes.client.exceptions import ApiException
from kubernetes.client.rest import should_bypass_proxies

from runbook_lib.errors import NoRoom, ToolFailed, ToolMissing, Unreachable, WaitTimedOut
from runbook_lib.reach import programs
from runbook_lib.reach.kubernetes.calls import GuardedClient
from runbook_lib.reach.programs import CommandResult

_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_IN, _OUT, _ERRORS, _ENDED, _CLOSE = 0, 1, 2, 3, 255
_PIECE_BYTES = 1 << 16
_PIPE_BYTES = 4096
"""What a pipe that is ready takes without making us wait, on every system (PIPE_BUF)."""
_KEPT_OUTPUT_BYTES = 16 << 20
_KEPT_ERRORS_BYTES = 1 << 20
_AFTERWORD_SECONDS = 5.0
"""How long the other side may take to close the connection, after it has said how the command ended."""
_SILENCE_SECONDS = 30.0
"""After which the other side is asked whether it is still there; silent twice, it is not."""


@dataclass
class _Seen:
    """What has come from the other side so far."""

    status: Mapping[str, Any] | None = None
    """How the command ended, in the cluster's words."""
    out_bytes: int = 0
    """How much it has printed."""
    closed: str = ""
    """How the connection ended."""


class _Stopped(Exception):
    """The stream cannot be carried on."""


class _OnOurSide(Exception):
    """A file of ours cannot be read or written."""

    def __init__(self, what: str, failed: OSError) -> None:
        super().__init__(f"we could not {what}: {failed.strerror or failed}")
        self.no_room = failed.errno in {errno.ENOSPC, errno.EDQUOT}


def run_in_pod(
    client: GuardedClient,
    path: str,
    argv: Sequence[str],
    *,
    container: str,
    sought: str,
    stdin: BinaryIO | None,
    stdout: BinaryIO | None,
    timeout_seconds: float,
) -> CommandResult:
    """Run a command in a container to its end; see `Cluster.exec`.

    :param path: the address of the pod's ``exec``, without the server
    """
    client.must_be_allowed("POST", path)
    where = f"{path.split('/')[-2]}/{container}, {client.access.where}"
    kept_out, kept_errors = bytearray(), bytearray()
    seen = _Seen()
    began = time.monotonic()
    stream = _Stream(client, path, argv, container, stdin, stdout, kept_out, kept_errors, seen)
    try:
        asyncio.run(stream.within(timeout_seconds))
    except TimeoutError:
        said = programs.tail(kept_errors.decode(errors="replace")) or "nothing"
        why = f"it had not ended after {timeout_seconds:g} s, {seen.out_bytes:,} bytes of output had come;"
        if stdin is not None and stream.protocol == _PROTOCOLS[1]:
            why += " this cluster (older than 1.30) cannot tell a command that its input has ended;"
        raise WaitTimedOut(
            sought,
            where=where,
            why=f"{why} it said last: {said}",
            remedy="find out what it waits for, or allow more time; the command may still run in the pod",
        ) from None
    except aiohttp.WSServerHandshakeError as refused:
        answer = ApiException(status=refused.status, reason=refused.message)
        answer.body = stream.refusal.decode(errors="replace")
        raise client.answered(answer, sought=sought, verb="create", resource="pods/exec") from None
    except _OnOurSide as failed:
        kind = NoRoom if failed.no_room else ToolFailed
        remedy = "free space here, or write elsewhere" if failed.no_room else "look at our own end of the stream"
        raise kind(sought, where=where, why=str(failed), remedy=remedy) from failed
    except (aiohttp.ClientError, OSError, _Stopped) as broken:
        raise Unreachable(
            sought,
            where=where,
            why=f"the stream broke after {seen.out_bytes:,} bytes of output: {str(broken) or type(broken).__name__}",
            remedy="whether the command succeeded is not known; look at the pod, and begin again",
        ) from None
    if seen.status is None:
        raise Unreachable(
            sought,
            where=where,
            why=f"the stream ended after {seen.out_bytes:,} bytes of output, and nobody said how the command ended"
            f" ({seen.closed})",
            remedy="whether it succeeded is not known; look whether the pod was replaced meanwhile, and begin again",
        )
    return CommandResult(
        sought,
        tuple(argv),
        _exit_code(seen.status, argv, sought=sought, where=where),
        kept_out.decode(errors="replace"),
        kept_errors.decode(errors="replace"),
        time.monotonic() - began,
    )


def _exit_code(status: Mapping[str, Any], argv: Sequence[str], *, sought: str, where: str) -> int:
    if status.get("status") == "Success":
        return 0
    causes = (status.get("details") or {}).get("causes") or []
    for cause in causes:
        if cause.get("reason") == "ExitCode":
            with contextlib.suppress(ValueError, TypeError):
                return int(cause["message"])
    message = str(status.get("message") or "no reason given")
    if "not found" in message or "no such file" in message:
        remedy = f"the container has no {argv[0]}: name another container, or an image that has it"
        raise ToolMissing(sought, where=where, why=message, remedy=remedy)
    raise ToolFailed(sought, where=where, why=f"it could not be run: {message}", remedy="look at the pod's events")


class _Stream:
    """One command's connection, from its beginning to its end."""

    def __init__(
        self,
        client: GuardedClient,
        path: str,
        argv: Sequence[str],
        container: str,
        stdin: BinaryIO | None,
        stdout: BinaryIO | None,
        kept_out: bytearray,
        kept_errors: bytearray,
        seen: _Seen,
    ) -> None:
        self._client = client
        query = [("command", argument) for argument in argv]
        query += [("stdout", "true"), ("stderr", "true"), ("stdin", "true" if stdin is not None else "false")]
        query += [("tty", "false"), ("container", container)]
        self._url = f"{client.configuration.host}{path}?{urlencode(query)}"
        self._stdin = stdin
        self._sink = _Sink(stdout) if stdout is not None else None
        self._kept_out = kept_out
        self._kept_errors = kept_errors
        self._seen = seen
        self._failed: _OnOurSide | None = None
        self.protocol = ""
        self.refusal = b""

    async def within(self, seconds: float) -> None:
        async with asyncio.timeout(seconds):
            await self._run()

    async def _run(self) -> None:
        settings = self._client.configuration
        token = settings.get_api_key_with_prefix("BearerToken", alias="authorization")
        headers = {"authorization": token} if token else {}
        proxied = settings.proxy and not should_bypass_proxies(settings.host, settings.no_proxy or "")
        tls: ssl.SSLContext | bool = self._client.access.tls or True
        patience = aiohttp.ClientTimeout(total=None, sock_connect=self._client.timeout_seconds)
        connector = aiohttp.TCPConnector(limit=1)
        async with aiohttp.ClientSession(
            connector=connector, timeout=patience, trace_configs=[self._keep_refusal()]
        ) as session:
            opening = session.ws_connect(
                self._url,
                protocols=_PROTOCOLS,
                headers=headers,
                ssl=tls,
                server_hostname=settings.tls_server_name or None,
                proxy=settings.proxy if proxied else None,
                autoping=False,
                autoclose=False,
                max_msg_size=0,
                compress=0,
                timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
            )
            async with asyncio.timeout(self._client.timeout_seconds):
                connection = await opening
            try:
                self.protocol = connection.protocol or ""
                if self.protocol not in _PROTOCOLS:
                    raise _Stopped(f"the server speaks none of {', '.join(_PROTOCOLS)}")
                feeding = asyncio.create_task(self._feed(connection)) if self._stdin is not None else None
                try:
                    await self._listen(connection, feeding)
                finally:
                    if feeding is not None:
                        feeding.cancel()
                        await asyncio.gather(feeding, return_exceptions=True)
                if self._failed is not None:
                    raise self._failed
            finally:
                # Not politely: whoever is done has closed by now, and whoever is not may not be listening.
                await connector.close(abort_ssl=True)
                await connection.close()

    def _keep_refusal(self) -> aiohttp.TraceConfig:
        """Keep what the server says where it refuses: the WebSocket client itself throws it away."""
        tracing = aiohttp.TraceConfig()

        async def keep(_: object, __: object, chunk: aiohttp.TraceResponseChunkReceivedParams) -> None:
            self.refusal = chunk.chunk

        tracing.on_response_chunk_received.append(keep)
        return tracing

    async def _listen(self, connection: aiohttp.ClientWebSocketResponse, feeding: asyncio.Task[None] | None) -> None:
        asked = False
        while True:
            told = self._seen.status is not None
            try:
                message = await connection.receive(timeout=_AFTERWORD_SECONDS if told else _SILENCE_SECONDS)
            except TimeoutError:
                if told:
                    return
                if feeding is not None and not feeding.done():
                    continue  # it may have nothing to say before it has read all
                if asked:
                    raise _Stopped(f"the other side was silent for {2 * _SILENCE_SECONDS:g} s") from None
                asked = True
                await connection.ping()
                continue
            asked = False
            if message.type is aiohttp.WSMsgType.BINARY or message.type is aiohttp.WSMsgType.TEXT:
                data = message.data.encode() if isinstance(message.data, str) else message.data
                if data:
                    await self._take(data[0], memoryview(data)[1:])
            elif message.type is aiohttp.WSMsgType.PING:
                await connection.pong(message.data)
            elif message.type is aiohttp.WSMsgType.ERROR:
                raise _Stopped(str(message.data))
            elif message.type is not aiohttp.WSMsgType.PONG:
                code = connection.close_code
                self._seen.closed = f"close code {code}" if code else "the connection was cut"
                return

    async def _take(self, channel: int, data: memoryview) -> None:
        if channel == _OUT:
            self._seen.out_bytes += len(data)
            if self._sink is not None:
                try:
                    await self._sink.write(data)
                except OSError as failed:
                    raise _OnOurSide("write what it prints", failed) from failed
                return
            self._kept_out += data
            if len(self._kept_out) > _KEPT_OUTPUT_BYTES:
                raise _Stopped(f"it prints more than {_KEPT_OUTPUT_BYTES >> 20} MB, and nobody gave a file for it")
        elif channel == _ERRORS:
            self._kept_errors += data
            if len(self._kept_errors) > 2 * _KEPT_ERRORS_BYTES:
                del self._kept_errors[:-_KEPT_ERRORS_BYTES]
        elif channel == _ENDED and len(data):
            try:
                status = json.loads(bytes(data))
            except ValueError:
                raise _Stopped("how the command ended was said in no form that is known") from None
            if not isinstance(status, dict):
                raise _Stopped("how the command ended was said in no form that is known")
            self._seen.status = status

    async def _feed(self, connection: aiohttp.ClientWebSocketResponse) -> None:
        assert self._stdin is not None
        source = _Source(self._stdin)
        try:
            while piece := await self._read(source):
                await connection.send_bytes(b"\0" + piece)
                await asyncio.sleep(
                    0
                )  # neither a file nor a broken connection makes us wait: let the listener have its turn
            if self.protocol == _PROTOCOLS[0]:
                await connection.send_bytes(bytes([_CLOSE, _IN]))
        except (ConnectionError, aiohttp.ClientError):
            pass  # the command has ended without reading all; how it ended is told by `_listen`
        except _OnOurSide as failed:
            self._failed = failed
            await connection.close()  # and not its input: the command must not take a part for the whole
        finally:
            source.stop()

    async def _read(self, source: _Source) -> bytes:
        try:
            return await source.read()
        except OSError as failed:
            raise _OnOurSide("read what it is to be given", failed) from failed


class _Sink:
    """Where output goes. A pipe whose reader is slow makes the sender wait, not the loop."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._pipe = _waits(stream)

    async def write(self, data: memoryview) -> None:
        if self._pipe is None:
            self._stream.write(data)
            return
        self._stream.flush()
        while data:
            if not select.select([], [self._pipe], [], 0)[1]:
                await self._ready()
            data = data[os.write(self._pipe, data[:_PIPE_BYTES]) :]

    async def _ready(self) -> None:
        assert self._pipe is not None
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_writer(self._pipe, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_writer(self._pipe)


class _Source:
    """Where input comes from. A pipe is read by a thread, which looks often whether it is still wanted."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._pipe = _waits(stream)
        self._stopped = False

    async def read(self) -> bytes:
        pipe = self._pipe
        if pipe is None:
            return self._stream.read(_PIECE_BYTES)
        loop = asyncio.get_running_loop()
        read: asyncio.Future[bytes] = loop.create_future()

        def deliver(piece: bytes, error: OSError | None) -> None:
            if not read.done():
                if error is None:
                    read.set_result(piece)
                else:
                    read.set_exception(error)

        def wait_and_read() -> None:
            piece, failed = b"", None
            try:
                while not self._stopped:
                    if select.select([pipe], [], [], 0.2)[0]:
                        piece = self._stream.read1(_PIECE_BYTES)  # type: ignore[attr-defined]
                        break
            except OSError as error:
                failed = error
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(deliver, piece, failed)

        threading.Thread(target=wait_and_read, name="stdin of a command in a pod", daemon=True).start()
        return await read

    def stop(self) -> None:
        self._stopped = True


def _waits(stream: BinaryIO) -> int | None:
    """Return the descriptor of a stream that makes its user wait, a pipe or a socket; None for files and memory."""
    try:
        descriptor = stream.fileno()
        mode = os.fstat(descriptor).st_mode
    except (OSError, AttributeError, ValueError):
        return None
    return None if stat.S_ISREG(mode) else descriptor
