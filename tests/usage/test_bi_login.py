"""Logins for BI tools: they read one organisation's tables, and nothing else, until they are revoked."""

import re
from collections.abc import Iterator
from io import StringIO
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from customers.models import Organisation
from tests.conftest import record, take_in
from tests.roles import drop_readers
from usage.definitions import create_usage_event
from usage.models import UsageEvent
from usage.readers import (
    LabelRefused,
    Login,
    ReadersRefused,
    bi_labels,
    connect_reader,
    issue_bi_login,
    metric_role,
    prepare_reader,
    revoke_bi_login,
)

SCHEMA = {"type": "object", "properties": {"secret": {"type": "string"}}}


@pytest.fixture(autouse=True)
def no_role_outlives_the_test(transactional_db: None) -> Iterator[None]:
    yield
    drop_readers()


@pytest.fixture
def other(organisation: Organisation) -> Organisation:
    """Another organisation, with a record of its own."""
    other = Organisation.objects.create(name="Other")
    event = create_usage_event(other, name="Plans", slug="plans", schema=SCHEMA)
    take_in(event, {"customer_id": "theirs", "timestamp": "2025-01-01T00:00:00Z", "data": {"secret": "hidden"}})
    return other


def log_in(login: Login) -> psycopg.Connection[Any]:
    return psycopg.connect(
        host=login.host,
        port=login.port,
        dbname=login.database,
        user=login.user,
        password=login.password,
        autocommit=True,
    )


def test_a_login_reads_the_tables_of_its_organisation_those_of_later_too(
    compute: UsageEvent, organisation: Organisation
) -> None:
    take_in(compute, record("cus_1", hours=5))
    login = issue_bi_login(organisation, "metabase")

    with log_in(login) as session:
        assert session.execute("SELECT customer_id, cpu_usage_hours FROM compute_hours").fetchall() == [("cus_1", 5)]
        create_usage_event(organisation, name="Later", slug="later", schema=SCHEMA)
        assert session.execute(f"SELECT count(*) FROM {login.schema}.later").fetchone() == (0,)
        settings = "statement_timeout", "default_transaction_read_only", "search_path"
        assert [session.execute(f"SHOW {name}").fetchone() for name in settings] == [
            ("15min",),
            ("on",),
            (f"organisation_{organisation.pk}, pg_catalog",),
        ]


FORBIDDEN = [
    ("SELECT * FROM public.usage_usagerecord", "permission denied for schema public"),
    ("SELECT * FROM public.customers_apikey", "permission denied for schema public"),
    ("SELECT * FROM organisation_{other}.plans", "permission denied for schema organisation_"),
    ("INSERT INTO compute_hours (customer_id) VALUES ('x')", "cannot insert into view"),
    ("UPDATE compute_hours SET region = 'x'", "cannot update view"),
    ("DELETE FROM compute_hours", "cannot delete from view"),
    ("TRUNCATE compute_hours", "permission denied|is not a table"),
    ("CREATE TABLE mine (a integer)", "permission denied|no schema has been selected"),
    ("CREATE TABLE public.mine (a integer)", "permission denied for schema public"),
    ("CREATE VIEW mine AS SELECT 1", "permission denied|no schema has been selected"),
    ("CREATE TEMPORARY TABLE mine (a integer)", "permission denied to create temporary tables"),
    ("CREATE SCHEMA mine", "permission denied for database"),
    ("CREATE ROLE mine", "permission denied to create role"),
    ("CREATE DATABASE mine", "permission denied to create database"),
    ("CREATE EXTENSION dblink", "permission denied|is not available"),
    ("ALTER ROLE CURRENT_USER CREATEROLE", "permission denied|must have admin"),
    ("SET ROLE {application}", "permission denied to set role"),
    ("SET SESSION AUTHORIZATION {application}", "permission denied to set session authorization"),
    ("SELECT set_config('role', '{application}', false)", "permission denied to set role"),
    ("COPY compute_hours TO PROGRAM 'cat'", "permission denied to COPY|must be superuser"),
    ("COPY compute_hours TO '/tmp/stolen'", "permission denied to COPY|must be superuser"),
    ("SELECT pg_read_file('/etc/passwd')", "permission denied for function pg_read_file"),
    ("SELECT lo_import('/etc/passwd')", "permission denied for function lo_import"),
    ("SELECT * FROM pg_authid", "permission denied for table pg_authid"),
    ("SELECT * FROM pg_statistic", "permission denied for table pg_statistic"),
]


def test_a_login_can_do_nothing_else_even_where_it_may_write(
    compute: UsageEvent, organisation: Organisation, other: Organisation
) -> None:
    done = []
    with log_in(issue_bi_login(organisation, "bi")) as session:
        session.execute("SET default_transaction_read_only = off")  # a default is only a default
        for statement, refusal in FORBIDDEN:
            application = connection.settings_dict["USER"]
            text = statement.replace("{other}", str(other.pk)).replace("{application}", application)
            try:
                session.execute(text)
            except psycopg.Error as error:
                if re.search(refusal, str(error)):
                    continue
                done.append(f"{text}: {error}")
            else:
                done.append(text)

    assert done == []


def test_the_statistics_and_the_sessions_of_others_are_not_shown(
    compute: UsageEvent, organisation: Organisation, other: Organisation
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE usage_usagerecord, customers_customer")
        cursor.execute("SELECT count(*) > 0 FROM pg_stats WHERE tablename = 'customers_customer'")
        assert cursor.fetchone() == (True,)
    with log_in(issue_bi_login(organisation, "bi")) as session:
        assert (
            session.execute(
                "SELECT * FROM pg_stats WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
            ).fetchall()
            == []
        )
        texts = session.execute("SELECT query FROM pg_stat_activity WHERE usename <> CURRENT_USER").fetchall()
        assert set(texts) <= {("<insufficient privilege>",)}
        tables = session.execute("SELECT table_schema, table_name FROM information_schema.tables"
                                 " WHERE table_schema NOT IN ('pg_catalog', 'information_schema')")  # fmt: skip
        assert tables.fetchall() == [(f"organisation_{organisation.pk}", "compute_hours")]


def test_a_revoked_login_is_gone_and_its_sessions_with_it(compute: UsageEvent, organisation: Organisation) -> None:
    first, second = issue_bi_login(organisation, "first"), issue_bi_login(organisation, "second")
    assert bi_labels(organisation) == ["first", "second"]
    session = log_in(first)

    revoke_bi_login(organisation, "first")

    with pytest.raises(psycopg.OperationalError, match="terminating connection due to administrator command"):
        session.execute("SELECT 1")
    session.close()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        log_in(first)
    assert bi_labels(organisation) == ["second"]
    with log_in(second) as session:
        assert session.execute("SELECT count(*) FROM compute_hours").fetchone() == (0,)
    # The label is free again, with another password.
    again = issue_bi_login(organisation, "first")
    assert again.user == first.user
    assert again.password != first.password


def test_a_label_that_makes_no_name_is_refused(organisation: Organisation) -> None:
    for label in ("", "A", "a_b", "-a", "a-", "x" * 21, "a b", "ü", '"', "a\n"):
        with pytest.raises(LabelRefused, match="1 to 20 letters"):
            issue_bi_login(organisation, label)
    assert bi_labels(organisation) == []


def test_a_label_is_used_once(organisation: Organisation, other: Organisation) -> None:
    login = issue_bi_login(organisation, "bi")

    with pytest.raises(LabelRefused, match="not in use was expected, got 'bi'"):
        issue_bi_login(organisation, "bi")
    with pytest.raises(LabelRefused, match="in use was expected, got 'bo'"):
        revoke_bi_login(organisation, "bo")
    with pytest.raises(LabelRefused, match="in use was expected, got 'bi'"):
        revoke_bi_login(other, "bi")
    log_in(login).close()


def test_the_role_of_sql_metrics_is_no_bi_login(organisation: Organisation) -> None:
    prepare_reader(organisation)

    assert bi_labels(organisation) == []
    with connect_reader(organisation) as session:
        assert session.execute("SELECT CURRENT_USER, SESSION_USER").fetchone() == (metric_role(organisation.pk),) * 2


def test_roles_of_two_databases_have_different_names(monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    for database in ("tallybook", "tallybook_2", "a" * 30, "a" * 31, "é" * 11):
        with monkeypatch.context() as patch:
            patch.setitem(connection.settings_dict, "NAME", database)
            names.append(metric_role(7))
            assert len(f"{metric_role(10**9)}_bi_{'x' * 20}".encode()) <= 63

    assert names[:2] == ["tallybook_org_7", "tallybook_2_org_7"]
    assert names[2].startswith("aaaaaaaaaaa_")
    assert len(set(names)) == 5


def test_a_new_secret_key_needs_nothing_to_be_done(organisation: Organisation, settings: Any) -> None:
    with connect_reader(organisation):
        pass
    settings.SECRET_KEY = "another one"

    with connect_reader(organisation) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)


def test_a_role_that_outlived_its_database_is_mended(compute: UsageEvent, organisation: Organisation) -> None:
    connect_reader(organisation).close()
    schema, role = f"organisation_{organisation.pk}", metric_role(organisation.pk)
    with connection.cursor() as cursor:
        cursor.execute(f'REVOKE ALL ON SCHEMA {schema} FROM "{role}"')
        cursor.execute(f'REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM "{role}"')

    with connect_reader(organisation) as session:
        assert session.execute(f"SELECT count(*) FROM {schema}.compute_hours").fetchone() == (0,)


def test_what_the_server_refuses_is_said(organisation: Organisation, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        monkeypatch.context() as patch,
        pytest.raises(ReadersRefused, match=r"does not let us manage roles that read: .*password authentication"),
    ):
        patch.setitem(connection.settings_dict, "PASSWORD", "wrong")
        issue_bi_login(organisation, "bi")


def test_the_command_issues_lists_and_revokes(compute: UsageEvent, organisation: Organisation) -> None:
    out, told = StringIO(), StringIO()
    key = str(organisation.key)

    call_command("bi_login", "issue", "metabase", organisation=key, stdout=out, stderr=told)
    shown = dict(line.split() for line in out.getvalue().splitlines())
    assert list(shown) == ["host", "port", "database", "user", "password", "schema"]
    assert shown["schema"] == f"organisation_{organisation.pk}"
    with log_in(Login(**shown)) as session:
        assert session.execute("SELECT count(*) FROM compute_hours").fetchone() == (0,)

    out = StringIO()
    call_command("bi_login", "list", organisation=key, stdout=out)
    call_command("bi_login", "revoke", "metabase", organisation=key, stdout=out)
    call_command("bi_login", "list", organisation=key, stdout=out)
    assert out.getvalue().splitlines() == ["metabase", "metabase revoked"]
    with pytest.raises(CommandError, match="label: one was expected"):
        call_command("bi_login", "issue", organisation=key)
    with pytest.raises(CommandError, match="label: one that is in use was expected, got 'metabase'"):
        call_command("bi_login", "revoke", "metabase", organisation=key)
    with pytest.raises(CommandError, match="the key of an organisation was expected"):
        call_command("bi_login", "list", organisation="00000000-0000-0000-0000-000000000000")
