"""Addresses of this machine that no other machine can reach, one for each member.

A member of a cluster is known by its address, in what Patroni says of it as in what can be cut off from it. The whole
of 127.0.0.0/8 is this machine's own on Linux, so each gets one there: nothing listens where somebody else could
connect, the ports can be those that everybody knows, and as nobody else uses the address, one that was free a moment
ago still is when it is needed.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import zlib
from collections.abc import Iterator, Sequence

from runbook_lib.errors import Unproven

NETWORK = "127.0.0.0/8"
"""The addresses that are this machine's own."""
_FIRST = 16
"""The lowest second octet that is taken: 127.0 and 127.1 are what other programs choose by hand."""
_ATTEMPTS = 20


def addresses(seed: str) -> Iterator[str]:
    """Yield loopback addresses, neighbours of each other; which ones, is decided by the seed."""
    place = zlib.crc32(seed.encode())
    second, third = _FIRST + place % (255 - _FIRST), (place >> 8) % 256
    for last in range(1, 255):
        yield f"127.{second}.{third}.{last}"


def port_of_all(hosts: Sequence[str], preferred: int) -> int:
    """Return a port that nobody listens on at any of the addresses: the preferred one, or another.

    Raise `Unproven` where an address is not this machine's, or no port is to be had.
    """
    for wanted in (preferred, *([0] * _ATTEMPTS)):
        with contextlib.ExitStack() as held:
            port = wanted
            for host in hosts:
                probe = held.enter_context(socket.socket())
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: what has ended may linger
                try:
                    probe.bind((host, port))
                    probe.listen()
                except OSError as error:
                    if error.errno == errno.EADDRINUSE:
                        break
                    raise Unproven(
                        "an address of this machine for a member of a cluster",
                        where=host,
                        why=error.strerror or str(error),
                        remedy=f"give it to the loopback interface (macOS: sudo ifconfig lo0 alias {host})",
                    ) from error
                port = int(probe.getsockname()[1])
            else:
                return port
    raise Unproven(
        "a port for the members of a cluster",
        where=", ".join(hosts),
        why=f"somebody listens on {preferred} and on {_ATTEMPTS} others",
        remedy="end what listens on so many ports of this machine",
    )
