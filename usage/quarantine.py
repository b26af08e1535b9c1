"""The quarantine: refused records are looked at by cause, replayed when what was wrong is mended, or discarded."""

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec
from django.db import connection, transaction
from django.db.models import Count, Max, Sum
from django.utils.timezone import now

from usage import rejection_sql as sql
from usage.bodies import submission_of
from usage.corrections import Actor, check_reason
from usage.definitions import define
from usage.envelopes import Problem
from usage.ingestion import Source, UsageEventGone, ingest
from usage.models import IngestBatch, RejectedRecord, UsageEvent
from usage.references import parse_batch_reference
from usage.rejections import fingerprint, storable

log = logging.getLogger(__name__)

MAX_AT_ONCE = 10_000


class NotOpen(ValueError):
    """The rejected record was replayed, delivered or discarded already; `status` says which."""

    def __init__(self, status: str) -> None:
        super().__init__(f"an open rejected record was expected, this one is {status}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay did, or would do: entries stored, known already with the same content, and refused again."""

    accepted: int
    duplicates: int
    refused: list[Problem]
    batch: str | None


@dataclass(frozen=True, slots=True)
class Cause:
    """Open entries of one usage event with one code: how many entries and records sent, when last, and an example."""

    usage_event_id: int
    code: str
    entries: int
    records: int
    last_seen_at: datetime
    newest_id: int


class _Rehearsal(Exception):
    """Ends a dry run: what it did is undone."""


def causes(organisation_id: int) -> list[Cause]:
    """Return what is open in the quarantine, by usage event and code, most entries first."""
    rows = (
        RejectedRecord.objects.filter(usage_event__organisation_id=organisation_id, status=RejectedRecord.Status.OPEN)
        .values("usage_event_id", "code")
        .annotate(entries=Count("id"), records=Sum("times"), last_seen_at=Max("last_seen_at"), newest_id=Max("id"))
        .order_by("-entries", "usage_event_id", "code")
    )
    return [Cause(**row) for row in rows]


def replay_rejected(
    usage_event_id: int,
    rejected_ids: Iterable[int],
    *,
    actor: Actor,
    payloads: dict[int, str] | None = None,
    dry_run: bool = False,
) -> Replayed:
    """Send open entries through ingestion again, under the definition of now, as one batch.

    `payloads` replaces the text of entries, by id, where the record itself had to be mended. What is stored or known is
    closed in the same transaction; what is refused again stays open, with the new cause. A dry run does all of it and
    undoes it. Raises NotOpen, RejectedRecord.DoesNotExist, UsageEventGone; then nothing was changed.
    """
    started = time.monotonic()
    payloads = payloads or {}
    result: Replayed | None = None
    try:
        with transaction.atomic():
            entries = _lock_open(usage_event_id, rejected_ids)
            result = _replay(usage_event_id, entries, payloads, actor)
            if dry_run:
                raise _Rehearsal
    except _Rehearsal:
        pass
    assert result is not None
    log.info(
        "replayed%s entries=%d accepted=%d duplicates=%d refused=%d ms=%.1f",
        " (dry run)" if dry_run else "",
        len(entries),
        result.accepted,
        result.duplicates,
        len(result.refused),
        (time.monotonic() - started) * 1000,
    )
    return result


@transaction.atomic
def discard_rejected(usage_event_id: int, rejected_ids: Iterable[int], *, reason: str, actor: Actor) -> int:
    """Close open entries for good, with a reason; returns how many. Raises CorrectionError for the reason, NotOpen."""
    check_reason(reason)
    entries = _lock_open(usage_event_id, rejected_ids)
    _close(
        usage_event_id, [entry.pk for entry in entries], RejectedRecord.Status.DISCARDED, actor, reason=reason.strip()
    )
    log.info("discarded entries=%d", len(entries))
    return len(entries)


def _lock_open(usage_event_id: int, rejected_ids: Iterable[int]) -> list[RejectedRecord]:
    """Lock entries in key order; all of them must be there and open."""
    ids = sorted(set(rejected_ids))
    if not 0 < len(ids) <= MAX_AT_ONCE:
        raise ValueError(f"1 to {MAX_AT_ONCE} rejected records were expected, got {len(ids)}")
    found = RejectedRecord.objects.select_for_update().filter(usage_event_id=usage_event_id, pk__in=ids).order_by("pk")
    entries = list(found)
    if len(entries) < len(ids):
        raise RejectedRecord.DoesNotExist
    for entry in entries:
        if entry.status != RejectedRecord.Status.OPEN:
            raise NotOpen(entry.status)
    return entries


def _replay(usage_event_id: int, entries: list[RejectedRecord], payloads: dict[int, str], actor: Actor) -> Replayed:
    # Locked: the definition that the records are checked against stays in force until they are stored.
    locked = UsageEvent.objects.select_related("organisation").select_for_update(of=("self",), no_key=True)
    usage_event = locked.get(pk=usage_event_id)
    if usage_event.archived_at is not None:
        raise UsageEventGone
    texts = [payloads.get(entry.pk, entry.payload) for entry in entries]
    definition = replace(define(usage_event), keeps_rejected=False)
    source = Source(IngestBatch.Source.REPLAY, user_id=actor.user_id)
    result = ingest(definition, submission_of(texts), source=source)
    refused = {problem.index: problem for problem in result.problems}
    done = [entry.pk for index, entry in enumerate(entries) if index not in refused]
    _close(usage_event_id, done, RejectedRecord.Status.REPLAYED, actor, batch=result.batch)
    again = [(entries[index], problem, texts[index]) for index, problem in refused.items()]
    _refuse_again(usage_event_id, again, actor)
    return Replayed(result.accepted, result.duplicates, list(refused.values()), result.batch)


def _close(
    usage_event_id: int,
    ids: list[int],
    status: RejectedRecord.Status,
    actor: Actor,
    *,
    reason: str = "",
    batch: str | None = None,
) -> None:
    parsed = parse_batch_reference(batch) if batch else None
    RejectedRecord.objects.filter(usage_event_id=usage_event_id, pk__in=ids).update(
        status=status,
        closed_at=now(),
        closed_by=actor.user_id,
        closed_by_name=actor.name[:200],
        closing_reason=reason,
        closing_batch_id=parsed[0] if parsed else None,
    )


def _refuse_again(usage_event_id: int, refused: list[tuple[RejectedRecord, Problem, str]], actor: Actor) -> None:
    """Note the causes that entries have now; one that has become equal to another open entry is closed for it.

    In a few statements, however many there are: what is refused as before costs none.
    """
    changed: dict[bytes, list[tuple[RejectedRecord, Problem, str]]] = {}
    for entry, problem, payload in refused:
        problem.rejected_record = str(entry.pk)
        mark = fingerprint(problem.code, payload)
        if mark != bytes(entry.fingerprint) or storable(problem.message) != entry.message:
            changed.setdefault(mark, []).append((entry, problem, payload))
    still_open = RejectedRecord.objects.filter(usage_event_id=usage_event_id, status=RejectedRecord.Status.OPEN)
    held = still_open.filter(fingerprint__in=list(changed)).values_list("fingerprint", "pk")
    holders = {bytes(mark): pk for mark, pk in held}
    rows: list[dict[str, Any]] = []
    for mark, same in changed.items():
        holder = holders.setdefault(mark, same[0][0].pk)
        twins = [entry.pk for entry, _, _ in same if entry.pk != holder]
        if twins:
            reason = f"the same as rejected record {holder}"
            _close(usage_event_id, twins, RejectedRecord.Status.DISCARDED, actor, reason=reason)
        rows += [_as_row(mark, *one) for one in same if one[0].pk == holder]
    if rows:
        with connection.cursor() as cursor:
            sql.change_causes(cursor, usage_event_id, msgspec.json.encode(rows).decode(), now())


def _as_row(mark: bytes, entry: RejectedRecord, problem: Problem, payload: str) -> dict[str, Any]:
    return {
        "id": entry.pk,
        "fingerprint": mark.hex(),
        "idempotency_key": problem.id,
        "code": problem.code,
        "pointer": storable(problem.pointer),
        "message": storable(problem.message),
        "payload": payload,
    }
