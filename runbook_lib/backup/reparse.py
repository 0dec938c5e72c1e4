"""The same definition in other words.

PostgreSQL keeps a CHECK, a view or an index as a parsed tree and prints it on demand. A dump carries the printed
text, a restore parses it, and the tree that comes out is sometimes another one with the same meaning: a CHECK on a
varchar printed as ``ARRAY['a'::character varying, ...]::text[]`` comes back as ``ARRAY['a'::character varying::text,
...]``. Comparing texts would call that a difference in every drill of such a database.

So a differing text is not argued about but tried: the copy's own server parses the text that stands in the manifest,
in a transaction that is rolled back, and prints it. If that is what it prints of the restored object, the restore did
what the dump said. Only a scratch copy may be asked, and only of the kinds below; anything else stays a difference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from runbook_lib.backup.definitions import Difference
from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import Session

_NEW = "tensafe_runbook_reparsed"
_EVENT_TRIGGERS_CAN_BE_SWITCHED_OFF_SINCE = 170000
_WORD = r'(?:"(?:[^"]|"")+"|[^\s."(]+)'
"""One name as PostgreSQL prints it, quoted or not."""
_NAME = rf"{_WORD}(?:\.{_WORD})?"
"""A name with or without its schema."""


def same_after_parsing(session: Session, difference: Difference) -> bool:
    """Return whether the copy's server, given the expected text, prints the found one.

    :param session: a session that may write, on a scratch copy; everything is rolled back
    """
    again = _AGAIN.get(difference.kind)
    if again is None or difference.expected is None or difference.found is None:
        return False
    session.execute("BEGIN")
    # The copy's own event triggers must not run: they would act on it, and what nextval() does no rollback undoes.
    session.execute("SET LOCAL session_replication_role = replica")
    if session.version_num >= _EVENT_TRIGGERS_CAN_BE_SWITCHED_OFF_SINCE:
        session.execute("SET LOCAL event_triggers = off")  # those that fire always, too
    try:
        return again(session, difference.name, difference.expected, difference.found)
    except (postgres.DriverError, _NotOfThisForm):
        return False  # a text that the server does not even accept is no other way of saying the same
    finally:
        session.execute("ROLLBACK")


class _NotOfThisForm(Exception):
    """A text is not of the form in which PostgreSQL 14 to 18 prints such a definition."""


def _match(pattern: str, text: str) -> tuple[str, ...]:
    matched = re.fullmatch(pattern, text, re.DOTALL)
    if matched is None:
        raise _NotOfThisForm
    return tuple(group or "" for group in matched.groups())


def _constraint(session: Session, name: str, expected: str, found: str) -> bool:
    table, _ = _match(rf"({_NAME}) (.*)", name)
    if not expected.startswith("CHECK"):
        return False
    suffix = "" if "NOT VALID" in expected else " NOT VALID"  # rows need no checking to print a definition
    session.execute(f"ALTER TABLE {table} ADD CONSTRAINT {_NEW} {expected}{suffix}")
    printed = session.value(
        "SELECT pg_catalog.pg_get_constraintdef(c.oid) FROM pg_catalog.pg_constraint c"
        " WHERE c.conrelid = %s::pg_catalog.regclass AND c.conname = %s",
        table,
        _NEW,
    )
    return str(printed).removesuffix(suffix) == found


def _domain_constraint(session: Session, name: str, expected: str, found: str) -> bool:
    domain, _ = _match(rf"({_NAME}) (.*)", name)
    if expected.endswith(" NOT VALID") != found.endswith(" NOT VALID"):
        return False
    session.execute(f"ALTER DOMAIN {domain} ADD CONSTRAINT {_NEW} {expected.removesuffix(' NOT VALID')} NOT VALID")
    printed = session.value(
        "SELECT pg_catalog.pg_get_constraintdef(c.oid) FROM pg_catalog.pg_constraint c WHERE c.conname = %s", _NEW
    )
    return str(printed).removesuffix(" NOT VALID") == found.removesuffix(" NOT VALID")


def _view(session: Session, _: str, expected: str, found: str) -> bool:
    session.execute(f"CREATE TEMPORARY VIEW {_NEW} AS {expected}")
    printed = session.value("SELECT pg_catalog.pg_get_viewdef(%s::pg_catalog.regclass)", f"pg_temp.{_NEW}")
    return bool(printed == found)


def _index(session: Session, _: str, expected: str, found: str) -> bool:
    """Create the index on an empty twin of its table, so that no row is read."""
    create, index, only, table, rest = _match(
        rf"(CREATE (?:UNIQUE )?INDEX) ({_NAME}) ON (ONLY )?({_NAME}) (USING .*)", expected
    )
    # What follows the definition in the inventory is no SQL: it must be equal as it is.
    mark = re.search(
        r"(?: (?:INVALID|NOT READY|CLUSTER|REPLICA IDENTITY|TABLESPACE|ATTACHED TO|STATISTICS)\b.*)?$", rest
    )
    state = mark.group() if mark else ""
    session.execute(f"CREATE TEMPORARY TABLE {_NEW} (LIKE {table})")
    session.execute(f"{create} {_NEW}_index ON pg_temp.{_NEW} {rest.removesuffix(state)}")
    printed = str(session.value("SELECT pg_catalog.pg_get_indexdef(%s::pg_catalog.regclass)", f"pg_temp.{_NEW}_index"))
    return f"{create} {index} ON {only}{table} {printed[printed.index('USING ') :]}{state}" == found


def _policy(session: Session, name: str, expected: str, found: str) -> bool:
    table, _ = _match(rf"({_NAME}) (.*)", name)
    form = r"(.*? TO .*?)(?: USING (.*?))?(?: WITH CHECK (.*))?"
    (head, using, check), (head_found, using_found, check_found) = _match(form, expected), _match(form, found)
    return head == head_found and all(
        before == after or _same_condition(session, table, before, after)
        for before, after in ((using, using_found), (check, check_found))
    )


def _same_condition(session: Session, table: str, expected: str, found: str) -> bool:
    """Print a condition over a table's columns again, as a policy: it may hold a subquery, which no CHECK may."""
    return bool(expected and found) and _printed_condition(session, table, expected) == found


def _printed_condition(session: Session, table: str, condition: str) -> str:
    session.execute(f"CREATE POLICY {_NEW} ON {table} USING ({condition})")
    printed = session.value(
        "SELECT pg_catalog.pg_get_expr(p.polqual, p.polrelid) FROM pg_catalog.pg_policy p"
        " WHERE p.polrelid = %s::pg_catalog.regclass AND p.polname = %s",
        table,
        _NEW,
    )
    session.execute(f"DROP POLICY {_NEW} ON {table}")
    return str(printed)


def _column_expression(session: Session, name: str, expected: str, found: str) -> bool:
    """Print a default or a generation expression again, both sides wrapped into a condition."""
    table, _ = _match(rf"({_NAME}) (.*)", name)
    (kind, text), (kind_found, text_found) = (
        _match(r"((?:STORED |VIRTUAL )?)(.*)", each) for each in (expected, found)
    )
    before, after = (_printed_condition(session, table, f"({each}) IS NULL") for each in (text, text_found))
    return kind == kind_found and before == after


def _published_table(session: Session, name: str, expected: str, found: str) -> bool:
    (table,) = _match(rf"{_WORD} ({_NAME})", name)
    (head, condition), (head_found, condition_found) = (
        _match(r"(.*?)(?: where (.*))?", each) for each in (expected, found)
    )
    return head == head_found and _same_condition(session, table, condition, condition_found)


def _trigger(session: Session, name: str, expected: str, found: str) -> bool:
    table, trigger = _match(rf"({_NAME}) (.*)", name)
    definition, state = _match(r"(.*?\))( DISABLED| ENABLED ALWAYS| ENABLED ON REPLICA ONLY)?", expected)
    session.execute(f"DROP TRIGGER {trigger} ON {table}")
    session.execute(definition)
    printed = session.value(
        "SELECT pg_catalog.pg_get_triggerdef(t.oid) FROM pg_catalog.pg_trigger t"
        " WHERE t.tgrelid = %s::pg_catalog.regclass AND pg_catalog.quote_ident(t.tgname) = %s AND NOT t.tgisinternal",
        table,
        trigger,
    )
    return f"{printed}{state}" == found


def _function(session: Session, name: str, expected: str, found: str) -> bool:
    """A body in SQL's own syntax (BEGIN ATOMIC) is kept as a tree too."""
    owner, definition = _match(r"(owner .*? )(CREATE OR REPLACE .*)", expected)
    session.execute(definition)
    printed = session.value("SELECT pg_catalog.pg_get_functiondef(%s::pg_catalog.regprocedure)", name)
    return f"{owner}{printed}" == found


def _rule(session: Session, name: str, expected: str, found: str) -> bool:
    table, rule = _match(rf"({_NAME}) (.*)", name)
    definition, state = _match(r"(CREATE RULE .*?;)( STATE \w)?", expected)
    session.execute(definition.replace("CREATE RULE", "CREATE OR REPLACE RULE", 1))
    printed = session.value(
        "SELECT pg_catalog.pg_get_ruledef(r.oid) FROM pg_catalog.pg_rewrite r"
        " WHERE r.ev_class = %s::pg_catalog.regclass AND pg_catalog.quote_ident(r.rulename) = %s",
        table,
        rule,
    )
    return f"{printed}{state}" == found


def _statistics(session: Session, name: str, expected: str, found: str) -> bool:
    owner, definition, target = _match(r"(owner .*? )(CREATE STATISTICS .*?)( TARGET -?\d+)?", expected)
    session.execute(f"DROP STATISTICS {name}")
    session.execute(definition)
    printed = session.value(
        "SELECT pg_catalog.pg_get_statisticsobjdef(s.oid) FROM pg_catalog.pg_statistic_ext s"
        " JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace"
        " WHERE pg_catalog.format('%%I.%%I', n.nspname, s.stxname) = %s",
        name,
    )
    return f"{owner}{printed}{target}" == found


_AGAIN: Mapping[str, Callable[[Session, str, str, str], bool]] = {
    "constraint": _constraint,
    "domain constraint": _domain_constraint,
    "view query": _view,
    "materialized view query": _view,
    "index": _index,
    "policy": _policy,
    "column default": _column_expression,
    "generated column": _column_expression,
    "published table": _published_table,
    "trigger": _trigger,
    "function": _function,
    "procedure": _function,
    "rule": _rule,
    "extended statistics": _statistics,
}
