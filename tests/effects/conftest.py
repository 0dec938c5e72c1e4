from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runbook_lib.reach import postgres
from runbook_lib.sandbox.sandbox import Sandbox

LOG = {
    "log_statement": "all",
    "log_line_prefix": "%m [%p] %u@%d %a ",
    "log_error_verbosity": "default",
    "log_parameter_max_length": "-1",
}


@pytest.fixture(scope="package")
def sandbox() -> Iterator[Sandbox]:
    """A sandbox whose server writes every statement into its log."""
    with Sandbox.up(scale=0.02) as up:
        with postgres.session(up.server.dsn(), read_only=False) as session:
            for name, value in LOG.items():
                session.execute(f"ALTER SYSTEM SET {name} = {postgres.literal(value)}")
            session.execute("SELECT pg_catalog.pg_reload_conf()")
        yield up


def profile(sandbox: Sandbox, folder: Path, dsn: str) -> Path:
    """Write the sandbox's profile, for somebody who logs in by himself."""
    told = sandbox.settings
    path = folder / "sandbox.toml"
    path.write_text(
        f"""name = "here"
[database]
dsn = '{dsn}'
system_identifier = "{told.database.system_identifier}"
[backups]
bucket = "{told.backups.bucket}"
endpoint_url = "{told.backups.endpoint_url}"
region = "{told.backups.region}"
"""
    )
    return path
