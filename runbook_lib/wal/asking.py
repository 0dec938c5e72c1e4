"""The few lines that PostgreSQL runs for every WAL file; all the work is done by whom they ask.

PostgreSQL starts restore_command and archive_command once for each file. An interpreter that imports a client for S3
takes half a second to come up, every time; this one imports three modules that are built into it, and takes a few
milliseconds (``python -I -S asking.py SOCKET SECONDS fetch NAME PATH``).

It never exits with a code that an interpreter or a shell might come up with by itself: an interpreter that cannot
start exits with 1, which to PostgreSQL means "the WAL ends here", and one whose script is empty with 0. So the codes
are `DONE`, `ABSENT` and `CANNOT_TELL`, and the shell around it takes everything else for the last one.

It is copied to where the server's account can read it, and stands alone: the standard library, any Python 3.
"""

import _socket
import posix
import sys

DONE = 40
"""The file is where it was asked for, or is proven to be in the archive."""
ABSENT = 44
"""The file is proven not to be in the archive."""
CANNOT_TELL = 50
"""Anything else."""

_CODES = {b"done": DONE, b"absent": ABSENT}
_LONGEST_ANSWER_BYTES = 65536


def ask(path: str, seconds: float, verb: str, name: str, place: str) -> tuple[int, bytes]:
    """Ask once and return the code and what was said.

    The folder is named by its identity, not by its path: a configuration that was copied to another server must not
    have this one's files put there, or that one's archived as this one's.
    """
    folder, _, basename = place.rpartition("/")
    found = posix.stat(folder or ".")
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    connection.settimeout(seconds)
    connection.connect(path)
    connection.sendall(f"{verb} {name} {basename} {found.st_dev} {found.st_ino}\n".encode())
    answer = b""
    while not answer.endswith(b"\n") and len(answer) < _LONGEST_ANSWER_BYTES:
        piece = connection.recv(4096)
        if not piece:
            return CANNOT_TELL, b"the connection ended before the answer did"
        answer += piece
    word, _, said = answer.rstrip().partition(b" ")
    return _CODES.get(word, CANNOT_TELL), said


if __name__ == "__main__":
    code, text = CANNOT_TELL, b""
    try:
        code, text = ask(sys.argv[1], float(sys.argv[2]), *sys.argv[3:6])
    except BaseException as failed:  # noqa: BLE001 - whatever it was, nothing can be told
        text = f"{sys.argv[1:2]}: {type(failed).__name__}: {failed}".encode()
    try:
        if code != DONE and text:
            posix.write(2, b"wal: " + text + b"\n")
    finally:
        posix._exit(code)
