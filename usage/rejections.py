"""Keeping refused records: one entry a payload and cause, counted when it comes again, up to a cap a day."""

import hashlib
from collections.abc import Callable
from datetime import datetime

import msgspec
from django.conf import settings
from django.db.backends.utils import CursorWrapper

from usage import rejection_sql as sql
from usage.envelopes import Problem


def keep_rejected(
    cursor: CursorWrapper,
    *,
    organisation_id: int,
    usage_event_id: int,
    batch_id: int,
    received_at: datetime,
    problems: list[Problem],
    payload_of: Callable[[int], str],
) -> None:
    """Put refused records into quarantine, inside the caller's transaction, and note each one's entry in its problem.

    A payload that is there already for the same cause is counted, not kept again. Beyond the organisation's cap of the
    day (setting QUARANTINE_DAILY_CAP) new ones are only counted; their problems name no entry.
    """
    entries: dict[bytes, list[Problem]] = {}
    for problem in problems:
        entries.setdefault(fingerprint(problem.code, payload_of(problem.index)), []).append(problem)
    known = sql.count_again(cursor, usage_event_id, {mark: len(same) for mark, same in entries.items()}, received_at)
    fresh = [mark for mark in sorted(entries) if mark not in known]
    room = sql.take_room(cursor, organisation_id, received_at.date(), len(fresh), settings.QUARANTINE_DAILY_CAP)
    rows = [
        {
            "fingerprint": mark.hex(),
            "times": len(entries[mark]),
            "idempotency_key": first.id,
            "code": first.code,
            "pointer": storable(first.pointer),
            "message": storable(first.message),
            "payload": payload_of(first.index),
        }
        for mark in fresh[:room]
        for first in entries[mark][:1]
    ]
    if rows:
        known |= sql.insert_rejected(cursor, usage_event_id, batch_id, received_at, msgspec.json.encode(rows).decode())
    for mark, same in entries.items():
        for problem in same:
            problem.rejected_record = str(known[mark]) if mark in known else None


def fingerprint(code: str, payload: str) -> bytes:
    """Return what tells one entry from another: the SHA-256 of cause and text."""
    return hashlib.sha256(f"{code}\n{payload}".encode()).digest()


def storable(text: str) -> str:
    """Return text that PostgreSQL can keep: null characters, which a message may quote, are written out."""
    return text.replace("\0", "\\u0000")
