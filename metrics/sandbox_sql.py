"""The statements in which the SQL of a metric runs, on a connection that belongs to the organisation's own role."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from django.db.backends.utils import CursorWrapper
from psycopg import sql
from psycopg.pq import ExecStatus
from psycopg.types.string import StrDumper

from metrics.sql_text import CUSTOMER, QUANTITY, CheckedSql

# By PostgreSQL's own numbers of types, which never change.
TYPES = {
    16: "boolean",
    20: "number",
    21: "number",
    23: "number",
    25: "text",
    1043: "text",
    1082: "date",
    1700: "number",
}
TYPE_NAMES = {
    114: "json",
    700: "real",
    701: "double precision",
    1114: "timestamp",
    1184: "timestamptz",
    1186: "interval",
    2249: "record",
    3802: "jsonb",
}
_TIMESTAMPTZ, _TEXT = 1184, 25
PARAMETER_TYPES = {"start_date": _TIMESTAMPTZ, "end_date": _TIMESTAMPTZ, "customer.external_id": _TEXT}

CUSTOMER_CHARACTERS = 256
QUANTITY_CHARACTERS = 1_000
DIMENSION_CHARACTERS = 1_001

# For the transaction. Memory is bounded a query at a time; what does not fit goes to disk (temp_file_limit). That of
# planning is not: `metrics.sql_size` bounds what is planned, and these settings in how many ways.
SETTINGS = {
    "work_mem": "16MB",
    "hash_mem_multiplier": "1",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "geqo": "on",
    "geqo_threshold": "5",
    "from_collapse_limit": "4",
    "join_collapse_limit": "4",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_custom_plan",
    "standard_conforming_strings": "on",
    "lock_timeout": "2s",
    "client_min_messages": "error",
}


@dataclass(frozen=True, slots=True)
class Output:
    """A column of what the text gives: its name and type (text, number, boolean, date, or PostgreSQL's own word)."""

    name: str
    type: str
    known: bool


@dataclass(frozen=True, slots=True)
class Shared:
    """The snapshot of the application's own transaction, for another to see the same; and when that began."""

    snapshot: str
    moment: datetime


def shared_snapshot(cursor: CursorWrapper) -> Shared | None:
    """Return the snapshot of the transaction that the cursor is in; None where each statement has its own."""
    cursor.execute(
        "SELECT CASE WHEN current_setting('transaction_isolation') = 'repeatable read' THEN pg_export_snapshot() END,"
        " transaction_timestamp()"
    )
    snapshot, moment = cursor.fetchone()
    return Shared(snapshot, moment) if snapshot else None


def begin(
    connection: psycopg.Connection[Any], schema: str, zone: str, seconds: float, shared: Shared | None = None
) -> datetime:
    """Begin a transaction that only reads, in one snapshot, and return a moment not after it.

    What was committed before that moment is seen. With `shared`, both are those of the transaction that shares them.
    """
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    connection.adapters.register_dumper(str, StrDumper)  # as text, where psycopg would leave the type open
    if shared is not None:
        connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(shared.snapshot)))
    limit_time(connection, seconds)
    # The organisation's schema first: a table may be called as one of PostgreSQL's own.
    for name, value in {**SETTINGS, "search_path": f"{schema}, pg_catalog", "timezone": zone}.items():
        connection.execute("SELECT set_config(%s, %s, true)", [name, value])
    moment = connection.execute("SELECT transaction_timestamp()").fetchone()
    assert moment is not None
    return moment[0] if shared is None else shared.moment


def limit_time(connection: psycopg.Connection[Any], seconds: float) -> None:
    """Have the next statements cut off after so many seconds each."""
    milliseconds = str(max(1, round(seconds * 1000)))
    connection.execute("SELECT set_config('statement_timeout', %s, true)", [milliseconds])


def outputs_of(connection: psycopg.Connection[Any], checked: CheckedSql) -> list[Output]:
    """Return what PostgreSQL itself makes of the text, without running it.

    It takes one statement here and no more, so a text that passes cannot close the parenthesis of `calculate` either.
    """
    types = [PARAMETER_TYPES[name] for name in checked.parameters]
    for result in (
        connection.pgconn.prepare(b"", checked.runnable.encode(), types),
        described := connection.pgconn.describe_prepared(b""),
    ):
        if result.status != ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(result)
    outputs = []
    for i in range(described.nfields):
        number = described.ftype(i)
        name = (described.fname(i) or b"").decode()
        outputs.append(Output(name, TYPES.get(number) or TYPE_NAMES.get(number, f"type {number}"), number in TYPES))
    return outputs


def calculate(
    connection: psycopg.Connection[Any],
    checked: CheckedSql,
    values: Mapping[str, Any],
    customers: Sequence[str] | None,
    most: int,
) -> list[tuple[str | None, ...]]:
    """Run the text for one window and return at most `most` rows as texts: customer, quantity, dimensions.

    Nothing long leaves the database: texts are cut one character past what is allowed.
    """
    head, tail = wrapping(checked, narrowed=customers is not None)
    arguments = [values[name] for name in checked.parameters]
    arguments += [most] if customers is None else [most, list(customers)]
    statement = f"{head}{checked.runnable}{tail}".encode()
    with psycopg.RawCursor(connection) as cursor:
        return cursor.execute(statement, arguments).fetchall()


def wrapping(checked: CheckedSql, *, narrowed: bool) -> tuple[str, str]:
    """Return what stands before and after the author's text; `narrowed` to the customers that are asked for."""
    names = (CUSTOMER, QUANTITY, *checked.dimensions)
    lengths = (CUSTOMER_CHARACTERS, QUANTITY_CHARACTERS, *(DIMENSION_CHARACTERS for _ in checked.dimensions))
    columns = sql.SQL(", ").join(
        sql.SQL("left(calculated.{}::text, {})").format(sql.Identifier(name), sql.Literal(length))
        for name, length in zip(names, lengths, strict=True)
    )
    number = len(checked.parameters) + 1
    # On a line of its own, so that no comment can hide the parenthesis.
    tail = "\n) AS calculated"
    if narrowed:
        tail += f"\nWHERE calculated.{CUSTOMER} = ANY (${number + 1}::text[])"
    return f"SELECT {columns.as_string()} FROM (\n", f"{tail}\nLIMIT ${number}::bigint"
