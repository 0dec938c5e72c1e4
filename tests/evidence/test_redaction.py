from __future__ import annotations

import pytest

from runbook_lib.evidence.redaction import redacted, redacted_value


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://app:hunter2@db/tensafe",
        "host=db password=hunter2 dbname=tensafe",
        "host=db password='hunter2 and more' dbname=tensafe",
        '{"secret_access_key": "hunter2"}',
        "AWS_SECRET_ACCESS_KEY=hunter2",
        "PGPASSWORD: hunter2",
        "https://b.s3/k?X-Amz-Signature=hunter2&x=1",
        "Authorization: Bearer hunter2hunter2",
        "KeyError: 'password=hunter2'",
    ],
)
def test_a_secret_is_hidden_and_the_rest_is_left(text: str) -> None:
    assert "hunter2" not in redacted(text)
    assert "***" in redacted(text)


def test_an_access_key_id_is_hidden() -> None:
    assert redacted("by AKIAIOSFODNN7EXAMPLE.") == "by ***."


@pytest.mark.parametrize(
    "text",
    [
        "public.training_clients: 1200 rows expected, 1199 found",
        "postgresql://db:5432/tensafe",
        "s3://tensafe-backups/postgres/daily/2026-11-22.dump",
        "the password is wrong",
        "sha256 differs: expected 9f86d081884c7d65",
        "https://user@host/path",
        "column pwd_changed_at of public.users",
        "Basic structure holds",
    ],
)
def test_what_is_no_secret_is_told(text: str) -> None:
    assert redacted(text) == text


def test_a_name_hides_its_value() -> None:
    assert redacted_value("secret_key", "hunter2") == "***"
    assert redacted_value("secret_key", "") == ""
    assert redacted_value("profile", "sandbox") == "sandbox"
