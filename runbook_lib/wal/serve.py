"""The process behind one server's restore_command and archive_command.

Started by `runbook_lib.wal.service.WalService`, or by hand beside a production instance that recovers::

    python -m runbook_lib.wal.serve --bucket tensafe-backups --system-identifier 7301... \
        --folder /var/lib/postgresql/17/recovered/pg_wal --socket /run/recovery/wal.sock --spool /var/lib/recovery/wal

Credentials come from the AWS chain. It says ``ready`` when it can be asked, and ends when its standard input does:
whoever started it holds the other end, and takes it along in whatever way it dies.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import select
import signal
import sys
import threading
from pathlib import Path

from runbook_lib.errors import RunbookError
from runbook_lib.reach.objects import Bucket
from runbook_lib.wal.archive import WalArchive
from runbook_lib.wal.doorway import Doorway
from runbook_lib.wal.fetching import Fetcher
from runbook_lib.wal.segment import DEFAULT_SEGMENT_BYTES, MIB

READY = b"ready\n"
"""What it prints when it can be asked."""
READY_FOLDER = "ready"
"""The folder inside the spool that a server takes segments from by itself."""
TAKEN = "taken"
"""The pipe in the spool that it then writes their names into."""
_OWNER_LOOK_SECONDS = 1.0


def arguments() -> argparse.ArgumentParser:
    """Return the command line that this process takes."""
    parser = argparse.ArgumentParser(prog="python -m runbook_lib.wal.serve", description=__doc__)
    parser.add_argument("--bucket", required=True, help="the bucket of the archive")
    parser.add_argument("--prefix", default="wal/", help="what the keys in it begin with")
    parser.add_argument("--endpoint-url", help="by default the AWS chain's choice")
    parser.add_argument("--region", help="by default the AWS chain's choice")
    parser.add_argument("--system-identifier", required=True, help="the cluster's identity: pg_controldata tells it")
    parser.add_argument("--segment-bytes", type=int, default=DEFAULT_SEGMENT_BYTES)
    parser.add_argument("--folder", type=Path, required=True, help="the server's pg_wal")
    parser.add_argument("--socket", type=Path, required=True, help="where the server is to ask")
    parser.add_argument("--spool", type=Path, help="where segments are fetched ahead to; without it nothing is fetched")
    parser.add_argument("--segments-ahead", type=int, default=8)
    parser.add_argument("--mib-ahead", type=int, default=512)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--patience-seconds", type=float, default=60.0)
    parser.add_argument("--request-seconds", type=int, default=10, help="after which a request without answer counts")
    parser.add_argument("--accept-without-digest", action="store_true", help="fetch what other tools archived, too")
    return parser


def main() -> int:
    """Serve until standard input ends."""
    told = arguments().parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    with contextlib.ExitStack() as stack:
        try:
            bucket = Bucket(
                told.bucket,
                endpoint_url=told.endpoint_url,
                region=told.region,
                timeout_seconds=told.request_seconds,
                attempts=2,  # the fetcher itself tries again, and PostgreSQL does
                compares_digests=True,
            )
            archive = WalArchive(
                bucket,
                told.prefix,
                system_identifier=told.system_identifier,
                segment_bytes=told.segment_bytes,
                accept_without_digest=told.accept_without_digest,
            )
            fetcher, taken = None, None
            if told.spool is not None:
                owner = told.folder.stat()
                told.spool.mkdir(mode=0o711, exist_ok=True)
                ready, taken = told.spool / READY_FOLDER, told.spool / TAKEN
                ready.mkdir(mode=0o700, exist_ok=True)
                if os.geteuid() == 0:
                    os.chown(ready, owner.st_uid, owner.st_gid)
                fetcher = stack.enter_context(
                    Fetcher(
                        archive,
                        told.spool,
                        segments_ahead=told.segments_ahead,
                        bytes_ahead=told.mib_ahead * MIB,
                        parallel=told.parallel,
                        patience_seconds=told.patience_seconds,
                        ready=ready,
                        owner=(owner.st_uid, owner.st_gid) if os.geteuid() == 0 else None,
                    )
                )
            doorway = Doorway(told.folder, told.socket, archive, fetcher, taken=taken)
        except (RunbookError, OSError) as failed:
            sys.stderr.write(f"{failed}\n")
            return 1
        serving = threading.Thread(target=doorway.serve, name="doorway", daemon=True)
        serving.start()
        try:
            os.write(1, READY)
            _outlive(os.getppid())
        finally:
            doorway.stop()
            if fetcher is not None:
                fetcher.close()  # so that no request waits out its patience
            doorway.close()
    return 0


def _outlive(owner: int) -> None:
    """Wait for the end of standard input, or for the owner to be gone although a stray child of it still holds it."""
    while os.getppid() == owner:
        readable, _, _ = select.select([0], [], [], _OWNER_LOOK_SECONDS)
        if readable and not os.read(0, 4096):
            return


if __name__ == "__main__":
    sys.exit(main())
