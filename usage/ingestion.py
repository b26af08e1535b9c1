"""Ingestion: from the body of a request to committed records and an honest answer for each of them."""

import logging
import time
from contextlib import nullcontext
from dataclasses import dataclass, field

from django.db import transaction

from customers.exactjson import loads, same_json
from customers.models import ApiKey, Scope
from customers.resolution import resolve_customers
from usage.bodies import Submission
from usage.candidates import BatchHead, Candidates, Contradicted, Stored
from usage.definitions import Definition, DefinitionChanged, confirm_definition, hold_definition, load_definition
from usage.envelopes import Problem, read_records
from usage.models import IngestBatch
from usage.received import ReceivedRecord, ReceivedRecords
from usage.references import batch_reference
from usage.storage import store

log = logging.getLogger(__name__)

GUESSES = 2


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
    upload_id: int | None = None


@dataclass(slots=True)
class IngestResult:
    """What became of each record. `problems` has one entry a refused record, in the order sent.

    `batch` is the receipt's public name; None for a strict request that was refused, which leaves nothing behind.
    `not_kept` refused records found the quarantine full for today and were only counted.
    """

    batch: str | None
    accepted: int
    duplicates: int
    conflicts: int
    rejected: int
    problems: list[Problem] = field(default_factory=list)
    not_kept: int = 0


def ingest(usage_event: Definition, submission: Submission, *, source: Source, strict: bool = False) -> IngestResult:
    """Store the good records of a request, keep the refused ones in quarantine, and answer for each.

    `strict`: one refused record, and nothing is stored or kept. When it returns, everything is committed and part of
    every quantity. Raises UsageEventGone or SourceRefused when the database knows better than this process; nothing is
    stored then.
    """
    started = time.monotonic()
    result = None
    for _ in range(GUESSES):
        try:
            result = _ingest(usage_event, submission, source, strict)
            break
        except DefinitionChanged:
            usage_event = _reload(usage_event, source)
    if result is None:
        result = _ingest_held(usage_event, submission, source, strict)
    _log(usage_event, result, started)
    return result


def _ingest(usage_event: Definition, submission: Submission, source: Source, strict: bool) -> IngestResult:
    """Go by what this process believes; raises DefinitionChanged, with nothing stored, if that is not so any more."""
    candidates = _candidates(usage_event, submission, source, strict)
    if strict and candidates.problems:
        confirm_definition(usage_event)
        _confirm_source(source)
        return _refused(candidates.problems)
    try:
        # In one transaction, so that a strict request that contradicts what is stored leaves no customers either.
        with transaction.atomic() if strict else nullcontext():
            _create_customers(usage_event, source, candidates)
            return _answer(store(_head(usage_event, source), candidates))
    except Contradicted as contradicted:
        return _refused(contradicted.conflicts, contradicted.duplicates)


def _ingest_held(usage_event: Definition, submission: Submission, source: Source, strict: bool) -> IngestResult:
    """Where somebody keeps changing the definition: hold it still, then check and store."""
    with transaction.atomic():
        held = hold_definition(usage_event.usage_event_id)
        if held.archived:
            raise UsageEventGone
        try:
            return _ingest(held, submission, source, strict)
        except DefinitionChanged:
            raise SourceRefused from None  # all that cannot be held is the key


def _candidates(usage_event: Definition, submission: Submission, source: Source, strict: bool) -> Candidates:
    """Check the records as far as that changes nothing, and find out whose they are."""
    records, problems = read_records(submission, usage_event.schema, usage_event.time_limits())
    customers = resolve_customers(
        usage_event.organisation_id,
        set(records.customer_ids),
        aliases_revision=usage_event.aliases_revision,
        create=False,
    )
    if not usage_event.creates_customers and set(records.customer_ids) - customers.keys():
        problems += [
            Problem(record.index, record.key, "unknown_customer", "/customer_id", _unknown(record.customer_id))
            for record in records
            if record.customer_id not in customers
        ]
        records = ReceivedRecords.of(record for record in records if record.customer_id in customers)
    taken, repeats, contradicting = _each_identity_once(records, customers)
    return Candidates(
        records=taken,
        customers=customers,
        repeats=repeats,
        problems=sorted(problems + contradicting, key=lambda problem: problem.index),
        payload_of=lambda index: bytes(submission.raws[index]).decode(),
        # What a replay refuses has its entry already.
        keep_rejected=usage_event.keeps_rejected and source.kind != IngestBatch.Source.REPLAY,
        strict=strict,
    )


def _create_customers(usage_event: Definition, source: Source, candidates: Candidates) -> None:
    """Create the unknown customers of good records, if the policy still says so: creating is not undone."""
    unknown = set(candidates.records.customer_ids) - candidates.customers.keys()
    if unknown:
        confirm_definition(usage_event)
        _confirm_source(source)
        revision = usage_event.aliases_revision
        candidates.customers.update(resolve_customers(usage_event.organisation_id, unknown, aliases_revision=revision))


def _unknown(customer_id: str) -> str:
    return f"a known customer was expected, got '{customer_id[:60]}'; this usage event creates none"


def _each_identity_once(
    records: ReceivedRecords, customers: dict[str, int]
) -> tuple[ReceivedRecords, dict[int, list[int]], list[Problem]]:
    """Of records with one identity the first is taken; later ones are repeats of it, or contradict it."""
    if len(set(records.keys)) == len(records):
        return records, {}, []
    first: dict[str, ReceivedRecord] = {}
    taken: list[ReceivedRecord] = []
    repeats: dict[int, list[int]] = {}
    contradicting: list[Problem] = []
    for record in records:
        if record.key is None or (earlier := first.setdefault(record.key, record)) is record:
            taken.append(record)
        elif _mean_the_same(earlier, record, customers):
            repeats.setdefault(earlier.index, []).append(record.index)
        else:
            message = f"record {earlier.index} of this request has the same id and other content"
            contradicting.append(Problem(record.index, record.key, "duplicate_in_batch", "/id", message))
    return ReceivedRecords.of(taken), repeats, contradicting


def _mean_the_same(one: ReceivedRecord, other: ReceivedRecord, customers: dict[str, int]) -> bool:
    return (
        # An unknown id is no alias, and becomes a customer of its own.
        customers.get(one.customer_id, one.customer_id) == customers.get(other.customer_id, other.customer_id)
        and one.timestamp == other.timestamp
        and same_json(loads(one.data), loads(other.data))
    )


def _head(usage_event: Definition, source: Source) -> BatchHead:
    return BatchHead(
        organisation_id=usage_event.organisation_id,
        usage_event_id=usage_event.usage_event_id,
        definition_revision=usage_event.revision,
        aliases_revision=usage_event.aliases_revision,
        schema_version=usage_event.schema_version,
        source=source.kind,
        api_key_id=source.api_key_id,
        user_id=source.user_id,
        upload_id=source.upload_id,
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


def _refused(problems: list[Problem], duplicates: int = 0) -> IngestResult:
    """The answer to a strict request that was refused as a whole."""
    conflicts = sum(problem.code == "conflict" for problem in problems)
    return IngestResult(None, 0, duplicates, conflicts, len(problems) - conflicts, problems)


def _answer(stored: Stored) -> IngestResult:
    conflicts = sum(problem.code == "conflict" for problem in stored.problems)
    return IngestResult(
        batch=batch_reference(stored.batch_id, stored.received_at),
        accepted=stored.accepted,
        duplicates=stored.duplicates,
        conflicts=conflicts,
        rejected=len(stored.problems) - conflicts,
        problems=stored.problems,
        not_kept=stored.not_kept,
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
