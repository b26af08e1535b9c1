"""The one transaction in which a batch and its records are stored, known identities told apart, and all is durable."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import msgspec
import psycopg.errors
from django.db import IntegrityError, OperationalError, connection, transaction

from usage import sql
from usage.copying import CopyRow, copy_bytes
from usage.definitions import DefinitionChanged
from usage.envelopes import Problem, ReceivedRecord
from usage.rejection_sql import close_delivered
from usage.rejections import keep_rejected
from usage.schema_sql import is_revision

COPY_FROM = 100
ATTEMPTS = 5
SUSPECT_REPLAYS_FOR = 60.0
CONFLICT = ("conflict", "/id", "this id is known with other content")

TRANSIENT = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)

# usage event id -> until when (monotonic seconds) its batches are expected to hold known identities
_replaying: dict[int, float] = {}


class Contradicted(Exception):
    """A strict batch holds known identities with other content; nothing was stored."""

    def __init__(self, duplicates: int, conflicts: list[Problem]) -> None:
        super().__init__(f"{len(conflicts)} conflicts")
        self.duplicates, self.conflicts = duplicates, conflicts


@dataclass(frozen=True, slots=True)
class BatchHead:
    """Where a batch comes from, and what it was checked against."""

    organisation_id: int
    usage_event_id: int
    definition_revision: int
    aliases_revision: int
    schema_version: int
    source: str
    api_key_id: int | None
    user_id: int | None
    upload_id: int | None = None


@dataclass(frozen=True, slots=True)
class Candidates:
    """Records to store, each identity once, and what is to be done with the others.

    `repeats` holds the indexes of equal later records by the first's index; `problems` are those refused already.
    """

    records: list[ReceivedRecord]
    customers: dict[str, int]
    repeats: dict[int, list[int]]
    problems: list[Problem]
    payload_of: Callable[[int], str]
    keep_rejected: bool = True
    strict: bool = False


@dataclass(slots=True)
class Stored:
    """What became of the records of a batch; `problems` are all refusals, conflicts among them."""

    batch_id: int
    received_at: datetime
    accepted: int
    duplicates: int
    problems: list[Problem]
    not_kept: int


def store(head: BatchHead, candidates: Candidates) -> Stored:
    """Commit the batch, those of its records that are new, and the quarantine of the refused, in one transaction.

    Tries the quick way first: most batches are all new. Deadlocks and serialization failures are retried. Raises
    DefinitionChanged, or Contradicted for a strict batch, with nothing stored.
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
            return _store_at_once(head, candidates) or _store_fresh(head, candidates)
        except IntegrityError as error:
            if not isinstance(error.__cause__, psycopg.errors.UniqueViolation):
                raise
            _replaying[head.usage_event_id] = time.monotonic() + SUSPECT_REPLAYS_FOR
    return _store_unknown(head, candidates)


def _suspect(usage_event_id: int, records: list[ReceivedRecord]) -> bool:
    until = _replaying.get(usage_event_id)
    return until is not None and until > time.monotonic() and any(record.key is not None for record in records)


def _store_at_once(head: BatchHead, candidates: Candidates) -> Stored | None:
    """Of a small batch without refusals: all in one statement. None, with nothing stored, if that does not do."""
    records = candidates.records
    if not 0 < len(records) < COPY_FROM or candidates.problems or connection.in_atomic_block:
        return None
    repeated = sum(map(len, candidates.repeats.values()))
    rows = [
        {
            "index": record.index,
            "customer_id": candidates.customers[record.customer_id],
            "timestamp": record.timestamp,
            "key": record.key,
            "data": msgspec.Raw(record.data),
        }
        for record in records
    ]
    with connection.cursor() as cursor:
        stored = sql.store_fresh(cursor, {**asdict(head), "duplicates": repeated}, msgspec.json.encode(rows).decode())
    return stored and Stored(*stored, len(rows), repeated, candidates.problems, 0)


def _store_fresh(head: BatchHead, candidates: Candidates) -> Stored:
    """All records are new, or IntegrityError and nothing is stored."""
    repeated = sum(map(len, candidates.repeats.values()))
    with transaction.atomic(), connection.cursor() as cursor:
        batch = _open(cursor, head, candidates, accepted=len(candidates.records), duplicates=repeated)
        rows = _rows_in_key_order(candidates, batch.ids)
        if len(rows) >= COPY_FROM:
            _check_unchanged(cursor, head)
            sql.copy_fresh(cursor, copy_bytes(rows, **batch.columns))
        elif rows:
            checked_under = {"definition_revision": head.definition_revision}
            if not sql.insert_fresh(cursor, batch.columns | checked_under, _json(rows)):
                raise DefinitionChanged
        not_kept = _settle_rejected(cursor, head, batch, candidates, rows, candidates.problems)
    return Stored(batch.id, batch.received_at, len(rows), repeated, candidates.problems, not_kept)


def _store_unknown(head: BatchHead, candidates: Candidates) -> Stored:
    """Store what is new; tell duplicates from conflicts by what was first ingested."""
    with transaction.atomic(), connection.cursor() as cursor:
        batch = _open(cursor, head, candidates, accepted=0, duplicates=0)
        _check_unchanged(cursor, head)
        rows = _rows_in_key_order(candidates, batch.ids)
        inserted = _insert_unknown(cursor, batch, rows)
        known = [row for row in rows if row.id not in inserted]
        same = sql.compare_with_first(cursor, head.usage_event_id, _json(known)) if known else {}
        duplicates, conflicts = _classify(candidates, batch.ids, inserted, same)
        if conflicts and candidates.strict:
            raise Contradicted(duplicates, conflicts)
        counts = {
            "accepted": len(inserted),
            "duplicates": duplicates,
            "conflicts": len(conflicts),
            "rejected": len(candidates.problems),
        }
        sql.close_batch(cursor, batch.id, head.usage_event_id, counts)
        problems = sorted(candidates.problems + conflicts, key=lambda problem: problem.index)
        new = [row for row in rows if row.id in inserted]
        not_kept = _settle_rejected(cursor, head, batch, candidates, new, problems)
    return Stored(batch.id, batch.received_at, len(inserted), duplicates, problems, not_kept)


def _insert_unknown(cursor: Any, batch: "_OpenBatch", rows: list[CopyRow]) -> set[int]:
    """Insert the records whose identity is not stored yet; returns their ids.

    Of many, those that are not known are copied; should somebody store one of them at this moment, they are inserted.
    """
    if len(rows) >= COPY_FROM:
        usage_event_id = batch.columns["usage_event_id"]
        known = sql.known_keys(cursor, usage_event_id, [row.key for row in rows if row.key is not None])
        new = [row for row in rows if row.key not in known]
        try:
            with transaction.atomic():
                if new:
                    sql.copy_fresh(cursor, copy_bytes(new, **batch.columns))
            return {row.id for row in new}
        except IntegrityError as error:
            if not isinstance(error.__cause__, psycopg.errors.UniqueViolation):
                raise
    return sql.insert_unknown(cursor, batch.columns, _json(rows))


def _check_unchanged(cursor: Any, head: BatchHead) -> None:
    """The batch's own statement may have waited for who published a schema, and does not see it; this one does."""
    if not is_revision(cursor, head.usage_event_id, head.definition_revision):
        raise DefinitionChanged


def _classify(
    candidates: Candidates, ids: list[int], inserted: set[int], same: dict[int, bool]
) -> tuple[int, list[Problem]]:
    """Count the duplicates and name the conflicts; a repeat shares the fate of its first."""
    duplicates = 0
    conflicts: list[Problem] = []
    for record, record_id in zip(candidates.records, ids, strict=True):
        later = candidates.repeats.get(record.index, [])
        if record_id in inserted:
            duplicates += len(later)
        elif same[record_id]:
            duplicates += 1 + len(later)
        else:
            conflicts += [Problem(index, record.key, *CONFLICT) for index in (record.index, *later)]
    return duplicates, conflicts


def _settle_rejected(
    cursor: Any,
    head: BatchHead,
    batch: "_OpenBatch",
    candidates: Candidates,
    stored: list[CopyRow],
    problems: list[Problem],
) -> int:
    """Close the entries whose records have come, and keep the refused ones; returns how many found no room."""
    if batch.quarantine_waits:
        keys = [row.key for row in stored if row.key is not None]
        close_delivered(cursor, head.usage_event_id, batch.id, keys, batch.received_at)
    if problems and candidates.keep_rejected:
        keep_rejected(
            cursor,
            organisation_id=head.organisation_id,
            usage_event_id=head.usage_event_id,
            batch_id=batch.id,
            received_at=batch.received_at,
            problems=problems,
            payload_of=candidates.payload_of,
        )
        return sum(problem.rejected_record is None for problem in problems)
    return 0


@dataclass(frozen=True, slots=True)
class _OpenBatch:
    id: int
    received_at: datetime
    quarantine_waits: bool
    ids: list[int]
    columns: dict[str, Any]


def _open(cursor: Any, head: BatchHead, candidates: Candidates, *, accepted: int, duplicates: int) -> _OpenBatch:
    opened = sql.open_batch(
        cursor,
        {**asdict(head), "accepted": accepted, "duplicates": duplicates, "rejected": len(candidates.problems)},
        len(candidates.records),
    )
    if opened is None:
        raise DefinitionChanged
    batch_id, received_at, quarantine_waits, ids = opened
    columns = {
        "usage_event_id": head.usage_event_id,
        "batch_id": batch_id,
        "schema_version": head.schema_version,
        "received_at": received_at,
    }
    return _OpenBatch(batch_id, received_at, quarantine_waits, ids, columns)


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
