"""A database, a bucket and an operator's home in which everything secret is a canary."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from psycopg.conninfo import make_conninfo

from runbook_lib.backup import dump
from runbook_lib.backup.catalog import Archive
from runbook_lib.reach import postgres
from runbook_lib.reach.objects import Bucket
from runbook_lib.reach.server import PostgresServer
from runbook_lib.safety.mark import MARK
from runbook_lib.safety.permit import Permit
from runbook_lib.sandbox.object_store import ObjectStore
from tests.bad_input.running import environment
from tests.secrets.canaries import Canaries

PERMIT = Permit("a test's own archive", granted=True, reason="the test made it")
DEFINITIONS = ("default", "check", "comment", "label")
"""Canaries in the database's own definition: shown where they differ, and nowhere else."""

APP = """
CREATE TYPE public.state AS ENUM ('new', '{label}');
CREATE TABLE public.users (
    email text PRIMARY KEY, note text DEFAULT '{default}' CHECK (note <> '{check}'), doc jsonb, photo bytea,
    link text, state public.state);
COMMENT ON TABLE public.users IS '{comment}';
INSERT INTO public.users VALUES
    ('{key}', '{text}', '{{"a": "{jsonb}"}}', convert_to('{bytea}', 'UTF8'),
     'https://b.s3.amazonaws.com/k?X-Amz-Signature={presigned}', 'new'), ('b@c', 'n', NULL, NULL, NULL, 'new');
CREATE FUNCTION public.far() RETURNS text LANGUAGE plpgsql AS $$
BEGIN RETURN dblink_connect('host=far user=me password={function}'); END $$;
CREATE FUNCTION public.near() RETURNS text LANGUAGE sql AS $$ SELECT 'postgresql://me:{function_url}@near/db'::text $$;
CREATE FOREIGN DATA WRAPPER plain OPTIONS (token '{wrapper}');
CREATE SERVER far FOREIGN DATA WRAPPER plain OPTIONS (host 'far', password '{server}', url 'https://me:{server_url}@far');
CREATE USER MAPPING FOR clerk_file SERVER far OPTIONS (user 'me', password '{mapping}');
CREATE FOREIGN TABLE public.afar (a int OPTIONS (secret_name '{foreign_column}')) SERVER far
    OPTIONS (passwd '{foreign_table}');
CREATE SUBSCRIPTION far CONNECTION 'host=far password={subscription}' PUBLICATION p WITH (connect = false);
"""
"""Everything that a dump carries without complaint."""

CHANGED = """
UPDATE public.users SET note = '{new_text}', doc = '["{new_jsonb}"]';
DELETE FROM public.users WHERE email = 'b@c';
ALTER TABLE public.users DROP CONSTRAINT users_note_check,
    ADD CONSTRAINT users_note_check CHECK (note <> '{new_check}'), ALTER note SET DEFAULT '{new_default}';
COMMENT ON TABLE public.users IS '{new_comment}';
ALTER TYPE public.state RENAME VALUE '{label}' TO '{new_label}';
CREATE OR REPLACE FUNCTION public.far() RETURNS text LANGUAGE plpgsql AS $$
BEGIN RETURN dblink_connect('host=far user=me password={new_function}'); END $$;
CREATE OR REPLACE FUNCTION public.near() RETURNS text LANGUAGE sql AS $$
    SELECT 'postgresql://you:{new_function_url}@near/db'::text $$;
ALTER SERVER far OPTIONS (SET host 'farther', SET password '{new_server}', SET url 'https://me:{new_server_url}@farther');
ALTER USER MAPPING FOR clerk_file SERVER far OPTIONS (SET password '{new_mapping}', ADD more 'x');
ALTER FOREIGN TABLE public.afar OPTIONS (SET passwd '{new_foreign_table}', ADD more 'x');
ALTER ROLE clerk_file SET "app.api_token" = '{new_role_setting}';
"""
"""Another database, whose dump is passed off as the first one's."""

RESTORED = """
CREATE FUNCTION public.restored() RETURNS bool LANGUAGE sql STABLE AS $$
    SELECT pg_catalog.current_database() = 'tensafe_verify' $$;
CREATE FUNCTION public.raises(text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
    IF public.restored() THEN RAISE EXCEPTION 'no such user: %', $1 USING DETAIL = $1, HINT = $1; END IF;
    RETURN true; END $$;
CREATE FUNCTION public.casts(text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
    IF public.restored() {and_when} THEN RETURN $1::int; END IF; RETURN 1; END $$;
"""
BROKEN = (
    RESTORED.format(and_when="")
    + """
CREATE FUNCTION public.tag(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
    RETURN CASE WHEN public.restored() THEN (SELECT note FROM public.checked) ELSE $1 END; END $$;
CREATE TABLE public.checked (note text);
INSERT INTO public.checked VALUES ('{broken_tag}');
CREATE TABLE public.fails (note text CHECK (NOT public.restored()));
INSERT INTO public.fails VALUES (E'line\\n{broken_check}\\n{broken_check}');
CREATE TABLE public.raised (note text CHECK (public.raises(note)));
INSERT INTO public.raised VALUES ('{broken_raise}');
CREATE TABLE public.cast (note text CHECK (public.casts(note) > 0));
INSERT INTO public.cast VALUES (E'{broken_cast}" and\\n"{broken_cast}');
CREATE TABLE public.doubled (note text);
INSERT INTO public.doubled VALUES ('{broken_unique}'), ('{broken_unique}2');
CREATE UNIQUE INDEX doubled_tag ON public.doubled (public.tag(note));
CREATE TABLE public.parent (id text PRIMARY KEY);
CREATE TABLE public.orphan (parent text REFERENCES public.parent);
SET session_replication_role = replica;
INSERT INTO public.orphan VALUES ('{broken_reference}');
"""
)
"""Rows that the copy refuses, each for another reason, and quotes."""

UNREADABLE = (
    RESTORED.format(and_when="AND current_setting('application_name') = 'runbook/compare'")
    + """
CREATE TABLE public.t (note text);
INSERT INTO public.t VALUES ('{unreadable}');
CREATE MATERIALIZED VIEW public.m AS SELECT public.casts(note) FROM public.t;
"""
)
"""A view that fails while it is compared, in a way that nobody foresaw, and quotes a row."""

SLOW = """
CREATE TABLE public.t (note text CHECK (pg_catalog.current_database() <> 'tensafe_verify'
    OR pg_catalog.pg_sleep(1000)::text = ''));
INSERT INTO public.t VALUES ('{slow}');
"""


@dataclass(frozen=True)
class Planted:
    """The database and the bucket, and all canaries in them."""

    server: PostgresServer
    store: ObjectStore
    bucket: Bucket
    canaries: Canaries

    def env(self, temporary: Path, **extra: str) -> Mapping[str, str]:
        """The environment of an operator whose home is full of secrets."""
        credentials = {"AWS_ACCESS_KEY_ID": self.store.access_key, "AWS_SECRET_ACCESS_KEY": self.store.secret_key}
        return environment(temporary, **{**credentials, "KUBECONFIG": str(self.kubeconfig(temporary)), **extra})

    def kubeconfig(self, folder: Path) -> Path:
        """Write a kubeconfig of a cluster that does not answer."""
        path = folder.parent / f"{folder.name}.kubeconfig"
        path.write_text(
            "apiVersion: v1\nkind: Config\n"
            "clusters: [{name: far, cluster: {server: 'https://127.0.0.1:9'}}]\n"
            f"users: [{{name: me, user: {{token: {self.canaries['bearer']}}}}}]\n"
            "contexts: [{name: far, context: {cluster: far, user: me}}]\n"
        )
        return path

    def passfile(self, folder: Path, role: str, password: str) -> str:
        return _private(folder, "pgpass", f"*:*:*:{role}:{password}\n")

    def servicefile(self, folder: Path) -> str:
        lines = ["[tensafe]", f"host={self.server.folder}", "dbname=app", "user=clerk_service"]
        return _private(folder, "services", "\n".join([*lines, f"password={self.canaries['password_service']}\n"]))

    def profile(self, folder: Path, *, prefix: str = "app/", dsn: str = "", bucket: str = "") -> Path:
        path = folder / "here.toml"
        path.write_text(
            f"""name = "here"
[database]
dsn = '{dsn or self.server.dsn("app")}'
audit_log = false
[backups]
bucket = "{bucket or self.bucket.name}"
prefix = "{prefix}"
endpoint_url = "{self.store.endpoint_url}"
region = "{self.store.region}"
[restore]
jobs = 2
[kubernetes.primary]
context = "far"
"""
        )
        return path

    def dsn(self, role: str) -> str:
        return make_conninfo(self.server.dsn("app"), user=role)


def _private(folder: Path, name: str, text: str) -> str:
    handle, path = tempfile.mkstemp(prefix=name, dir=folder)
    os.write(handle, text.encode())
    os.close(handle)
    return path


def plant(server: PostgresServer, store: ObjectStore, bucket: Bucket) -> Planted:
    """Plant everything, and take a backup of each database."""
    canaries = Canaries()
    canaries.add("the store's secret", store.secret_key)
    planted = Planted(server, store, bucket, canaries)
    with postgres.session(server.dsn(), read_only=False) as session:
        for role in ("file", "env", "service"):
            password = canaries[f"password_{role}"]
            session.execute(f"CREATE ROLE clerk_{role} SUPERUSER LOGIN PASSWORD '{password}'")
        verifier = session.value("SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = 'clerk_file'")
        canaries.add("verifier", str(verifier)[:40])
        session.execute(f"ALTER ROLE clerk_file SET \"app.api_token\" = '{canaries['role_setting']}'")
    _fill(planted, "app", APP)
    with postgres.session(server.dsn(), read_only=False) as session:
        session.execute(f"ALTER DATABASE app SET \"app.jwt_secret\" = '{canaries['database_setting']}'")
    expected = dump.take(server.dsn("app"), Archive(bucket, "app/"), permit=PERMIT, kind="daily").backup
    with postgres.session(server.dsn("app"), read_only=False) as session:  # or its database could be no template
        session.execute("ALTER SUBSCRIPTION far SET (slot_name = NONE)")
        session.execute("DROP SUBSCRIPTION far")
    _fill(planted, "changed", CHANGED, like="app")
    found = dump.take(server.dsn("changed"), Archive(bucket, "changed/"), permit=PERMIT, kind="daily").backup
    assert expected.manifest is not None
    assert found.manifest is not None
    stored = bucket.copy(found.dump.key, "differs/daily/x.dump")
    artefact = replace(found.manifest.dump, key=stored.key, version_id=stored.version_id)
    passed_off = replace(expected.manifest, dump=artefact, globals=found.manifest.globals)
    bucket.write_once("differs/daily/x.manifest", passed_off.to_bytes(), metadata=MARK)
    for name, sql in (("broken", BROKEN), ("unreadable", UNREADABLE), ("slow", SLOW)):
        _fill(planted, name, sql)
        dump.take(server.dsn(name), Archive(bucket, f"{name}/"), permit=PERMIT, kind="daily")
    configuration = server.data_directory / "pg_hba.conf"
    roles = "clerk_file,clerk_env,clerk_service"
    configuration.write_text(f"local all {roles} scram-sha-256\n{configuration.read_text()}")
    with postgres.session(server.dsn()) as session:
        session.execute("SELECT pg_reload_conf()")
    return planted


def _fill(planted: Planted, database: str, sql: str, *, like: str = "template0") -> None:
    with postgres.session(planted.server.dsn(), read_only=False) as session:
        session.execute(f"CREATE DATABASE {database} TEMPLATE {like}")
    with postgres.session(planted.server.dsn(database), read_only=False) as session:
        session.connection.execute(sql.format_map(planted.canaries).encode())


__all__ = ["APP", "BROKEN", "CHANGED", "DEFINITIONS", "SLOW", "UNREADABLE", "Planted", "plant"]
