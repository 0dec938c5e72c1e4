from __future__ import annotations

import pytest

from runbook_lib.gherkin.tables import records


def test_the_first_row_names_the_columns() -> None:
    assert records([["table", "rows"], ["users", "5"], ["futures", ""]]) == [
        {"table": "users", "rows": "5"},
        {"table": "futures", "rows": ""},
    ]


def test_a_table_of_a_header_alone_has_no_records() -> None:
    assert records([["table", "rows"]]) == []


@pytest.mark.parametrize("table", [[], [["rows", "rows"], ["1", "2"]], [["table", "rows"], ["users"]]])
def test_a_table_that_cannot_be_read_is_refused(table: list[list[str]]) -> None:
    with pytest.raises(ValueError):
        records(table)
