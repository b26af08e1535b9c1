"""Every statement on records that the ORM would not write as well: a name, what it does, the index it relies on."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from weakref import WeakSet

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from psycopg import Connection, OperationalError
from psycopg.errors import InvalidSqlStatementName, error_from_result
from psycopg.pq import ConnStatus, ExecStatus, Format
from psycopg.pq.abc import PGconn, PGresult

from usage import arrays
from usage.timestamps import EPOCH

BIGINT, JSON = 20, 114  # numbers of types
COPY_COLUMNS = (
    "id, usage_event_id, customer_id, timestamp, idempotency_key, data, batch_id, schema_version, received_at, revision"
)
STORE_FRESH = b"SELECT batch, microseconds FROM tallybook_store_fresh($1)"

_prepared: WeakSet[Connection[Any]] = WeakSet()  # whose sessions were told the statement that is asked often


def open_batch(
    cursor: CursorWrapper, batch: dict[str, Any], records: int
) -> tuple[int, datetime, bool, list[int]] | None:
    """Write the batch row, tell whether its usage event has identities in quarantine, and allot ids in the order sent.

    First waits for who is publishing a schema, and lets nobody publish one until the transaction ends. The row is
    written only if the usage event is live and unchanged since the records were checked, customers' aliases are too,
    and the API key (if any) is live and may post: else None. Primary keys only.
    """
    cursor.execute(
        """
        SELECT batch, stored_at, quarantine_waits, ids FROM tallybook_open_batch(
            %(usage_event_id)s, %(definition_revision)s, %(aliases_revision)s, %(source)s, %(api_key_id)s, %(user_id)s,
            %(upload_id)s, %(accepted)s, %(duplicates)s, %(conflicts)s, %(rejected)s, %(records)s, false)
        """,
        {**batch, "records": records},
    )
    batch_id, received_at, quarantine_waits, ids = cursor.fetchone()
    return None if batch_id is None else (batch_id, received_at, quarantine_waits, ids or [])


def store_fresh(database: BaseDatabaseWrapper, batch: bytes) -> tuple[int, datetime] | None:
    """Write a batch and its records, believed to be new, in one statement, which commits by itself.

    To be called where no transaction is open. `batch` is one JSON text, because ten parameters cost a single record
    more than its INSERT: the columns of the batch, and its `rows`. Returns the batch's id and when it was received.
    None, and nothing is written, where open_batch would write none, or where the usage event has identities in
    quarantine. A known identity raises IntegrityError. Ids follow `index`, rows go in by the order of their keys.
    """
    result = _ask_often(database, b"tallybook_store_fresh", STORE_FRESH, (JSON, batch))
    batch_id, microseconds = result.get_value(0, 0), result.get_value(0, 1)
    if batch_id is None or microseconds is None:
        return None
    return int(batch_id), EPOCH + timedelta(microseconds=int(microseconds))


def _ask(database: BaseDatabaseWrapper, statement: bytes, *values: tuple[int, bytes]) -> PGresult:
    """Return the rows of a statement, as text, for values in binary format, each with the number of its type.

    By libpq's own call, without a cursor: it lets go of Python's lock once, the driver's loop around it many times.
    With several requests at work that is about an eighth of what a single record costs. It begins no transaction.
    """
    libpq = _libpq(database)
    types, binary = [number for number, _ in values], [Format.BINARY] * len(values)
    with database.wrap_database_errors:
        return _rows(libpq, libpq.exec_params(statement, [value for _, value in values], types, binary))


def _ask_often(database: BaseDatabaseWrapper, name: bytes, statement: bytes, value: tuple[int, bytes]) -> PGresult:
    """As `_ask`, for the one statement that is asked so often that its session keeps it, analysed, under a name.

    A pooler may hand us a session that does not know the name: then nothing has happened yet, and it is sent in full.
    """
    libpq = _libpq(database)
    number, binary = value
    with database.wrap_database_errors:
        if database.connection not in _prepared:
            libpq.prepare(name, statement, [number])  # whether that went well shows in the next line
            _prepared.add(database.connection)
        try:
            return _rows(libpq, libpq.exec_prepared(name, [binary], [Format.BINARY]))
        except InvalidSqlStatementName:
            return _ask(database, statement, value)


def _libpq(database: BaseDatabaseWrapper) -> PGconn:
    database.close_if_health_check_failed()
    database.ensure_connection()
    libpq: PGconn = database.connection.pgconn
    return libpq


def _rows(libpq: PGconn, result: PGresult) -> PGresult:
    if libpq.status != ConnStatus.OK:
        raise OperationalError(libpq.get_error_message())
    if result.status != ExecStatus.TUPLES_OK:
        raise error_from_result(result)
    return result


def close_batch(cursor: CursorWrapper, batch_id: int, usage_event_id: int, counts: dict[str, int]) -> None:
    """Write the counts that were known only after the records were stored. Primary key."""
    cursor.execute(
        """
        WITH batch AS (
            UPDATE usage_ingestbatch
            SET accepted = %(accepted)s, duplicates = %(duplicates)s, conflicts = %(conflicts)s, rejected = %(rejected)s
            WHERE id = %(batch_id)s AND usage_event_id = %(usage_event_id)s
            RETURNING id, usage_event_id
        )
        INSERT INTO usage_pendingbatch (batch_id, usage_event_id)
        SELECT id, usage_event_id FROM batch WHERE %(accepted)s > 0
        """,
        {**counts, "batch_id": batch_id, "usage_event_id": usage_event_id},
    )


_ROWS = """
    json_to_recordset(%(rows)s::json)
        AS sent (id bigint, customer_id bigint, "timestamp" timestamptz, key text, data jsonb)
"""

_INSERT = f"""
    INSERT INTO usage_usagerecord ({COPY_COLUMNS})
    SELECT sent.id, %(usage_event_id)s, sent.customer_id, sent.timestamp, sent.key, sent.data,
           %(batch_id)s, %(schema_version)s, %(received_at)s, 1
    FROM {_ROWS}
"""


def copy_fresh(cursor: CursorWrapper, stream: bytes) -> None:
    """Copy records that are believed to be new, in binary format; a known identity raises IntegrityError."""
    # Django wraps what a cursor's execute raises, not what its copy raises.
    statement = f"COPY usage_usagerecord ({COPY_COLUMNS}) FROM STDIN (FORMAT binary)"
    with cursor.db.wrap_database_errors, cursor.copy(statement) as copy:
        copy.write(stream)


def insert_fresh(cursor: CursorWrapper, batch: dict[str, Any], rows: str) -> None:
    """Insert records that are believed to be new, in the order of `rows`; a known identity raises IntegrityError."""
    cursor.execute(_INSERT, {**batch, "rows": rows})


def insert_unknown(cursor: CursorWrapper, batch: dict[str, Any], rows: str) -> set[int]:
    """Insert the records whose identity is not stored yet, in the order of `rows`, and return their ids.

    Waits for another transaction that is storing the same identity. Unique index (usage_event, idempotency_key).
    """
    cursor.execute(
        _INSERT + "ON CONFLICT (usage_event_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING "
        "RETURNING id",
        {**batch, "rows": rows},
    )
    return {record_id for (record_id,) in cursor.fetchall()}


def compare_with_first(
    database: BaseDatabaseWrapper, usage_event_id: int, rows: Sequence[tuple[int, int | None, datetime, str, bytes]]
) -> dict[int, bool]:
    """Tell for each row whose identity is stored, by its number, whether it means what was first ingested under it.

    A row is its number, the customer's id (None for one that no record can have), the timestamp, the identity and the
    data. What was first ingested is the oldest revision's before-image, or the record itself if nothing changed it.
    Unique indexes (usage_event, idempotency_key) and (usage_event, record, revision), identity by identity: about a
    table that has just grown the planner guesses badly, and a join would read it whole.
    """
    numbers, customers, moments, keys, data = zip(*rows, strict=True)
    result = _ask(
        database,
        b"""
        SELECT sent.number,
               COALESCE(sent.customer_id = COALESCE(first.customer_id, record.customer_id), false)
               AND sent.timestamp = COALESCE(first.timestamp, record.timestamp)
               AND sent.data::jsonb = COALESCE(first.data, record.data)
        FROM unnest($2, $3, $4, $5, $6) AS sent (number, customer_id, timestamp, key, data)
        CROSS JOIN LATERAL (
            SELECT * FROM usage_usagerecord WHERE usage_event_id = $1 AND idempotency_key = sent.key LIMIT 1) AS record
        LEFT JOIN LATERAL (
            SELECT * FROM usage_recordrevision
            WHERE usage_event_id = $1 AND record_id = record.id AND revision = 1 LIMIT 1) AS first ON true
        """,
        (BIGINT, usage_event_id.to_bytes(8)),
        (arrays.BIGINTS, arrays.bigints(numbers)),
        (arrays.BIGINTS, arrays.bigints(customers)),
        (arrays.TIMESTAMPS, arrays.timestamps(moments)),
        (arrays.TEXTS, arrays.texts(key.encode() for key in keys)),
        (arrays.TEXTS, arrays.texts(data)),
    )
    return {int(result.get_value(n, 0) or 0): result.get_value(n, 1) == b"t" for n in range(result.ntuples)}
