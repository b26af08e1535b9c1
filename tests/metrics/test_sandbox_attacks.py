"""What nobody should get through the SQL of a metric: refused by name, and, past the parser, refused by the database.

Each text is tried three times: at the parser; past it, inside the statement that a metric runs in; and by itself on
a connection of the role, several statements in one. Whatever comes back, nothing of another organisation is in it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from django.db import connection

from customers.models import Organisation
from metrics import sandbox_runs, sandbox_sql
from metrics.models import Metric
from metrics.questions import TookTooLong
from metrics.sandbox import run_sql_metric
from metrics.sql_text import CheckedSql, SqlError, check_sql
from tests.conftest import take_in
from tests.roles import drop_readers
from usage.definitions import create_usage_event
from usage.models import UsageRecord
from usage.readers import connect_reader, metric_role
from usage.tables import tables_of
from usage.timestamps import END_MOMENT, FIRST_MOMENT

SECRETS = ("their_customer", "their_value")
HARMLESS = "^rows: "


@dataclass(frozen=True)
class Attack:
    """A text, how the parser refuses it ("^$": it may pass), and what comes of it in the database."""

    text: str
    parser: str
    database: str = HARMLESS


def q(column: str, more: str = "FROM calls") -> str:
    return f"SELECT 'mine' AS customer_id, 1 AS quantity, ({column})::text AS d {more}"


def not_allowed(name: str) -> str:
    return f"the function {name} is not allowed"


# PostgreSQL 15 says the latter of some.
DENIED = "permission denied|must be (superuser|a member)"
# Denied by our own servers; on one where nobody has, a lock ends with the connection (below).
LOCKS = f"{HARMLESS}|{DENIED}"
BARRED = "permission denied for schema"
READ_ONLY = "read-only transaction|permission denied"
# A statement that gives no rows is not run in the place of one that does.
SYNTAX = "syntax error|PostgreSQL reads others"
TIME = "statement timeout|longer than"
ENDLESS = "FROM calls AS c0" + "".join(f" CROSS JOIN calls AS c{i}" for i in range(1, 40))

ATTACKS = [
    # Other people's tables.
    Attack(q("data", "FROM public.usage_usagerecord"), "tables are named without a schema", BARRED),
    Attack(q("data", "FROM usage_usagerecord"), "one of the tables was expected", "does not exist"),
    Attack(q("value", "FROM {other}.secrets"), "tables are named without a schema", BARRED),
    Attack(q("value", 'FROM "{other}"."secrets"'), "tables are named without a schema", BARRED),
    Attack(q("value", 'FROM "{other}.secrets"'), "one of the tables was expected", "does not exist"),
    Attack(q("value", "FROM secrets"), "one of the tables was expected", "does not exist"),
    Attack(q("secret_hash", "FROM public.customers_apikey"), "tables are named without a schema", BARRED),
    Attack(q("(SELECT max(value) FROM {other}.secrets)"), "tables are named without a schema", BARRED),
    Attack(f"WITH calls AS (SELECT * FROM {{other}}.secrets) {q('value')}",
           "tables are named without a schema", BARRED),
    Attack("TABLE calls", "a SELECT was expected, got 'TABLE'|table is not allowed"),
    # PostgreSQL's own tables.
    Attack(q("relname", "FROM pg_catalog.pg_class"), "tables are named without a schema"),
    Attack(q("relname", "FROM pg_class"), "one of the tables was expected"),
    Attack(q("rolpassword", "FROM pg_authid"), "one of the tables was expected", DENIED),
    Attack(q("passwd", "FROM pg_shadow"), "one of the tables was expected", DENIED),
    Attack(q("most_common_vals", "FROM pg_stats"), "one of the tables was expected"),
    Attack(q("stavalues1", "FROM pg_statistic"), "one of the tables was expected", DENIED),
    Attack(q("query", "FROM pg_stat_activity"), "one of the tables was expected"),
    Attack(q("definition", "FROM pg_views WHERE schemaname = '{other}' AND false"), "one of the tables was expected"),
    Attack(q("table_name", "FROM information_schema.tables"), "tables are named without a schema"),
    Attack(q("data", "FROM pg_largeobject"), "one of the tables was expected", DENIED),
    Attack(q("'public.usage_usagerecord'::regclass"), "the type regclass is not allowed", BARRED),
    Attack(q("CAST('postgres' AS regrole)"), "the type regrole is not allowed"),
    Attack(q("ctid"), "the system column ctid is not allowed", "does not exist"),
    Attack(q("tableoid"), "the system column tableoid is not allowed", "does not exist"),
    Attack(q("xmin"), "the system column xmin is not allowed", "does not exist"),
    # Functions that read and write outside, or run a text.
    Attack(q("pg_read_file('/etc/passwd')"), not_allowed("pg_read_file"), DENIED),
    Attack(q("pg_read_binary_file('/etc/passwd')"), not_allowed("pg_read_binary_file"), DENIED),
    Attack(q("pg_ls_dir('/')"), not_allowed("pg_ls_dir"), DENIED),
    Attack(q("pg_stat_file('/etc/passwd')"), not_allowed("pg_stat_file"), DENIED),
    Attack(q("x", "FROM dblink('dbname=postgres', 'SELECT 1') AS t (x text)"), not_allowed("dblink"), "does not exist"),
    Attack(q("lo_import('/etc/passwd')"), not_allowed("lo_import"), DENIED),
    Attack(q("lo_export(1, '/tmp/stolen')"), not_allowed("lo_export"), DENIED),
    Attack(q("lo_get(1)"), not_allowed("lo_get"), f"does not exist|{DENIED}"),
    Attack(q("query_to_xml('SELECT * FROM {other}.secrets', true, true, '')"), not_allowed("query_to_xml"), BARRED),
    Attack(q("table_to_xml('{other}.secrets', true, true, '')"), not_allowed("table_to_xml"), BARRED),
    Attack(q("database_to_xml(true, true, '')"), not_allowed("database_to_xml"), f"{HARMLESS}|unsupported XML"),
    Attack(q("ts_stat('SELECT value FROM {other}.secrets')"), not_allowed("ts_stat"), BARRED),
    Attack(q("current_setting('data_directory')"), not_allowed("current_setting"), DENIED),
    Attack(q("pg_get_viewdef('calls'::regclass)"), not_allowed("pg_get_viewdef")),
    Attack(q("nextval('public.usage_usagerecord_id_seq')"), not_allowed("nextval"), BARRED),
    Attack(q("pg_reload_conf()"), not_allowed("pg_reload_conf"), DENIED),
    Attack(q("pg_switch_wal()"), not_allowed("pg_switch_wal"), DENIED),
    Attack(q("row_to_json(calls)"), not_allowed("row_to_json")),
    Attack(q("calls.row_to_json"), "there is no column row_to_json"),
    Attack(q("calls"), "there is no column calls"),
    Attack(q("(calls).value"), "dot is not allowed"),
    Attack(q("generate_series(1, 1000000000000)"), not_allowed("generate_series"), TIME + "|at most"),
    Attack(q("x", "FROM generate_series(1, 1000000000000) AS t (x)"),
           not_allowed("generate_series"), TIME + "|at most"),
    Attack(q("x", "FROM unnest(ARRAY[1]) AS t (x)"), "arrays are not allowed"),
    # Becoming somebody else.
    Attack(q("set_config('role', '{application}', false)"), not_allowed("set_config"), "denied to set role|cannot set"),
    Attack(q("set_config('session_authorization', '{application}', false)"), not_allowed("set_config"),
           "denied|cannot set"),
    Attack(q("set_config('transaction_read_only', 'off', true)"), not_allowed("set_config"),
           "cannot set transaction|must be set before any query"),
    Attack(q("set_config('search_path', '{other}', false)"), not_allowed("set_config")),
    Attack(q("set_config('statement_timeout', '0', false)"), not_allowed("set_config")),
    Attack("SET ROLE {application}", "set is not allowed", f"denied to set role|{SYNTAX}"),
    Attack("SET SESSION AUTHORIZATION {application}", "set is not allowed", f"denied to set session|{SYNTAX}"),
    Attack("RESET ROLE", "reset is not allowed", f"{HARMLESS}|{SYNTAX}"),
    Attack("SET LOCAL statement_timeout = 0", "set is not allowed", f"{HARMLESS}|{SYNTAX}"),
    Attack(q("current_user"), "current_user is not allowed"),
    Attack(q("session_user"), "session_user is not allowed"),
    # Changing something.
    Attack(f"WITH gone AS (DELETE FROM calls RETURNING *) {q('1')}", "delete is not allowed",
           "WITH clause|cannot delete"),
    Attack(f"WITH x AS (INSERT INTO calls (value) VALUES ('x') RETURNING *) {q('1')}", "insert is not allowed",
           "cannot|WITH"),
    Attack(f"WITH x AS (UPDATE calls SET value = 'x' RETURNING *) {q('1')}", "update is not allowed", "cannot|WITH"),
    Attack("DROP VIEW calls", "drop is not allowed", f"{READ_ONLY}|must be owner|{SYNTAX}"),
    Attack("CREATE TABLE mine (a integer)", "create is not allowed", f"{READ_ONLY}|{SYNTAX}|no schema"),
    Attack("CREATE TEMPORARY TABLE mine AS SELECT 1", "create is not allowed", f"{READ_ONLY}|{SYNTAX}"),
    Attack("SELECT customer_id, 1 AS quantity INTO mine FROM calls", "into is not allowed", f"{READ_ONLY}|{SYNTAX}"),
    Attack("SELECT customer_id, 1 AS quantity FROM calls FOR UPDATE", "update is not allowed", f"{READ_ONLY}|{SYNTAX}"),
    Attack("SELECT customer_id, 1 AS quantity FROM calls FOR SHARE", "not allowed|only reads", f"{READ_ONLY}|{SYNTAX}"),
    Attack("COPY calls TO PROGRAM 'cat'", "copy is not allowed", f"{DENIED}|{SYNTAX}"),
    Attack("COPY (SELECT 1) TO '/tmp/stolen'", "copy is not allowed", f"{DENIED}|{SYNTAX}"),
    Attack("DO $x$ BEGIN PERFORM pg_sleep(9); END $x$", "dollar quotes|do is not allowed", f"{TIME}|{SYNTAX}"),
    Attack("GRANT SELECT ON calls TO PUBLIC", "grant is not allowed", f"{READ_ONLY}|{SYNTAX}"),
    Attack("ALTER ROLE CURRENT_USER SUPERUSER", "alter is not allowed", f"{READ_ONLY}|{SYNTAX}"),
    Attack("CALL nothing()", "call is not allowed", f"does not exist|{SYNTAX}"),
    Attack("LOCK calls", "lock is not allowed", f"{READ_ONLY}|{SYNTAX}"),
    Attack("NOTIFY x", "notify is not allowed", f"{HARMLESS}|{SYNTAX}"),
    Attack("EXPLAIN ANALYZE SELECT 1", "explain is not allowed", f"{HARMLESS}|{SYNTAX}"),
    # Several statements.
    Attack(f"{q('1')}; SELECT * FROM {{other}}.secrets", "nothing may follow a semicolon",
           f"{BARRED}|multiple commands"),
    Attack(f"{q('1')}; COMMIT; SET default_transaction_read_only = off; DROP VIEW calls",
           "nothing may follow a semicolon", "read-only transaction|must be owner|multiple commands"),
    Attack(f"{q('1')}; COMMIT; RESET ALL; SET ROLE {{application}}", "nothing may follow",
           "denied to set role|multiple"),
    Attack("SELECT 1) AS a; SELECT * FROM {other}.secrets; SELECT * FROM (SELECT 1", "nothing may follow", SYNTAX),
    Attack("SELECT 'x' AS customer_id, 1 AS quantity) AS a, LATERAL (SELECT * FROM {other}.secrets",
           "never opened", SYNTAX),
    # Comments and quotes.
    Attack(f"{q('1')} -- ) {{{{nothing", "^$"),
    Attack(f"{q('1')} /*", "has no end", "unterminated"),
    Attack(f"{q('1')} /* /* */", "comments inside comments", "unterminated"),
    Attack(f"/* /* */ {q('1')} /* */ */", "comments inside comments"),
    Attack(f"/*+ SeqScan(calls) */ {q('1')}", r"/\*\+ and /\*! are not allowed"),
    Attack(q("pg_sleep/**/(9)"), not_allowed("pg_sleep"), TIME),
    Attack(q("pg_sleep\n--\n(9)"), not_allowed("pg_sleep"), TIME),
    Attack(q("E'\\' || pg_sleep(9) || '"), "a space was expected before the quote"),
    Attack(q("e'a'"), "a space was expected before the quote"),
    Attack(q("'\\' || pg_sleep(9) || '"), "not allowed|not expected|no end", "unterminated|syntax error"),
    Attack(q("$$a$$"), "dollar quotes"),
    Attack(q("$a$ ' $a$ || pg_sleep(9)::text || $a$ ' $a$"), "dollar quotes", TIME),
    Attack(q("U&'\\0041'"), "operator & is not allowed|a space was expected"),
    Attack(q('U&"\\0070g_sleep"(9)'), "operator & is not allowed|a space was expected", TIME),
    Attack(q("b'1'"), "a space was expected before the quote"),
    Attack(q('"pg_sleep"(9)'), "functions are called by their bare names", TIME),
    Attack(q("pg_catalog.pg_sleep(9)"), "functions are called by their bare names", TIME),
    Attack(q("PG_Sleep(9)"), not_allowed("pg_sleep"), TIME),
    Attack(q("1 OPERATOR(pg_catalog.+) 1"), not_allowed("operator")),
    Attack(q("\uff50g_sleep(9)"), "'\uff50' is not allowed here", "does not exist"),
    Attack(q("\u0441ount(*)"), "'\u0441' is not allowed here", "does not exist"),
    Attack(q("pg_sleep\u00a0(9)"), r"invisible character \(U\+00A0\)", "does not exist"),
    Attack(q("'\u202e'"), r"invisible character \(U\+202E\)"),
    Attack(q("$1"), "dollar quotes and numbered parameters", f"{HARMLESS}|no parameter"),
    Attack(q("%s"), "placeholder is not allowed", SYNTAX),
    Attack(q("%(x)s"), "not allowed", SYNTAX),
    Attack(q("{{7*7}}"), "one of {{start_date}}", SYNTAX),
    Attack(q("'{{start_date}}'"), "inside quotes"),
    Attack(q("'; DROP VIEW calls; --'"), "^$"),
    # Taking all there is of time and memory.
    Attack(q("pg_sleep(9)"), not_allowed("pg_sleep"), TIME),
    Attack(q("count(*)", ENDLESS), "^$", TIME),
    Attack(q("c0.value", f"{ENDLESS} ORDER BY c39.id DESC, c20.id"), "^$", TIME),
    Attack(f"WITH RECURSIVE t (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) {q('count(*)', 'FROM t')}",
           "recursive is not allowed", TIME),
    Attack(q("length(repeat('x', 50000000))"), not_allowed("repeat")),
    Attack(q("repeat('x', 2000000000)"), not_allowed("repeat"), "too large|invalid memory alloc|out of memory"),
    Attack(q("lpad('x', 100000)"), not_allowed("lpad")),
    Attack(q("d || d || d || d || d || d || d || d || d || d || d || d", "FROM (SELECT value AS d FROM calls) AS x"),
           "at most 10 texts are put together"),
    Attack(q("array_agg(c0.value)", ENDLESS), not_allowed("array_agg"), TIME),
    Attack(q("string_agg(c0.value, '')", ENDLESS), not_allowed("string_agg"), TIME),
    Attack(q("jsonb_agg(c0)", ENDLESS), not_allowed("jsonb_agg"), TIME),
    Attack(q("9 ^ 9 ^ 9 ^ 9 ^ 9"), r"the operator \^ is not allowed", "out of range|overflow"),
    Attack(q("power(7.7, 70000) * 0"), not_allowed("power")),
    Attack(q("exp(300000::numeric) * 0"), not_allowed("exp"), "overflow|rows"),
    Attack(q("1e130000 * 0"), "a number of at most 64 digits"),
    Attack(q("'1e130000' * 0"), "a number of at most 64 digits", "rows|integer"),
    # Disturbing others.
    Attack(q("pg_advisory_lock(1)"), not_allowed("pg_advisory_lock"), LOCKS),
    Attack(q("pg_try_advisory_xact_lock(1)"), not_allowed("pg_try_advisory_xact_lock"), LOCKS),
    Attack(q("pg_terminate_backend({backend})"), not_allowed("pg_terminate_backend"), DENIED),
    Attack(q("pg_cancel_backend({backend})"), not_allowed("pg_cancel_backend"), DENIED),
    Attack(q("pg_notify('x', 'y')"), not_allowed("pg_notify")),
    Attack(q("txid_current()"), not_allowed("txid_current")),
    Attack(q("pg_export_snapshot()"), not_allowed("pg_export_snapshot")),
    Attack(q("lo_unlink(1)"), not_allowed("lo_unlink"), f"does not exist|{READ_ONLY}"),
    # Looking past the barrier: an error or a message from a row of somebody else's.
    Attack(q("1", "FROM calls WHERE value::integer = 1"), "^$", 'invalid input syntax for type integer: "my_value"'),
    Attack(q("1", "FROM calls WHERE 1 / (length(value) - 11) = 1"), "^$"),
    Attack(q("1", "FROM calls WHERE CASE WHEN value LIKE 'their%' THEN 1 / (length(value) - length(value)) END = 1"),
           "^$"),
    Attack(q("1", "FROM calls WHERE customer_id::integer = 1"), "^$", 'for type integer: "mine"'),
]  # fmt: skip


@pytest.fixture
def organisations(organisation: Organisation) -> Iterator[tuple[Organisation, Organisation]]:
    """Ours and theirs, with a record each; theirs is stored in the same table."""
    theirs = Organisation.objects.create(name="Theirs")
    schema = {"type": "object", "properties": {"value": {"type": "string"}}}
    for owner, slug, customer, value in (
        (organisation, "calls", "mine", "my_value"),
        (theirs, "secrets", "their_customer", "their_value"),
    ):
        event = create_usage_event(owner, name=slug, slug=slug, schema=schema)
        take_in(event, {"customer_id": customer, "timestamp": "2025-06-01T00:00:00Z", "data": {"value": value}})
    for _ in range(2):
        event = organisation.usage_events.get()
        take_in(event, {"customer_id": "mine", "timestamp": "2025-06-01T00:00:00Z", "data": {"value": "my_value"}})
    for owner in (organisation, theirs):
        connect_reader(owner).close()
    yield organisation, theirs
    drop_readers()


def written(attack: Attack, theirs: Organisation) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        backend = cursor.fetchone()[0]
    text = attack.text.replace("{other}", f"organisation_{theirs.pk}").replace("{backend}", str(backend))
    return text.replace("{application}", connection.settings_dict["USER"])


def everything() -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT oid, relname, relacl::text FROM pg_class WHERE oid >= 16384 ORDER BY oid")
        relations = cursor.fetchall()
        cursor.execute("SELECT rolname, rolsuper, rolcreaterole, rolcanlogin FROM pg_roles ORDER BY rolname")
        roles = cursor.fetchall()
        cursor.execute("SELECT count(*) FROM pg_largeobject_metadata")
        return [relations, roles, cursor.fetchall(), list(UsageRecord.objects.order_by("pk").values())]


def by_the_parser(text: str, ours: Organisation) -> str:
    tables = {table: [name for name, _ in columns] for table, columns in tables_of(ours)}
    try:
        check_sql(text, tables)
    except SqlError as error:
        return error.message
    return ""


def past_the_parser(text: str, ours: Organisation, seconds: float, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what comes of a text that nobody has read, inside the statement of a metric."""
    unread = CheckedSql(text, text, (), ("customer_id", "quantity", "d"), frozenset(), frozenset())
    metric = Metric(organisation=ours, sql=text, sql_window="month")
    with monkeypatch.context() as patch:
        patch.setattr(sandbox_runs, "checked_sql", lambda metric: unread)
        patch.setattr(sandbox_runs, "seconds_allowed", lambda: seconds)
        try:
            return f"rows: {run_sql_metric(metric, [FIRST_MOMENT, END_MOMENT]).rows}"
        except TookTooLong as error:
            return str(error)
        except SqlError as error:
            # What the database gave was refused later on, as no quantity.
            return str(error) if isinstance(error.__cause__, psycopg.Error) else f"rows: {error}"


def by_itself(text: str, ours: Organisation, seconds: float) -> str:
    """Return what comes of the bare text, sent as it is, on a connection of the role."""
    session = connect_reader(ours)
    try:
        sandbox_sql.begin(session, f"organisation_{ours.pk}", "UTC", seconds)
        cursor = session.cursor()
        cursor.execute(text.encode())
        found = []
        while True:
            found.append(cursor.fetchmany(5) if cursor.description else [])
            if not cursor.nextset():
                return f"rows: {found}"
    except psycopg.Error as error:
        return str(error)
    finally:
        session.close()


def test_every_attack_is_refused_by_name_and_by_the_database(
    organisations: tuple[Organisation, Organisation], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = organisations
    before = everything()
    wrong = []
    for attack in ATTACKS:
        text = written(attack, theirs)
        refused = by_the_parser(text, ours)
        if not re.search(attack.parser, refused):
            wrong.append(f"{text}\n  parser: {refused!r}")
        seconds = 0.1 if TIME in attack.database else 20
        for answer in (past_the_parser(text, ours, seconds, monkeypatch), by_itself(text, ours, seconds)):
            if any(secret in answer for secret in SECRETS):
                wrong.append(f"{text}\n  TOLD A SECRET: {answer}")
            if not re.search(attack.database, answer):
                wrong.append(f"{text}\n  database: {answer}")

    assert not wrong, "\n".join(wrong)
    assert everything() == before
    # The role still has its own rights, and this session was ended by nobody.
    with connect_reader(ours) as session:
        assert session.execute("SELECT CURRENT_USER").fetchone() == (metric_role(ours.pk),)


def test_a_lock_that_a_text_takes_ends_with_its_connection(
    organisations: tuple[Organisation, Organisation], monkeypatch: pytest.MonkeyPatch
) -> None:
    past_the_parser(q("pg_advisory_lock(4711)"), organisations[0], 20, monkeypatch)
    by_itself("SELECT pg_advisory_lock(4711)", organisations[0], 20)

    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = '5s'")
        cursor.execute("SELECT pg_advisory_lock(4711), pg_advisory_unlock(4711)")
        cursor.execute("RESET statement_timeout")
