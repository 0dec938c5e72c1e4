"""Every object as one line, what differs as one line more, and the same meaning in other words as none."""

from __future__ import annotations

import subprocess

import pytest

from runbook_lib.backup import definitions, reparse
from runbook_lib.backup.definitions import Definition, Difference, differences
from runbook_lib.reach import postgres
from tests.backup.real import Databases


class TestDifferences:
    A = Definition("index", "public.a", "CREATE INDEX a ON public.t USING btree (n)")

    def test_none(self) -> None:
        assert differences([self.A], [self.A]) == []

    def test_missing_new_and_changed(self) -> None:
        other = Definition("index", "public.b", "x")
        changed = Definition("index", "public.a", "y")
        assert differences([self.A], []) == [Difference("index", "public.a", self.A.definition, None)]
        assert differences([], [self.A]) == [Difference("index", "public.a", None, self.A.definition)]
        assert differences([self.A, other], [changed, other]) == [
            Difference("index", "public.a", self.A.definition, "y")
        ]

    def test_one_name_in_two_kinds(self) -> None:
        assert differences([self.A], [Definition("table", "public.a", self.A.definition)])[0].found is None

    @pytest.mark.parametrize(
        ("expected", "found", "line"),
        [
            ("owner a", None, "is missing; it was owner a"),
            (None, "owner a", "was not in the backup; it is owner a"),
            ("CHECK ((n > 0))", "CHECK ((n > 1))", "expected CHECK ((n > 0)), found CHECK ((n > 1))"),
            (
                "a b c d e f g h i j k l",
                "a b c d e f X h i j k l",
                "expected ... d e f g h i j ..., found ... d e f X h i j ...",
            ),
            ("SELECT  1", "SELECT 1", "expected 'SELECT  1', found 'SELECT 1'"),
        ],
    )
    def test_is_readable(self, expected: str | None, found: str | None, line: str) -> None:
        assert str(Difference("constraint", "public.t c", expected, found)) == line

    def test_stays_one_line_of_a_bearable_length(self) -> None:
        body = "\n".join(f"line {number}" for number in range(1000))
        told = str(Difference("function", "public.f()", body, body.replace("line 500", "LINE 500")))
        assert "\n" not in told
        assert "LINE 500" in told
        assert len(told) < 400

    def test_shows_every_place_where_the_two_part(self) -> None:
        """A condition in other words must not push the word out of the line that tells of a trigger switched off."""
        words = [f"w{number}" for number in range(60)]
        found = ["other", *words[1:], "DISABLED"]
        told = str(Difference("trigger", "public.t t", " ".join(words), " ".join(found)))
        assert told == "expected w0 w1 w2 w3 ... w57 w58 w59, found other w1 w2 w3 ... w57 w58 w59 DISABLED"


GIVEN = """
CREATE ROLE teller;
CREATE DOMAIN public.colour AS varchar CHECK (VALUE IN ('red', 'green'));
CREATE TABLE public.t (
    n int PRIMARY KEY,
    w varchar CONSTRAINT known CHECK (w IN ('a', 'b')),
    d boolean DEFAULT (('a'::varchar) IN ('a', 'b')),
    g boolean GENERATED ALWAYS AS (w IN ('a', 'b')) STORED
);
CREATE VIEW public.v AS SELECT n FROM public.t WHERE w IN ('a', 'b');
CREATE MATERIALIZED VIEW public.m AS SELECT n FROM public.t WHERE w IN ('a', 'b');
CREATE INDEX partial ON public.t (n) WHERE w IN ('a', 'b');
CREATE INDEX expression ON public.t ((w IN ('a', 'b')));
CREATE POLICY own ON public.t FOR ALL TO teller USING (w IN ('a', 'b')) WITH CHECK (w IN ('a', 'b'));
CREATE FUNCTION public.f(w varchar) RETURNS boolean LANGUAGE sql BEGIN ATOMIC SELECT w IN ('a', 'b'); END;
CREATE FUNCTION public.noticed() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER notice BEFORE INSERT ON public.t FOR EACH ROW
    WHEN (NEW.w IN ('a', 'b')) EXECUTE FUNCTION public.noticed();
CREATE RULE r AS ON DELETE TO public.t WHERE OLD.w IN ('a', 'b') DO INSTEAD NOTHING;
CREATE STATISTICS public.s ON (w IN ('a', 'b')), n FROM public.t;
CREATE PUBLICATION p FOR TABLE public.t WHERE (n IN (1, 2));
"""

CHANGES = {
    "constraint": "ALTER TABLE public.t DROP CONSTRAINT known;"
    " ALTER TABLE public.t ADD CONSTRAINT known CHECK (w IN ('a', 'c'))",
    "domain constraint": "ALTER DOMAIN public.colour DROP CONSTRAINT colour_check;"
    " ALTER DOMAIN public.colour ADD CONSTRAINT colour_check CHECK (VALUE IN ('red', 'blue'))",
    "column default": "ALTER TABLE public.t ALTER d SET DEFAULT (('a'::varchar) IN ('a', 'c'))",
    "view query": "CREATE OR REPLACE VIEW public.v AS SELECT n FROM public.t WHERE w IN ('a', 'c')",
    "materialized view query": "DROP MATERIALIZED VIEW public.m;"
    " CREATE MATERIALIZED VIEW public.m AS SELECT n FROM public.t WHERE w IN ('a', 'c')",
    "index": "DROP INDEX public.partial; CREATE INDEX partial ON public.t (n) WHERE w IN ('a', 'c')",
    "policy": "ALTER POLICY own ON public.t USING (w IN ('a', 'c'))",
    "policy's check": "ALTER POLICY own ON public.t WITH CHECK (w IN ('a', 'c'))",
    "policy's role": "ALTER POLICY own ON public.t TO PUBLIC",
    "function": "CREATE OR REPLACE FUNCTION public.f(w varchar) RETURNS boolean LANGUAGE sql"
    " BEGIN ATOMIC SELECT w IN ('a', 'c'); END",
    "trigger": "DROP TRIGGER notice ON public.t; CREATE TRIGGER notice BEFORE INSERT ON public.t FOR EACH ROW"
    " WHEN (NEW.w IN ('a', 'c')) EXECUTE FUNCTION public.noticed()",
    "trigger's state": "ALTER TABLE public.t DISABLE TRIGGER notice",
    "rule": "CREATE OR REPLACE RULE r AS ON DELETE TO public.t WHERE OLD.w IN ('a', 'c') DO INSTEAD NOTHING",
    "extended statistics": "DROP STATISTICS public.s; CREATE STATISTICS public.s ON (w IN ('a', 'c')), n FROM public.t",
    "published table": "ALTER PUBLICATION p SET TABLE public.t WHERE (n IN (1, 3))",
}


def written_down(dsn: str) -> list[Definition]:
    with postgres.session(dsn) as session:
        return definitions.definitions(session)


@pytest.fixture(scope="module")
def given(databases: Databases) -> list[Definition]:
    return written_down(databases.make(GIVEN))


@pytest.fixture(scope="module")
def copy(databases: Databases, given: list[Definition]) -> str:
    """A restored copy of it."""
    source = databases.make(GIVEN.replace("CREATE ROLE teller;", ""))
    tools = databases.server.tools
    dumped = subprocess.run([tools.program("pg_dump"), "-Fc", "-d", source], capture_output=True, check=True)
    target = databases.make()
    subprocess.run([tools.program("pg_restore"), "-e", "-d", target], input=dumped.stdout, check=True)
    return target


class TestReparse:
    def test_the_restored_text_is_another_one(self, given: list[Definition], copy: str) -> None:
        """Without that there would be nothing to prove here."""
        assert len(differences(given, written_down(copy))) >= 8

    def test_the_same_meaning_is_accepted(self, given: list[Definition], copy: str) -> None:
        with postgres.session(copy, read_only=False) as session:
            for difference in differences(given, written_down(copy)):
                if difference.kind != "database":
                    assert reparse.same_after_parsing(session, difference), difference

    @pytest.mark.parametrize("what", CHANGES)
    def test_another_meaning_is_refused(
        self, what: str, given: list[Definition], copy: str, databases: Databases
    ) -> None:
        changed = databases.make(CHANGES[what], like=postgres.database_of(copy))
        with postgres.session(changed, read_only=False) as session:
            refused = [
                difference
                for difference in differences(given, written_down(changed))
                if difference.kind != "database" and not reparse.same_after_parsing(session, difference)
            ]
        assert {difference.kind for difference in refused} == {what.split("'")[0]}

    def test_changes_nothing(self, given: list[Definition], copy: str) -> None:
        before = written_down(copy)
        with postgres.session(copy, read_only=False) as session:
            for difference in differences(given, before):
                reparse.same_after_parsing(session, difference)
        assert written_down(copy) == before

    def test_a_text_that_is_no_sql_is_no_other_way_of_saying_it(self, copy: str) -> None:
        with postgres.session(copy, read_only=False) as session:
            for kind in reparse._AGAIN:
                nonsense = Difference(kind, "public.t known", "nonsense", "CHECK (true)")
                assert not reparse.same_after_parsing(session, nonsense)
