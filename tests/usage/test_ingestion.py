"""Ingestion: what is stored, what is answered, and that a refusal leaves no trace."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from customers.keys import issue_api_key
from customers.models import ApiKey, Customer, Scope
from tests.conftest import record, submission, take_in
from usage.corrections import Actor, correct_record, void_records
from usage.definitions import define, publish_schema
from usage.ingestion import Source, SourceRefused, UsageEventGone, ingest
from usage.models import IngestBatch, PendingBatch, UsageEvent, UsageRecord


def test_a_record_is_stored_as_it_was_sent(compute: UsageEvent) -> None:
    result = take_in(compute, record(hours=Decimal("12345678901234567890.123456789"), id="evt-1"))

    assert (result.accepted, result.duplicates, result.conflicts, result.rejected) == (1, 0, 0, 0)
    stored = UsageRecord.objects.get()
    assert stored.customer.external_id == "cus_1"
    assert stored.timestamp == datetime(2025, 6, 17, 14, 3, 12, tzinfo=UTC)
    assert stored.idempotency_key == "evt-1"
    assert stored.data == {"cpu_usage_hours": Decimal("12345678901234567890.123456789")}
    assert (stored.schema_version, stored.revision, stored.voided_at) == (1, 1, None)
    batch = IngestBatch.objects.get()
    assert (stored.batch_id, stored.received_at) == (batch.pk, batch.received_at)
    assert PendingBatch.objects.get().batch_id == batch.pk


@pytest.mark.parametrize("count", [3, 150])
def test_ids_follow_the_order_sent_whatever_the_keys(compute: UsageEvent, count: int) -> None:
    take_in(compute, *(record(hours=number, id=f"key-{count - number:04}") for number in range(count)))

    hours = [stored.data["cpu_usage_hours"] for stored in UsageRecord.objects.order_by("id")]
    assert hours == list(range(count))


@pytest.mark.parametrize("count", [3, 150])
def test_a_replay_stores_nothing_and_says_so(compute: UsageEvent, count: int) -> None:
    records = [record(id=f"evt-{number}") for number in range(count)]
    take_in(compute, *records)
    before = list(UsageRecord.objects.values_list("id", "data"))

    result = take_in(compute, *records)

    assert (result.accepted, result.duplicates, result.conflicts, result.rejected) == (0, count, 0, 0)
    assert list(UsageRecord.objects.values_list("id", "data")) == before
    receipt = IngestBatch.objects.latest("id")
    assert (receipt.accepted, receipt.duplicates) == (0, count)
    assert not PendingBatch.objects.filter(batch=receipt).exists()


def test_same_id_with_other_content_is_a_conflict_and_changes_nothing(compute: UsageEvent) -> None:
    take_in(compute, record(id="a", hours=1))

    result = take_in(compute, record(id="a", hours=2), record(id="b", hours=3))

    assert (result.accepted, result.conflicts) == (1, 1)
    assert [(problem.index, problem.id, problem.code) for problem in result.problems] == [(0, "a", "conflict")]
    assert UsageRecord.objects.get(idempotency_key="a").data == {"cpu_usage_hours": 1}


def test_content_is_the_same_when_it_means_the_same(compute: UsageEvent) -> None:
    take_in(compute, record(id="a", hours=1, timestamp="2025-06-17T14:00:00Z"))

    result = take_in(compute, record(id="a", hours=Decimal("1.0"), timestamp="2025-06-17T19:30:00+05:30"))

    assert (result.duplicates, result.conflicts) == (1, 0)


def test_of_equal_ids_in_one_request_the_first_is_taken(compute: UsageEvent) -> None:
    result = take_in(compute, record(id="a", hours=1), record(id="a", hours=1), record(id="a", hours=2))

    assert (result.accepted, result.duplicates, result.conflicts, result.rejected) == (1, 1, 0, 1)
    assert [(problem.index, problem.code) for problem in result.problems] == [(2, "duplicate_in_batch")]
    receipt = IngestBatch.objects.get()
    assert (receipt.accepted, receipt.duplicates, receipt.rejected) == (1, 1, 1)


def test_a_repeat_shares_the_fate_of_its_first(compute: UsageEvent) -> None:
    take_in(compute, record(id="a", hours=9))

    result = take_in(compute, record(id="a", hours=1), record(id="a", hours=1))

    assert (result.accepted, result.duplicates, result.conflicts) == (0, 0, 2)
    assert [problem.index for problem in result.problems] == [0, 1]


def test_records_without_id_are_always_new(compute: UsageEvent) -> None:
    result = take_in(compute, record(), record())

    assert (result.accepted, result.duplicates) == (2, 0)


def test_good_records_are_stored_beside_bad_ones(compute: UsageEvent) -> None:
    result = take_in(compute, record(), record(hours="5"), {"customer_id": "c"}, record(timestamp="now"))

    assert (result.accepted, result.rejected) == (1, 3)
    assert [(problem.index, problem.code, problem.pointer) for problem in result.problems] == [
        (1, "schema", "/data/cpu_usage_hours"),
        (2, "missing_field", "/timestamp"),
        (3, "timestamp", "/timestamp"),
    ]
    assert UsageRecord.objects.count() == 1


def test_an_archived_usage_event_takes_nothing_even_from_a_process_that_believes_otherwise(compute: UsageEvent) -> None:
    believed = define(compute)
    UsageEvent.objects.filter(pk=compute.pk).update(archived_at=datetime.now(UTC))

    with pytest.raises(UsageEventGone):
        ingest(believed, submission(record()), source=Source(IngestBatch.Source.API))

    assert not UsageRecord.objects.exists()
    assert not IngestBatch.objects.exists()
    assert not Customer.objects.exists()


def test_a_new_schema_holds_even_for_a_process_that_remembers_the_old(compute: UsageEvent) -> None:
    believed = define(compute)
    publish_schema(compute, {"type": "object", "properties": {"cpu_usage_hours": {"type": "string"}}})
    source = Source(IngestBatch.Source.API)

    result = ingest(believed, submission(record(hours=5), record(hours="five")), source=source)

    assert [(problem.index, problem.code) for problem in result.problems] == [(0, "schema")]
    stored = UsageRecord.objects.get()
    assert (stored.data, stored.schema_version) == ({"cpu_usage_hours": "five"}, 2)


def test_a_correction_here_does_not_make_the_senders_repetition_a_conflict(compute: UsageEvent) -> None:
    take_in(compute, record(id="a", hours=1))
    for revision, hours in ((1, 2), (2, 3)):
        correct_record(
            UsageRecord.objects.get().pk,
            data={"cpu_usage_hours": hours},
            customer_id=f"cus_{hours}",
            revision=revision,
            reason="typo",
            actor=Actor(None, "someone"),
        )

    assert take_in(compute, record(id="a", hours=1)).duplicates == 1
    assert take_in(compute, record(id="a", hours=3, customer="cus_3")).conflicts == 1


def test_a_voided_record_keeps_its_identity(compute: UsageEvent) -> None:
    take_in(compute, record(id="a"))
    void_records(compute.pk, [UsageRecord.objects.get().pk], reason="test", actor=Actor(None, "someone"))

    assert take_in(compute, record(id="a")).duplicates == 1
    assert UsageRecord.objects.count() == 1


def test_a_key_revoked_meanwhile_stores_nothing(compute: UsageEvent) -> None:
    key, _ = issue_api_key(compute.organisation, "key", [Scope.INGEST])
    ApiKey.objects.update(revoked_at=datetime.now(UTC))

    with pytest.raises(SourceRefused):
        ingest(define(compute), submission(record()), source=Source(IngestBatch.Source.API, key.pk))

    assert not UsageRecord.objects.exists()
    assert not IngestBatch.objects.exists()
    assert not Customer.objects.exists()
