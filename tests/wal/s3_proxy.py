"""A line to S3 that fails on demand.

It stands between a client and the real server, passes every request on as it is (its signature included), and does to
the answers what networks, load balancers and people do: lets them wait, refuses them, cuts them short, changes a byte.
What fails is said by faults, which count the requests they match.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum

import aiohttp
from aiohttp import web

_ERROR = (
    '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>injected</Message>'
    "<Resource>{path}</Resource></Error>"
)
_CODES = {403: "AccessDenied", 404: "NoSuchKey", 500: "InternalError", 503: "SlowDown"}
_PIECE_BYTES = 1 << 18
_HOP_BY_HOP = {"transfer-encoding", "connection", "keep-alive"}


class Kind(Enum):
    STATUS = "status"
    """It is answered with a status, and not passed on."""
    RESET = "reset"
    """The connection is reset before an answer."""
    RESET_AFTER = "reset after"
    """It is passed on and carried out, and the connection is reset before the answer."""
    SHORT = "short"
    """Half of the body comes, of the length that was promised, and the connection ends."""
    SHORTER = "shorter"
    """Half of the body comes, and that is called its length."""
    FLIP = "flip"
    """One byte of the body is another."""
    FLIP_UPLOAD = "flip upload"
    """One byte of what is sent is another."""
    SLOW = "slow"
    """It waits for a second, and is passed on."""
    HANG = "hang"
    """Nothing is answered."""
    NO_BUCKET = "no bucket"
    """The bucket is said not to exist."""
    OTHER = "other"
    """Another object is answered, with its own metadata, as if somebody had copied it there."""


@dataclass
class Fault:
    """What is done to some requests."""

    kind: Kind
    path: str = ""
    """A regular expression that the request's path and query must contain."""
    method: str = "GET|HEAD|PUT|POST|DELETE"
    """A regular expression for its method."""
    status: int = 500
    nth: int = 1
    """The first of the matching requests that it is done to."""
    times: float = float("inf")
    """To how many of them."""
    instead: str = ""
    """The path of the object that is answered instead."""
    seen: int = 0
    hit: int = 0

    def applies(self, request: web.Request) -> bool:
        if not re.fullmatch(self.method, request.method) or not re.search(self.path, request.path_qs):
            return False
        self.seen += 1
        if self.seen < self.nth or self.hit >= self.times:
            return False
        self.hit += 1
        return True


@dataclass
class S3Proxy:
    """A proxy that is running."""

    upstream: str
    url: str = ""
    latency_seconds: float = 0.0
    """How long every request waits before it is passed on."""
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of every request, in order."""
    most_at_once: int = 0
    """How many requests were under way at the same time, at most."""
    session: aiohttp.ClientSession | None = None
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the proxy ends: what hangs is let go."""
    _at_once: int = 0

    def reset(self) -> None:
        self.faults = []
        self.requests = []
        self.latency_seconds = 0.0
        self.most_at_once = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path_qs))
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            if self.latency_seconds:
                await asyncio.sleep(self.latency_seconds)
            return await self._answer(request)
        finally:
            self._at_once -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        fault = next((each for each in self.faults if each.applies(request)), None)
        kind = fault.kind if fault else None
        if kind is Kind.STATUS:
            assert fault is not None
            return _error(request, fault.status, _CODES[fault.status])
        if kind is Kind.NO_BUCKET:
            return _error(request, 404, "NoSuchBucket")
        if kind is Kind.RESET:
            return _reset(request)
        if kind is Kind.HANG:
            self._at_once -= 1  # it is with nobody any more
            await self.ending.wait()
            self._at_once += 1
            return _reset(request)
        if kind is Kind.SLOW:
            await asyncio.sleep(1)
            kind = None
        body = await request.read()
        if kind is Kind.FLIP_UPLOAD and body:
            body = _flipped(body)
        assert self.session is not None
        path = request.path_qs
        headers = dict(request.headers)  # the Host is part of what is signed
        async with self.session.request(
            request.method, f"{self.upstream}{path}", headers=headers, data=body, allow_redirects=False
        ) as got:
            if kind is Kind.RESET_AFTER:
                await got.read()
                return _reset(request)
            kept = {name: value for name, value in got.headers.items() if name.lower() not in _HOP_BY_HOP}
            if kind is None:
                return await _passed_on(request, got, kept)
            content = await got.read()
        if kind is Kind.FLIP:
            return web.Response(status=got.status, headers=kept, body=_flipped(content))
        if kind is Kind.SHORTER:
            kept["Content-Length"] = str(len(content) // 2)
            return web.Response(status=got.status, headers=kept, body=content[: len(content) // 2])
        if kind is Kind.SHORT:
            response = web.StreamResponse(status=got.status, headers=kept)
            await response.prepare(request)
            await response.write(content[: len(content) // 2])
            return _reset(request)
        return web.Response(status=got.status, headers=kept, body=content)


async def _passed_on(request: web.Request, got: aiohttp.ClientResponse, kept: dict[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(status=got.status, headers=kept)
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        async for piece in got.content.iter_chunked(_PIECE_BYTES):
            await response.write(piece)
        await response.write_eof()
    return response


def _error(request: web.Request, status: int, code: str) -> web.Response:
    text = "" if request.method == "HEAD" else _ERROR.format(code=code, path=request.path)
    return web.Response(status=status, text=text, content_type="application/xml")


def _reset(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def _flipped(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(changed) * 2 // 3] ^= 0x10
    return bytes(changed)


@contextmanager
def running(upstream: str) -> Iterator[S3Proxy]:
    """Run a proxy before a server, in a thread of its own."""
    proxy = S3Proxy(upstream)
    loop = asyncio.new_event_loop()
    ready = threading.Event()

    async def serve() -> None:
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(auto_decompress=False, timeout=timeout) as session:
            app = web.Application(client_max_size=1 << 30)
            proxy.session = session
            app.router.add_route("*", "/{path:.*}", proxy.answer)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            proxy.url = f"http://{host}:{port}"
            ready.set()
            await proxy.ending.wait()
            await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="s3-proxy")
    thread.start()
    try:
        assert ready.wait(20)
        yield proxy
    finally:
        loop.call_soon_threadsafe(proxy.ending.set)
        thread.join(30)
        loop.close()
