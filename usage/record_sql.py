"""Statements that read records by filter, a page at a time or all of them: which index each one walks, and how."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from django.db.backends.utils import CursorWrapper
from psycopg import sql

from usage.record_filters import Place, RecordFilter

ROWS_AT_ONCE = 500


class RecordRow(NamedTuple):
    """A record as it is read for the outside; `data` is its JSON text, `moment` what the walk orders by."""

    id: int
    usage_event_id: int
    usage_event: str
    customer_id: str
    customer_archived: bool
    timestamp: datetime
    record_id: str | None
    data: str
    batch_id: int
    schema_version: int
    received_at: datetime
    revision: int
    voided_at: datetime | None
    moment: datetime


_COLUMNS = sql.SQL(
    "record.id, usage_event.id, usage_event.slug, customer.external_id, customer.archived_at IS NOT NULL,"
    " record.timestamp, record.idempotency_key, record.data::text, record.batch_id, record.schema_version,"
    " record.received_at, record.revision, record.voided_at, "
)
_BY_TIME = sql.SQL("usage_usagerecord AS record")
# The batches of a usage event in the order of their arrival, and each one's records, which are of no other usage event.
_BY_ARRIVAL = sql.SQL("usage_ingestbatch AS batch JOIN usage_usagerecord AS record ON record.batch_id = batch.id")
# OFFSET 0 keeps the planner from walking a whole stream by time in search of one batch, "+ 0" from looking up where all
# of the stream is as well.
_OF_BATCH = sql.SQL(
    "(SELECT * FROM usage_usagerecord AS record"
    " WHERE batch_id = %(batch_id)s AND usage_event_id + 0 = usage_event.id OFFSET 0) AS record"
)


def read_page(
    cursor: CursorWrapper, asked: RecordFilter, place: Place | None, limit: int, *, backwards: bool = False
) -> list[RecordRow]:
    """Return up to `limit` records beyond a place, newest first; backwards, those before it, oldest first.

    Each usage event's own records are read in the order of an index, and the newest of those are taken: by
    (usage_event, timestamp, id) or (usage_event, customer, timestamp); with a range of received_at by the batches'
    (usage_event, received_at, id); of one batch by (batch). No counting, no offset.
    """
    source, moment = _walk(asked)
    conditions, values = _conditions(asked)
    if place is not None:
        # The first comparison alone can bound an index on the moment; the second tells ties apart.
        conditions.append(sql.SQL("{} {} %(moment)s").format(moment, sql.SQL(">=" if backwards else "<=")))
        conditions.append(
            sql.SQL("({}, record.id) {} (%(moment)s, %(id)s)").format(moment, sql.SQL(">" if backwards else "<"))
        )
        values |= {"moment": place.moment, "id": place.record_id}
    order = sql.SQL("ASC" if backwards else "DESC")
    statement = sql.SQL(
        """
        SELECT {columns} record.moment
        FROM usage_usageevent AS usage_event
        CROSS JOIN LATERAL (
            SELECT record.*, {moment} AS moment FROM {source} WHERE {conditions}
            ORDER BY {moment} {order}, record.id {order} LIMIT %(limit)s
        ) AS record
        JOIN customers_customer AS customer ON customer.id = record.customer_id
        WHERE {own}
        ORDER BY record.moment {order}, record.id {order} LIMIT %(limit)s
        """
    ).format(
        columns=_COLUMNS,
        moment=moment,
        source=source,
        conditions=sql.SQL(" AND ").join(conditions),
        order=order,
        own=_own(asked, values),
    )
    cursor.execute(statement, {**values, "limit": limit})
    return [RecordRow(*row) for row in cursor.fetchall()]


def read_all(cursor: CursorWrapper, asked: RecordFilter, usage_event_id: int) -> Iterator[RecordRow]:
    """Yield a usage event's records that are asked for, oldest first, as a server-side cursor fetches them.

    Walks the same indexes as a page, so that nothing is sorted as a whole before the first row comes.
    """
    source, moment = _walk(asked)
    conditions, values = _conditions(asked)
    statement = sql.SQL(
        """
        SELECT {columns} {moment}
        FROM usage_usageevent AS usage_event
        CROSS JOIN {source}
        JOIN customers_customer AS customer ON customer.id = record.customer_id
        WHERE usage_event.id = %(usage_event_id)s AND {conditions}
        ORDER BY {moment}, record.id
        """
    ).format(
        columns=_COLUMNS,
        moment=moment,
        source=sql.SQL("LATERAL {}").format(source) if asked.batch_id is not None else source,
        conditions=sql.SQL(" AND ").join(conditions),
    )
    cursor.execute(statement, {**values, "usage_event_id": usage_event_id})
    while rows := cursor.fetchmany(ROWS_AT_ONCE):
        yield from (RecordRow(*row) for row in rows)


def read_one(cursor: CursorWrapper, organisation_id: int, record_id: int) -> RecordRow | None:
    """Return the organisation's record of that id, or None. Primary keys."""
    statement = sql.SQL(
        """
        SELECT {columns} record.timestamp
        FROM usage_usagerecord AS record
        JOIN usage_usageevent AS usage_event ON usage_event.id = record.usage_event_id
        JOIN customers_customer AS customer ON customer.id = record.customer_id
        WHERE record.id = %(id)s AND usage_event.organisation_id = %(organisation_id)s
        """
    ).format(columns=_COLUMNS)
    cursor.execute(statement, {"id": record_id, "organisation_id": organisation_id})
    row = cursor.fetchone()
    return RecordRow(*row) if row else None


def _walk(asked: RecordFilter) -> tuple[sql.Composable, sql.Composable]:
    """What is read, and the column that orders it."""
    if asked.batch_id is not None:
        return _OF_BATCH, sql.SQL("record.timestamp")
    if asked.received_after is not None or asked.received_before is not None:
        return _BY_ARRIVAL, sql.SQL("batch.received_at")
    return _BY_TIME, sql.SQL("record.timestamp")


def _own(asked: RecordFilter, values: dict[str, Any]) -> sql.Composable:
    values["organisation_id"] = asked.organisation_id
    if asked.usage_event_id is None:
        return sql.SQL("usage_event.organisation_id = %(organisation_id)s")
    values["usage_event_id"] = asked.usage_event_id
    return sql.SQL("usage_event.organisation_id = %(organisation_id)s AND usage_event.id = %(usage_event_id)s")


def _conditions(asked: RecordFilter) -> tuple[list[sql.Composable], dict[str, Any]]:
    """What is asked of a record, as conditions and their values."""
    by_arrival = _walk(asked)[0] is _BY_ARRIVAL
    received = "batch.received_at" if by_arrival else "record.received_at"
    tests = {
        "customer_id": "record.customer_id = %(customer_id)s",
        "timestamp_after": "record.timestamp >= %(timestamp_after)s",
        "timestamp_before": "record.timestamp < %(timestamp_before)s",
        "received_after": f"{received} >= %(received_after)s",
        "received_before": f"{received} < %(received_before)s",
        "record_id": "record.idempotency_key = %(record_id)s",
        "batch_id": "record.batch_id = %(batch_id)s",
    }
    values = {name: value for name in tests if (value := getattr(asked, name)) is not None}
    texts = [
        f"{'batch' if by_arrival else 'record'}.usage_event_id = usage_event.id",
        *(tests[name] for name in values),
    ]
    if asked.voided is not None:
        texts.append(f"record.voided_at IS {'NOT NULL' if asked.voided else 'NULL'}")
    for number, (name, readings) in enumerate(asked.data.items()):
        texts.append(f"record.data -> %(property_{number})s = ANY (%(readings_{number})s::jsonb[])")
        values |= {f"property_{number}": name, f"readings_{number}": readings}
    return [sql.SQL(text) for text in texts], values
