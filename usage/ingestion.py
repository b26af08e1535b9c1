"""Ingestion: from the body of a request to committed records and an honest answer for each of them."""

import logging
import time
from dataclasses import dataclass, field

from django.conf import settings

from customers.exactjson import loads, same_json
from customers.models import ApiKey, Scope
from customers.resolution import resolve_customers
from usage.definitions import Definition, DefinitionChanged, confirm_definition, load_definition
from usage.envelopes import Problem, ReceivedRecord, read_records
from usage.models import IngestBatch
from usage.references import batch_reference
from usage.storage import BatchHead, Candidates, Stored, store

log = logging.getLogger(__name__)

ATTEMPTS = 3


class UsageEventGone(Exception):
    """The usage event was archived or is not there any more; nothing was stored."""


class SourceRefused(Exception):
    """The API key was revoked, has expired or lost its scope meanwhile; nothing was stored."""


@dataclass(frozen=True, slots=True)
class Source:
    """Who hands records in: an API key, or a person at a form."""

    kind: IngestBatch.Source
    api_key_id: int | None = None
    user_id: int | None = None


@dataclass(slots=True)
class IngestResult:
    """What became of each record. `problems` has one entry a refused record, in the order sent."""

    batch: str
    accepted: int
    duplicates: int
    conflicts: int
    rejected: int
    problems: list[Problem] = field(default_factory=list)


def ingest(usage_event: Definition, body: bytes, *, source: Source) -> IngestResult:
    """Store the good records of a body (JSON: one object or an array) and answer for each one.

    When it returns, everything is committed and part of every quantity. Raises BodyError for a body that cannot be
    read, UsageEventGone or SourceRefused when the database knows better than this process; nothing is stored then.
    """
    started = time.monotonic()
    for _ in range(ATTEMPTS):
        records, problems = read_records(body, usage_event.schema, max_records=settings.INGEST_MAX_RECORDS)
        taken, repeats, contradicting = _each_identity_once(records)
        problems += contradicting
        try:
            candidates = Candidates(taken, _customers(usage_event, source, taken), repeats)
            stored = store(_head(usage_event, source, rejected=len(problems)), candidates)
        except DefinitionChanged:
            usage_event = _reload(usage_event, source)
            continue
        result = _answer(stored, records, problems)
        _log(usage_event, result, started)
        return result
    raise UsageEventGone(f"the definition of {usage_event.slug} keeps changing")


def _head(usage_event: Definition, source: Source, *, rejected: int) -> BatchHead:
    return BatchHead(
        usage_event_id=usage_event.usage_event_id,
        schema_version=usage_event.schema_version,
        source=source.kind,
        api_key_id=source.api_key_id,
        user_id=source.user_id,
        rejected=rejected,
    )


def _customers(usage_event: Definition, source: Source, records: list[ReceivedRecord]) -> dict[str, int]:
    """Find the records' customers, and create unknown ones: that is not undone, so beliefs are confirmed before it."""
    external_ids = {record.customer_id for record in records}
    known = resolve_customers(usage_event.organisation_id, external_ids, create=False)
    unknown = external_ids - known.keys()
    if unknown:
        confirm_definition(usage_event)
        _confirm_source(source)
        known |= resolve_customers(usage_event.organisation_id, unknown)
    return known


def _each_identity_once(
    records: list[ReceivedRecord],
) -> tuple[list[ReceivedRecord], dict[int, list[int]], list[Problem]]:
    """Of records with one identity the first is taken; later ones are repeats of it, or contradict it."""
    first: dict[str, ReceivedRecord] = {}
    taken: list[ReceivedRecord] = []
    repeats: dict[int, list[int]] = {}
    contradicting: list[Problem] = []
    for record in records:
        if record.key is None or (earlier := first.setdefault(record.key, record)) is record:
            taken.append(record)
        elif _mean_the_same(earlier, record):
            repeats.setdefault(earlier.index, []).append(record.index)
        else:
            message = f"record {earlier.index} of this request has the same id and other content"
            contradicting.append(Problem(record.index, record.key, "duplicate_in_batch", "/id", message))
    return taken, repeats, contradicting


def _mean_the_same(one: ReceivedRecord, other: ReceivedRecord) -> bool:
    return (
        one.customer_id == other.customer_id
        and one.timestamp == other.timestamp
        and same_json(loads(one.data), loads(other.data))
    )


def _confirm_source(source: Source) -> None:
    if source.api_key_id is None:
        return
    key = ApiKey.objects.live().filter(pk=source.api_key_id, scopes__contains=[Scope.INGEST])
    if not key.exists():
        raise SourceRefused


def _reload(usage_event: Definition, source: Source) -> Definition:
    """Look again at what the database did not confirm; raises for what is over, else returns the new definition."""
    _confirm_source(source)
    definition = load_definition(usage_event.organisation_id, usage_event.slug)
    if definition is None or definition.archived:
        raise UsageEventGone
    return definition


def _answer(stored: Stored, records: list[ReceivedRecord], problems: list[Problem]) -> IngestResult:
    conflicts = set(stored.conflicts)
    problems = problems + [
        Problem(record.index, record.key, "conflict", "/id", "this id is known with other content")
        for record in records
        if record.index in conflicts
    ]
    problems.sort(key=lambda problem: problem.index)
    return IngestResult(
        batch=batch_reference(stored.batch_id, stored.received_at),
        accepted=stored.accepted,
        duplicates=len(stored.duplicates),
        conflicts=len(conflicts),
        rejected=len(problems) - len(conflicts),
        problems=problems,
    )


def _log(usage_event: Definition, result: IngestResult, started: float) -> None:
    log.info(
        "ingested %s: batch=%s accepted=%d duplicates=%d conflicts=%d rejected=%d ms=%.1f",
        usage_event.slug,
        result.batch,
        result.accepted,
        result.duplicates,
        result.conflicts,
        result.rejected,
        (time.monotonic() - started) * 1000,
    )
