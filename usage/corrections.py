"""Corrections: change, void or restore stored records, with reason and before-image, and mark what that touches."""

import logging
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from django.utils import timezone

from customers.exactjson import same_json
from customers.resolution import resolve_customers
from usage import correction_sql as sql
from usage.definitions import Definition, find_definition, load_definition
from usage.envelopes import check_data, check_text
from usage.models import RecordRevision, UsageRecord
from usage.schema_sql import share_schema
from usage.storable import check_characters
from usage.timestamps import check_moment

log = logging.getLogger(__name__)

MAX_REASON = 2_000
ATTEMPTS = 5  # others may publish a schema between the look and the change


class CorrectionError(ValueError):
    """The correction was refused and nothing was changed; `field` names the input at fault ("" for the record)."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class StaleRevision(CorrectionError):
    """Somebody else changed the record since it was read."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who changes records, by id and by the name that the history will show."""

    user_id: int | None
    name: str


def actor_of(user: AbstractBaseUser) -> Actor:
    """Return a signed-in person as actor: full name where there is one, else the user name."""
    return Actor(user.pk, getattr(user, "get_full_name", str)() or user.get_username())


def correct_record(
    record_id: int,
    *,
    customer_id: str | None = None,
    timestamp: datetime | None = None,
    data: dict[str, Any] | None = None,
    revision: int,
    reason: str,
    actor: Actor,
) -> UsageRecord:
    """Change what a record says (the sender's customer id, the instant, the whole data) and return it.

    What is None stays. `revision` is the one that the caller saw. Keeps the before-image, and marks the record's old
    and new window as changed, in one transaction. Raises StaleRevision, CorrectionError with the field at fault,
    UsageRecord.DoesNotExist.
    """
    started = time.monotonic()
    check_reason(reason)
    # In one transaction, so that a refused correction leaves no customer either.
    with transaction.atomic() if customer_id is not None else nullcontext(), connection.cursor() as cursor:
        for _ in range(ATTEMPTS):
            record, definition = _read(cursor, record_id)
            _check_open(record, revision)
            change = _change(record, definition, customer_id, timestamp, data)
            if not change:
                raise CorrectionError("", "nothing was changed: customer, timestamp and data are as they were")
            seen = {
                "record_id": record.pk,
                "usage_event_id": record.usage_event_id,
                "revision": record.revision,
                "definition_revision": definition.revision,
            }
            if sql.correct_record(cursor, seen | change | _signed(reason, actor)):
                break
        else:
            raise CorrectionError("", "the record or its usage event is being changed by others; please try again")
    for name, value in (change | {"revision": record.revision + 1}).items():
        setattr(record, name, value)
    log.info("corrected record=%d fields=%s ms=%.1f", record.pk, "+".join(change), (time.monotonic() - started) * 1000)
    return record


def _read(cursor: CursorWrapper, record_id: int) -> tuple[UsageRecord, Definition]:
    """Return a record and the definition that it stands under, as they are at this moment."""
    found = sql.read_record(cursor, record_id)
    if found is None:
        raise UsageRecord.DoesNotExist(f"there is no record {record_id}")
    record, organisation_id, slug, revision = found
    definition = find_definition(organisation_id, slug)
    if definition is None or definition.revision != revision:
        definition = load_definition(organisation_id, slug)
    assert definition is not None  # nobody deletes a usage event
    return record, definition


def void_records(
    usage_event_id: int, record_ids: Iterable[int], *, reason: str, actor: Actor, revision: int | None = None
) -> int:
    """Annul records, so that no quantity counts them; returns how many were not void before.

    With `revision`, the one that the caller saw of each: raises StaleRevision if one is at another, and
    CorrectionError if all are void already.
    """
    return _set_voided(usage_event_id, record_ids, timezone.now(), reason, actor, revision)


def restore_records(
    usage_event_id: int, record_ids: Iterable[int], *, reason: str, actor: Actor, revision: int | None = None
) -> int:
    """Bring voided records back into every quantity; returns how many were void before. `revision` as in voiding."""
    return _set_voided(usage_event_id, record_ids, None, reason, actor, revision)


def _set_voided(
    usage_event_id: int,
    record_ids: Iterable[int],
    voided_at: datetime | None,
    reason: str,
    actor: Actor,
    revision: int | None,
) -> int:
    started = time.monotonic()
    check_reason(reason)
    action = "restore" if voided_at is None else "void"
    with transaction.atomic(), connection.cursor() as cursor:
        share_schema(cursor, usage_event_id)  # who checks a new schema shall see what is brought back
        # Locked in key order, so that two people who void overlapping selections wait instead of deadlocking.
        locked = (
            UsageRecord.objects.select_for_update()
            .filter(usage_event_id=usage_event_id, pk__in=list(record_ids))
            .order_by("pk")
            .only("pk", "revision", "voided_at")
        )
        records = list(locked)
        ids = [record.pk for record in records if (record.voided_at is None) is (voided_at is not None)]
        if revision is not None:
            _check_seen(records, revision, ids, action)
        if ids:
            sql.revise_records(cursor, _revision(usage_event_id, ids, action, reason, actor))
            sql.announce(cursor, f"{action}_records")
            sql.set_voided(cursor, usage_event_id, ids, voided_at)
            sql.mark_windows(cursor, usage_event_id, ids)
    log.info("%s records=%d ms=%.1f", action, len(ids), (time.monotonic() - started) * 1000)
    return len(ids)


def _check_seen(records: list[UsageRecord], revision: int, ids: list[int], action: str) -> None:
    for record in records:
        _check_revision(record, revision)
    if not ids:
        raise CorrectionError(
            "", f"nothing to {action}: the record is {'void already' if action == 'void' else 'not void'}"
        )


def check_reason(reason: str) -> None:
    """Raise CorrectionError for a reason that says nothing, says too much, or cannot be kept."""
    if not 0 < len(reason.strip()) <= MAX_REASON:
        raise CorrectionError("reason", f"a reason of 1 to {MAX_REASON} characters is required")
    _accept("reason", check_characters, reason)


def _check_revision(record: UsageRecord, revision: int) -> None:
    if record.revision != revision:
        raise StaleRevision(
            "revision", f"the record was changed meanwhile: revision {revision} was read, it is at {record.revision}"
        )


def _check_open(record: UsageRecord, revision: int) -> None:
    _check_revision(record, revision)
    if record.voided_at is not None:
        raise CorrectionError("", "the record is void; restore it before correcting it")


def _change(
    record: UsageRecord,
    definition: Definition,
    customer_id: str | None,
    timestamp: datetime | None,
    data: dict[str, Any] | None,
) -> dict[str, Any]:
    change: dict[str, Any] = {}
    if data is not None and not same_json(data, record.data):
        _accept("data", check_data, data, definition.schema)
        change |= {"data": data, "schema_version": definition.schema_version}
    if timestamp is not None and timestamp != record.timestamp:
        _accept("timestamp", check_moment, timestamp)
        change["timestamp"] = timestamp
    if customer_id is not None:
        _accept("customer_id", check_text, customer_id)
        resolved = resolve_customers(definition.organisation_id, [customer_id])[customer_id]
        if resolved != record.customer_id:
            change["customer_id"] = resolved
    return change


def _accept(field: str, check: Callable[..., None], *values: Any) -> None:
    try:
        check(*values)
    except ValueError as error:
        raise CorrectionError(field, str(error)) from error


def _revision(usage_event_id: int, ids: list[int], action: str, reason: str, actor: Actor) -> dict[str, Any]:
    return {
        "usage_event_id": usage_event_id,
        "record_ids": ids,
        "action": RecordRevision.Action(action),
        **_signed(reason, actor),
    }


def _signed(reason: str, actor: Actor) -> dict[str, Any]:
    return {"reason": reason.strip(), "actor_id": actor.user_id, "actor_name": actor.name[:200]}
