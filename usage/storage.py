"""The one transaction in which a batch and its records are stored, known identities told apart, and all is durable."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import psycopg.errors
from django.db import IntegrityError, OperationalError, connection, transaction

from usage import sql
from usage.candidates import BatchHead, Candidates, Contradicted, Counts, Stored
from usage.copying import CopyColumns, copy_bytes
from usage.definitions import DefinitionChanged
from usage.envelopes import Problem
from usage.received import ReceivedRecords
from usage.rejection_sql import close_delivered
from usage.rejections import keep_rejected

COPY_FROM = 200
ATTEMPTS = 5
SUSPECT_REPLAYS_FOR = 60.0
CONFLICT = ("conflict", "/id", "this id is known with other content")

TRANSIENT = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)

# usage event id -> until when (monotonic seconds) its batches are expected to hold known identities
_replaying: dict[int, float] = {}


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
            return _store_new(head, candidates, {})
        except IntegrityError as error:
            _check_is_replay(error)
            _replaying[head.usage_event_id] = time.monotonic() + SUSPECT_REPLAYS_FOR
    try:
        known = known_records(head.usage_event_id, candidates.records, candidates.customers)
        return _store_new(head, candidates, known)
    except IntegrityError as error:
        _check_is_replay(error)
        return _store_beside_others(head, candidates)


def _check_is_replay(error: IntegrityError) -> None:
    if not isinstance(error.__cause__, psycopg.errors.UniqueViolation):
        raise error


def _suspect(usage_event_id: int, records: ReceivedRecords) -> bool:
    until = _replaying.get(usage_event_id)
    return until is not None and until > time.monotonic() and any(key is not None for key in records.keys)


def known_records(usage_event_id: int, records: ReceivedRecords, customers: Mapping[str, int]) -> dict[int, bool]:
    """Tell of those records whose identity is stored, by index, whether they mean what was first ingested under it.

    A customer that is not among the known ones cannot be the one of a stored record.
    """
    owners = map(customers.get, records.customer_ids)
    rows = [
        (index, owner, moment, key, data)
        for index, owner, moment, key, data in zip(
            records.indexes, owners, records.timestamps, records.keys, records.data, strict=True
        )
        if key is not None
    ]
    return sql.compare_with_first(connection, usage_event_id, rows) if rows else {}


def _store_new(head: BatchHead, candidates: Candidates, known: dict[int, bool]) -> Stored:
    """Store the records that are not among the known: all of them are new, or IntegrityError and nothing is stored."""
    return _store_at_once(head, candidates, known) or _store_fresh(head, candidates, known)


def _store_at_once(head: BatchHead, candidates: Candidates, known: dict[int, bool]) -> Stored | None:
    """Of a small batch of new records: all in one statement. None, with nothing stored, if that does not do."""
    records, database = candidates.records, transaction.get_connection()
    if known or candidates.problems or database.in_atomic_block or not 0 < len(records) < COPY_FROM:
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
    batch = {**head._asdict(), "duplicates": repeated, "rows": rows}
    stored = sql.store_fresh(database, msgspec.json.encode(batch))
    return stored and Stored(*stored, len(rows), repeated, candidates.problems, 0)


def _store_fresh(head: BatchHead, candidates: Candidates, known: dict[int, bool]) -> Stored:
    """Store the records that are not among the known, whatever else there is in the batch, step by step."""
    new = candidates.records
    if known:
        new = ReceivedRecords.of(record for record in new if record.index not in known)
    duplicates, conflicts = _classify(candidates, known)
    with transaction.atomic(), connection.cursor() as cursor:
        counts = Counts(len(new), duplicates, len(conflicts), len(candidates.problems))
        batch = _open(cursor, head, counts, len(new))
        if conflicts and candidates.strict:
            raise Contradicted(duplicates, conflicts)
        columns = _in_key_order(new, candidates.customers, batch.ids)
        if len(new) >= COPY_FROM:
            sql.copy_fresh(cursor, copy_bytes(columns, **batch.same))
        elif new:
            sql.insert_fresh(cursor, batch.same, _json_rows(columns))
        problems = _in_order(candidates.problems + conflicts)
        not_kept = _settle_rejected(cursor, head, batch, candidates, columns.keys, problems)
    return Stored(batch.id, batch.received_at, len(new), duplicates, problems, not_kept)


def _store_beside_others(head: BatchHead, candidates: Candidates) -> Stored:
    """Where others store the same identities at this moment: insert what is new, then look what the others were."""
    records = candidates.records
    with transaction.atomic(), connection.cursor() as cursor:
        batch = _open(cursor, head, Counts(0, 0, 0, 0), len(records))
        index_of = dict(zip(batch.ids, records.indexes, strict=True))
        columns = _in_key_order(records, candidates.customers, batch.ids)
        inserted = sql.insert_unknown(cursor, batch.same, _json_rows(columns))
        stored = {index_of[record_id] for record_id in inserted}
        # A statement of its own: the insert's snapshot does not show what it waited for.
        known = known_records(
            head.usage_event_id,
            ReceivedRecords.of(record for record in records if record.index not in stored),
            candidates.customers,
        )
        if len(known) + len(stored) != len(records):
            raise LookupError(f"{len(records) - len(stored)} known records were expected, got {len(known)}")
        duplicates, conflicts = _classify(candidates, known)
        if conflicts and candidates.strict:
            raise Contradicted(duplicates, conflicts)
        counts = Counts(len(inserted), duplicates, len(conflicts), len(candidates.problems))
        sql.close_batch(cursor, batch.id, head.usage_event_id, counts._asdict())
        problems = _in_order(candidates.problems + conflicts)
        new = [key for record_id, key in zip(columns.ids, columns.keys, strict=True) if record_id in inserted]
        not_kept = _settle_rejected(cursor, head, batch, candidates, new, problems)
    return Stored(batch.id, batch.received_at, len(inserted), duplicates, problems, not_kept)


def _in_order(problems: list[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: problem.index)


def _classify(candidates: Candidates, known: dict[int, bool]) -> tuple[int, list[Problem]]:
    """Count the duplicates and name the conflicts; a repeat shares the fate of its first."""
    duplicates = sum(map(len, candidates.repeats.values()))
    conflicts: list[Problem] = []
    if known:
        for record in candidates.records:
            same = known.get(record.index)
            if same:
                duplicates += 1
            elif same is False:
                later = candidates.repeats.get(record.index, [])
                duplicates -= len(later)
                conflicts += [Problem(index, record.key, *CONFLICT) for index in (record.index, *later)]
    return duplicates, conflicts


def _settle_rejected(
    cursor: Any,
    head: BatchHead,
    batch: "_OpenBatch",
    candidates: Candidates,
    stored: list[str | None],
    problems: list[Problem],
) -> int:
    """Close the entries whose records have come, and keep the refused ones; returns how many found no room."""
    if batch.quarantine_waits:
        keys = [key for key in stored if key is not None]
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
    same: dict[str, Any]  # the columns that all of its records have in common


def _open(cursor: Any, head: BatchHead, counts: Counts, records: int) -> _OpenBatch:
    opened = sql.open_batch(cursor, {**head._asdict(), **counts._asdict()}, records)
    if opened is None:
        raise DefinitionChanged
    batch_id, received_at, quarantine_waits, ids = opened
    same = {
        "usage_event_id": head.usage_event_id,
        "batch_id": batch_id,
        "schema_version": head.schema_version,
        "received_at": received_at,
    }
    return _OpenBatch(batch_id, received_at, quarantine_waits, ids, same)


def _in_key_order(records: ReceivedRecords, customers: dict[str, int], ids: list[int]) -> CopyColumns:
    """Ids follow the order sent; the order of inserting is that of the keys, or overlapping batches would deadlock."""
    return CopyColumns(
        ids,
        [customers[customer_id] for customer_id in records.customer_ids],
        records.timestamps,
        records.keys,
        records.data,
    ).in_key_order()


def _json_rows(columns: CopyColumns) -> str:
    names = ("id", "customer_id", "timestamp", "key", "data")
    data = map(msgspec.Raw, columns.data)
    rows = zip(columns.ids, columns.customer_ids, columns.timestamps, columns.keys, data, strict=True)
    return msgspec.json.encode([dict(zip(names, row, strict=True)) for row in rows]).decode()
