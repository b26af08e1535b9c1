"""Running the SQL of a metric: as the organisation's own role, in a transaction that only reads, for a limited time."""

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from threading import Event, Timer
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
from django.conf import settings
from django.db import connection as application

from customers.models import Organisation
from metrics import sandbox_sql
from metrics.models import Metric
from metrics.questions import MAX_ROWS, UTC_ZONE, TookTooLong
from metrics.sql_text import CUSTOMER, QUANTITY, CheckedSql, SqlError, check_sql
from metrics.sql_tokens import error_at
from usage.readers import ReadersRefused, connect_reader
from usage.table_sql import schema_name
from usage.tables import tables_of

PER_CUSTOMER = "customer.external_id"
GRACE_SECONDS = 2.0  # for the database to cut a statement off by itself, and say so


@dataclass(frozen=True, slots=True)
class SqlRow:
    """What the text gave for one customer in one window, by its index; dimensions by name, in the text's order."""

    customer_id: str
    window: int
    dimensions: dict[str, object]
    quantity: Decimal | None


@dataclass(frozen=True, slots=True)
class SqlResult:
    """What the text gave for every window, all of it as it was at one moment."""

    rows: list[SqlRow]
    as_of: datetime


def seconds_allowed() -> float:
    """Return how many seconds all statements of one question to a SQL metric may take together."""
    return float(settings.SQL_METRIC_SECONDS)


def checked_sql(metric: Metric) -> CheckedSql:
    """Return the metric's text, read against its organisation's tables as they are now; raises SqlError."""
    return check_sql(
        metric.sql, {name: [column for column, _ in columns] for name, columns in tables_of(metric.organisation)}
    )


def run_sql_metric(
    metric: Metric, edges: Sequence[datetime], customers: Sequence[str] | None = None, *, zone: ZoneInfo = UTC_ZONE
) -> SqlResult:
    """Run the text once for each window [edges[i], edges[i + 1]), in one snapshot, and return all rows.

    With {{customer.external_id}} in it, it is run for each of `customers`, who must be given then; otherwise
    `customers` leaves only their rows. Inside a snapshot of the caller's (REPEATABLE READ) it sees that one. Days and
    months of the text are those of `zone`. Raises SqlError for what the text does wrong (at its line and column where
    that can be told) and TookTooLong.
    """
    checked = checked_sql(metric)
    if PER_CUSTOMER in checked.parameters and customers is None:
        raise ValueError(f"customers were expected, because the SQL uses {{{{{PER_CUSTOMER}}}}}")
    deadline = time.monotonic() + seconds_allowed()
    rows: list[SqlRow] = []
    shared = _shared_snapshot()
    with _connected(metric.organisation, _left(deadline)) as connection, _told(checked, 0):
        as_of = sandbox_sql.begin(connection, schema_name(metric.organisation_id), zone.key, _left(deadline), shared)
        types = _check_outputs(connection, checked)
        for window, (start, end) in enumerate(pairwise(edges)):
            for values, named in _runs(checked, start, end, customers):
                sandbox_sql.limit_time(connection, _left(deadline))
                with _told(checked, len(sandbox_sql.wrapping(checked, narrowed=named is not None)[0])):
                    found = sandbox_sql.calculate(connection, checked, values, named, MAX_ROWS + 1 - len(rows))
                if len(rows) + len(found) > MAX_ROWS:
                    raise SqlError(f"at most {MAX_ROWS} rows were expected in all; this gives more")
                rows += [_row(row, window, checked, types) for row in found]
    _check_distinct(rows, edges)
    return SqlResult(rows, as_of)


def describe_sql(organisation: Organisation, checked: CheckedSql) -> None:
    """Have PostgreSQL read the text without running it; raises SqlError for what does not fit."""
    with _connected(organisation, seconds_allowed()) as connection, _told(checked, 0):
        sandbox_sql.begin(connection, schema_name(organisation.pk), "UTC", seconds_allowed())
        _check_outputs(connection, checked)


def _shared_snapshot() -> sandbox_sql.Shared | None:
    """Return the snapshot that the caller holds, so that customers and usage are those of one moment."""
    if not application.in_atomic_block or any(application.savepoint_ids):
        return None
    with application.cursor() as cursor:
        return sandbox_sql.shared_snapshot(cursor)


def _runs(
    checked: CheckedSql, start: datetime, end: datetime, customers: Sequence[str] | None
) -> Iterator[tuple[dict[str, Any], Sequence[str] | None]]:
    """Yield the values of each run for one window, and whom its rows may be about (None: anybody)."""
    values = {"start_date": start, "end_date": end}
    if PER_CUSTOMER not in checked.parameters:
        yield values, customers
        return
    for customer in customers or []:
        yield {**values, PER_CUSTOMER: customer}, [customer]


@contextmanager
def _connected(organisation: Organisation, seconds: float) -> Iterator[psycopg.Connection[Any]]:
    """A short connection as the organisation's role; whatever was done on it is undone at the end."""
    try:
        connection = connect_reader(organisation)
    except ReadersRefused as error:
        raise SqlError(f"the SQL cannot be run: {error}") from error
    try:
        with _dropped_after(connection, seconds + GRACE_SECONDS):
            yield connection
    finally:
        connection.close()


@contextmanager
def _dropped_after(connection: psycopg.Connection[Any], seconds: float) -> Iterator[None]:
    """Raise TookTooLong after so many seconds, whether the database answers or not.

    In the middle of planning, or of one long calculation, it does not look whether it is to cut a statement off.
    """
    over = Event()
    # A second handle of the same socket: libpq may close its own, and its number may then be another file's.
    with socket.socket(fileno=os.dup(connection.fileno())) as handle:

        def drop() -> None:
            over.set()
            with suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)

        timer = Timer(seconds, drop)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (psycopg.Error, SqlError) as error:
            if over.is_set():
                raise TookTooLong(seconds_allowed()) from error
            raise
        finally:
            timer.cancel()
            timer.join()


@contextmanager
def _told(checked: CheckedSql, before: int) -> Iterator[None]:
    """Turn errors of the database into errors of the text; `before` characters stand before the text."""
    try:
        yield
    except psycopg.errors.QueryCanceled as error:
        raise TookTooLong(seconds_allowed()) from error
    except psycopg.Error as error:
        message = error.diag.message_primary or "the database ended the connection"
        position = int(error.diag.statement_position or 0) - 1 - before
        if position < 0:
            raise SqlError(message) from error
        raise error_at(checked.text, position, message) from error


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TookTooLong(seconds_allowed())
    return left


def _check_outputs(connection: psycopg.Connection[Any], checked: CheckedSql) -> dict[str, str]:
    """Return the type of each column as PostgreSQL sees it; raises SqlError for one that does not serve."""
    outputs = sandbox_sql.outputs_of(connection, checked)
    if tuple(output.name for output in outputs) != checked.outputs:
        raise SqlError(f"the columns {', '.join(checked.outputs)} were expected, PostgreSQL reads others")
    for output in outputs:
        if output.name == CUSTOMER and output.type != "text":
            raise SqlError(f"{CUSTOMER} must be text, the id of a customer; got {output.type}")
        if output.name == QUANTITY and output.type != "number":
            hint = "; write (…)::numeric" if output.type in ("double precision", "real") else ""
            raise SqlError(f"{QUANTITY} must be an exact number (numeric or integer); got {output.type}{hint}")
        if not output.known:
            raise SqlError(f"{output.name} must be text, a number, a boolean or a date; got {output.type}")
    return {output.name: output.type for output in outputs}


def _row(row: tuple[str | None, ...], window: int, checked: CheckedSql, types: dict[str, str]) -> SqlRow:
    customer_id, quantity, *parts = row
    if customer_id is None:
        raise SqlError(f"{CUSTOMER} must be the id of a customer; got null")
    dimensions = {}
    for name, part in zip(checked.dimensions, parts, strict=True):
        if part is not None and len(part) >= sandbox_sql.DIMENSION_CHARACTERS:
            raise SqlError(f"{name} must be of at most {sandbox_sql.DIMENSION_CHARACTERS - 1} characters; got more")
        dimensions[name] = _dimension(part, types[name])
    return SqlRow(customer_id, window, dimensions, _quantity(quantity, customer_id))


def _dimension(part: str | None, kind: str) -> object:
    if part is None or kind in ("text", "date"):
        return part
    return part == "true" if kind == "boolean" else Decimal(part)


def _quantity(text: str | None, customer_id: str) -> Decimal | None:
    if text is None:
        return None
    try:
        quantity = Decimal(text)
    except InvalidOperation:
        quantity = Decimal("NaN")
    if not quantity.is_finite() or len(text) >= sandbox_sql.QUANTITY_CHARACTERS:
        came = text if len(text) <= 50 else f"{text[:50]}…"
        raise SqlError(f"{QUANTITY} must be a finite number; got {came} for customer '{customer_id}'")
    return quantity


def _check_distinct(rows: list[SqlRow], edges: Sequence[datetime]) -> None:
    seen = set()
    for row in rows:
        key = (row.customer_id, row.window, tuple((type(value), value) for value in row.dimensions.values()))
        if key in seen:
            shown = ", ".join(f"{name} = {value}" for name, value in row.dimensions.items()) or "no other columns"
            raise SqlError(
                f"one row for each customer and combination of the other columns was expected; got several for customer"
                f" '{row.customer_id}' ({shown}) in the window from {edges[row.window].isoformat()}; GROUP BY them"
            )
        seen.add(key)
