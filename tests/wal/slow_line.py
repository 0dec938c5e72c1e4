"""A line that takes its time, and no processor: what latency alone costs.

Every request waits before it is passed on; the bytes themselves are moved by the kernel, from socket to socket. On two
processors a proxy that looked at them would be measured instead of what it stands before.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

_AT_ONCE_BYTES = 1 << 20


class SlowLine:
    """A line that is open."""

    def __init__(self, upstream: str) -> None:
        told = urlsplit(upstream)
        assert told.hostname is not None
        assert told.port is not None
        self._upstream = (told.hostname, told.port)
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []
        self.latency_seconds = 0.0
        """How long each request waits."""
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        """Where it begins."""

    def serve(self) -> None:
        """Accept connections until it is closed."""
        self._listening.settimeout(0.1)
        while not self._ending.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = self._listening.accept()
                thread = threading.Thread(target=self._relay, args=(connection,), name="slow-line")
                thread.start()
                self._threads.append(thread)

    def close(self) -> None:
        """Cut every connection."""
        self._ending.set()
        for thread in self._threads:
            thread.join(10)

    def hang_up(self) -> None:
        """Accept nothing any more; when nobody waits to accept."""
        self._listening.close()

    def _relay(self, client: socket.socket) -> None:
        with ExitStack() as stack, contextlib.suppress(OSError):
            stack.enter_context(client)
            server = stack.enter_context(socket.create_connection(self._upstream))
            reading, writing = os.pipe()
            stack.callback(os.close, reading)
            stack.callback(os.close, writing)
            for each in (client, server):
                each.setblocking(True)
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answered = True
            while not self._ending.is_set():
                ready, _, _ = select.select([client, server], [], [], 0.1)
                for source in ready:
                    if source is client and answered:
                        self._ending.wait(self.latency_seconds)  # a request begins where an answer has ended
                    answered = source is server
                    into = server if source is client else client
                    moved = os.splice(source.fileno(), writing, _AT_ONCE_BYTES)
                    if not moved:
                        return
                    while moved:
                        moved -= os.splice(reading, into.fileno(), moved)


@contextmanager
def open_line(upstream: str) -> Iterator[SlowLine]:
    """Open a line before a server, in threads of its own."""
    line = SlowLine(upstream)
    serving = threading.Thread(target=line.serve, name="slow-line")
    serving.start()
    try:
        yield line
    finally:
        line.close()
        serving.join(10)
        line.hang_up()
