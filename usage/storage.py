"""The one transaction in which a batch and its records are stored, known identities told apart, and all is durable."""

import time
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import msgspec
import psycopg.errors
from django.db import IntegrityError, OperationalError, connection, transaction

from usage import sql
from usage.copying import CopyRow, copy_bytes
from usage.definitions import DefinitionChanged
from usage.envelopes import ReceivedRecord

COPY_FROM = 100
ATTEMPTS = 5
SUSPECT_REPLAYS_FOR = 60.0

TRANSIENT = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)

# usage event id -> until when (monotonic seconds) its batches are expected to hold known identities
_replaying: dict[int, float] = {}


@dataclass(frozen=True, slots=True)
class BatchHead:
    """Where a batch comes from and what it was checked against."""

    usage_event_id: int
    schema_version: int
    source: str
    api_key_id: int | None
    user_id: int | None
    rejected: int


@dataclass(frozen=True, slots=True)
class Candidates:
    """Records to store, each identity once; `repeats` holds the indexes of equal later ones by the first's index."""

    records: list[ReceivedRecord]
    customers: dict[str, int]
    repeats: dict[int, list[int]] = field(default_factory=dict)


@dataclass(slots=True)
class Stored:
    """What became of the records of a batch; `duplicates` and `conflicts` hold indexes of the request."""

    batch_id: int
    received_at: datetime
    accepted: int
    duplicates: list[int] = field(default_factory=list)
    conflicts: list[int] = field(default_factory=list)


def store(head: BatchHead, candidates: Candidates) -> Stored:
    """Commit the batch and those of its records that are new, in one transaction.

    Tries the quick way first: most batches are all new. Deadlocks and serialization failures are retried. Raises
    DefinitionChanged, with nothing stored.
    """
    for attempt in range(ATTEMPTS):
        try:
            return _store(head, candidates)
        except OperationalError as error:
            if not isinstance(error.__cause__, TRANSIENT) or attempt == ATTEMPTS - 1:
                raise
            time.sleep(0.01 * 2**attempt)
    raise AssertionError("the loop returns or raises")


def _store(head: BatchHead, candidates: Candidates) -> Stored:
    if not _suspect(head.usage_event_id, candidates.records):
        try:
            return _store_fresh(head, candidates)
        except IntegrityError as error:
            if not isinstance(error.__cause__, psycopg.errors.UniqueViolation):
                raise
            _replaying[head.usage_event_id] = time.monotonic() + SUSPECT_REPLAYS_FOR
    return _store_unknown(head, candidates)


def _suspect(usage_event_id: int, records: list[ReceivedRecord]) -> bool:
    until = _replaying.get(usage_event_id)
    return until is not None and until > time.monotonic() and any(record.key is not None for record in records)


def _store_fresh(head: BatchHead, candidates: Candidates) -> Stored:
    """All records are new, or IntegrityError and nothing is stored."""
    repeated = sorted(index for indexes in candidates.repeats.values() for index in indexes)
    with transaction.atomic(), connection.cursor() as cursor:
        batch = _open(cursor, head, candidates, accepted=len(candidates.records), duplicates=len(repeated))
        rows = _rows_in_key_order(candidates, batch.ids)
        if len(rows) >= COPY_FROM:
            sql.copy_fresh(cursor, copy_bytes(rows, **batch.columns))
        elif rows:
            sql.insert_fresh(cursor, batch.columns, _json(rows))
    return Stored(batch.id, batch.received_at, accepted=len(rows), duplicates=repeated)


def _store_unknown(head: BatchHead, candidates: Candidates) -> Stored:
    """Store what is new; tell duplicates from conflicts by what was first ingested."""
    with transaction.atomic(), connection.cursor() as cursor:
        batch = _open(cursor, head, candidates, accepted=0, duplicates=0)
        rows = _rows_in_key_order(candidates, batch.ids)
        inserted = sql.insert_unknown(cursor, batch.columns, _json(rows))
        known = [row for row in rows if row.id not in inserted]
        same = sql.compare_with_first(cursor, head.usage_event_id, _json(known)) if known else {}
        stored = Stored(batch.id, batch.received_at, accepted=len(inserted))
        for record, record_id in zip(candidates.records, batch.ids, strict=True):
            later = candidates.repeats.get(record.index, [])
            if record_id in inserted:
                stored.duplicates += later
            else:
                (stored.duplicates if same[record_id] else stored.conflicts).extend([record.index, *later])
        counts = {
            "accepted": stored.accepted,
            "duplicates": len(stored.duplicates),
            "conflicts": len(stored.conflicts),
            "rejected": head.rejected,
        }
        sql.close_batch(cursor, batch.id, head.usage_event_id, counts)
    return stored


@dataclass(frozen=True, slots=True)
class _OpenBatch:
    id: int
    received_at: datetime
    ids: list[int]
    columns: dict[str, Any]


def _open(cursor: Any, head: BatchHead, candidates: Candidates, *, accepted: int, duplicates: int) -> _OpenBatch:
    opened = sql.open_batch(
        cursor, {**asdict(head), "accepted": accepted, "duplicates": duplicates}, len(candidates.records)
    )
    if opened is None:
        raise DefinitionChanged
    batch_id, received_at, ids = opened
    columns = {
        "usage_event_id": head.usage_event_id,
        "batch_id": batch_id,
        "schema_version": head.schema_version,
        "received_at": received_at,
    }
    return _OpenBatch(batch_id, received_at, ids, columns)


def _rows_in_key_order(candidates: Candidates, ids: list[int]) -> list[CopyRow]:
    """Ids follow the order sent; the order of inserting is that of the keys, or overlapping batches would deadlock."""
    customers = candidates.customers
    rows = [
        CopyRow(record_id, customers[record.customer_id], record.timestamp, record.key, record.data)
        for record_id, record in zip(ids, candidates.records, strict=True)
    ]
    rows.sort(key=lambda row: row.key or "")
    return rows


def _json(rows: list[CopyRow]) -> str:
    return msgspec.json.encode([{**row._asdict(), "data": msgspec.Raw(row.data)} for row in rows]).decode()
