"""Make a virtual environment that has pip, on a machine that may have neither venv's ensurepip nor pip.

Debian and its kin ship ``python3`` without ``ensurepip``, so that ``python3 -m venv`` fails on the very machine a new
user is likely to have. Then pip's own wheel is fetched from the configured package index, its digest is compared with
the one below, and it installs itself. Standard library only: nothing else is there yet.
"""

from __future__ import annotations

import configparser
import hashlib
import html.parser
import importlib.util
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import venv
from pathlib import Path

PIP_WHEEL = "pip-26.3-py3-none-any.whl"
PIP_SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"
PUBLIC_INDEX = "https://pypi.org/simple"


def main(folder: str) -> None:
    """Make the environment in ``folder``."""
    if importlib.util.find_spec("ensurepip"):
        venv.create(folder, with_pip=True, symlinks=True)
        return
    venv.create(folder, with_pip=False, symlinks=True)
    python = str(Path(folder) / "bin" / "python")
    with tempfile.TemporaryDirectory() as there:
        wheel = Path(there) / PIP_WHEEL
        wheel.write_bytes(_fetch_pip())
        subprocess.run([python, f"{wheel}/pip", "install", "--quiet", "--no-index", str(wheel)], check=True)


def _fetch_pip() -> bytes:
    index = _index()
    try:
        page = _get(f"{index}/pip/").decode()
        links = _Links()
        links.feed(page)
        address = next((href for href in links.found if urllib.parse.urlparse(href).path.endswith(PIP_WHEEL)), None)
        if address is None:
            sys.exit(f"{PIP_WHEEL} was sought at {index}/pip/ and is not there. To fix this: install python3-venv")
        content = _get(urllib.parse.urljoin(f"{index}/pip/", address))
    except urllib.error.URLError as failed:
        sys.exit(
            f"pip was sought at {index}/pip/, because this Python has no ensurepip: {failed.reason}. "
            "To fix this: install python3-venv, or set PIP_INDEX_URL to an index that can be reached"
        )
    found = hashlib.sha256(content).hexdigest()
    if found != PIP_SHA256:
        sys.exit(f"{PIP_WHEEL} from {index} has the digest {found} instead of {PIP_SHA256}: not used")
    return content


def _index() -> str:
    if given := os.environ.get("PIP_INDEX_URL"):
        return given.rstrip("/")
    settings = configparser.ConfigParser(interpolation=None, strict=False)
    home = Path.home()
    settings.read(["/etc/pip.conf", home / ".pip/pip.conf", home / ".config/pip/pip.conf"])
    return settings.get("global", "index-url", fallback=PUBLIC_INDEX).rstrip("/")


def _get(address: str) -> bytes:
    if not address.startswith(("https://", "http://")):
        sys.exit(f"the package index {address} is no http address. To fix this: set PIP_INDEX_URL")
    with urllib.request.urlopen(address, timeout=60) as answer:  # noqa: S310 - looked at just above
        return bytes(answer.read())


class _Links(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the address of every link."""
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]


if __name__ == "__main__":
    main(sys.argv[1])
