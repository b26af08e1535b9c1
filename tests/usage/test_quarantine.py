"""The quarantine: what is kept, counted, closed by itself, replayed and discarded."""

from dataclasses import replace

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from tests.conftest import record, submission, take_in
from usage.corrections import Actor, CorrectionError
from usage.definitions import define, publish_schema
from usage.ingestion import Source, ingest
from usage.models import IngestBatch, QuarantineDay, RejectedRecord, UsageEvent, UsageRecord
from usage.quarantine import NotOpen, causes, discard_rejected, replay_rejected

ACTOR = Actor(None, "operator")
API = Source(IngestBatch.Source.API)


def test_a_refused_record_is_kept_as_the_text_that_came(compute: UsageEvent) -> None:
    result = take_in(compute, record(hours="5", id="a"))

    entry = RejectedRecord.objects.get()
    assert result.problems[0].rejected_record == str(entry.pk)
    assert (entry.code, entry.pointer, entry.status, entry.times) == ("schema", "/data/cpu_usage_hours", "open", 1)
    assert (
        entry.payload
        == '{"customer_id":"cus_1","timestamp":"2025-06-17T14:03:12Z","data":{"cpu_usage_hours":"5"},"id":"a"}'
    )
    assert entry.idempotency_key == "a"
    assert entry.batch == IngestBatch.objects.get()


def test_a_bad_record_that_comes_again_is_one_entry_with_a_count(compute: UsageEvent) -> None:
    first = take_in(compute, record(hours="5"), record(hours="5"))
    second = take_in(compute, record(hours="5"), record(hours="6"))

    assert list(RejectedRecord.objects.order_by("id").values_list("times", flat=True)) == [3, 1]
    marks = [problem.rejected_record for problem in first.problems + second.problems]
    assert marks[0] == marks[1] == marks[2] != marks[3]


def test_conflicts_are_kept_too(compute: UsageEvent) -> None:
    take_in(compute, record(id="a", hours=1))
    result = take_in(compute, record(id="a", hours=2))

    assert result.problems[0].rejected_record == str(RejectedRecord.objects.get(code="conflict").pk)


def test_delivering_the_same_id_later_closes_the_entry(compute: UsageEvent) -> None:
    take_in(compute, record(id="a", hours="5"), record(id="b", hours="5"))
    take_in(compute, record(id="a", hours=5))

    statuses = dict(RejectedRecord.objects.values_list("idempotency_key", "status"))
    assert statuses == {"a": "delivered", "b": "open"}
    assert RejectedRecord.objects.get(idempotency_key="a").closing_batch == IngestBatch.objects.latest("id")


def test_a_usage_event_may_refuse_without_keeping(compute: UsageEvent) -> None:
    UsageEvent.objects.filter(pk=compute.pk).update(invalid_record="refuse")
    result = take_in(compute, record(hours="5"))

    assert (result.rejected, result.problems[0].rejected_record, result.not_kept) == (1, None, 0)
    assert not RejectedRecord.objects.exists()


def test_beyond_the_cap_of_the_day_entries_are_only_counted(compute: UsageEvent, settings: Settings) -> None:
    settings.QUARANTINE_DAILY_CAP = 3
    take_in(compute, record(hours="1"), record(hours="2"))
    result = take_in(compute, record(hours="2"), record(hours="3"), record(hours="4"), record(hours="5"))

    assert (result.rejected, result.not_kept) == (4, 2)
    assert RejectedRecord.objects.count() == 3
    day = QuarantineDay.objects.get()
    assert (day.kept, day.dropped) == (3, 2)


def test_a_strict_request_leaves_nothing(compute: UsageEvent) -> None:
    take_in(compute, record(id="a", hours=1))
    before = IngestBatch.objects.count()

    invalid = ingest(define(compute), submission(record(), record(hours="5")), source=API, strict=True)
    conflict = ingest(define(compute), submission(record(), record(id="a", hours=2)), source=API, strict=True)
    good = ingest(define(compute), submission(record(), record(id="a", hours=1)), source=API, strict=True)

    assert (invalid.batch, invalid.accepted, invalid.rejected) == (None, 0, 1)
    assert (conflict.batch, conflict.accepted, conflict.conflicts) == (None, 0, 1)
    assert (good.accepted, good.duplicates) == (1, 1)
    assert IngestBatch.objects.count() == before + 1
    assert UsageRecord.objects.count() == 2
    assert not RejectedRecord.objects.exists()


def test_unknown_customers_are_refused_where_the_policy_says_so(compute: UsageEvent) -> None:
    take_in(compute, record(customer="known"))
    UsageEvent.objects.filter(pk=compute.pk).update(unknown_customer="quarantine")
    result = take_in(compute, record(customer="known"), record(customer="new"))

    assert [(problem.index, problem.code) for problem in result.problems] == [(1, "unknown_customer")]
    assert compute.organisation.customers.count() == 1


# --- replay -----------------------------------------------------------------------------------------------------------


def open_ids() -> list[int]:
    return list(RejectedRecord.objects.filter(status="open").order_by("id").values_list("id", flat=True))


def test_a_dry_run_tells_what_a_replay_would_do_and_does_nothing(compute: UsageEvent) -> None:
    take_in(compute, record(hours="5", id="a"), record(timestamp="never"))
    publish_schema(compute, {"type": "object"})
    before = list(RejectedRecord.objects.order_by("id").values())

    rehearsed = replay_rejected(compute.pk, open_ids(), actor=ACTOR, dry_run=True)

    assert (rehearsed.accepted, [problem.code for problem in rehearsed.refused]) == (1, ["timestamp"])
    assert list(RejectedRecord.objects.order_by("id").values()) == before
    assert not UsageRecord.objects.exists()
    assert IngestBatch.objects.count() == 1


def test_a_replay_stores_what_is_good_now_and_leaves_the_rest_open(compute: UsageEvent) -> None:
    take_in(compute, record(hours="5", id="a"), record(timestamp="never"))
    publish_schema(compute, {"type": "object"})

    result = replay_rejected(compute.pk, open_ids(), actor=ACTOR)

    assert (result.accepted, [problem.code for problem in result.refused]) == (1, ["timestamp"])
    stored = UsageRecord.objects.get()
    assert (stored.idempotency_key, stored.data) == ("a", {"cpu_usage_hours": "5"})
    assert stored.batch.source == IngestBatch.Source.REPLAY
    replayed = RejectedRecord.objects.get(idempotency_key="a")
    assert (replayed.status, replayed.closed_by_name, replayed.closing_batch) == ("replayed", "operator", stored.batch)
    assert RejectedRecord.objects.get(code="timestamp").status == "open"


def test_a_record_can_be_mended_before_its_replay(compute: UsageEvent) -> None:
    take_in(compute, record(hours="5"))
    (entry,) = open_ids()

    still_bad = replay_rejected(compute.pk, [entry], actor=ACTOR, payloads={entry: '{"customer_id": "c"}'})
    assert [problem.code for problem in still_bad.refused] == ["missing_field"]
    assert RejectedRecord.objects.get().payload == '{"customer_id": "c"}'

    mended = '{"customer_id":"c","timestamp":"2025-06-17T14:03:12Z","data":{"cpu_usage_hours":5}}'
    assert replay_rejected(compute.pk, [entry], actor=ACTOR, payloads={entry: mended}).accepted == 1
    assert UsageRecord.objects.get().data == {"cpu_usage_hours": 5}


def test_what_became_equal_to_another_entry_is_closed_for_it(compute: UsageEvent) -> None:
    take_in(compute, record(hours="5"), record(hours="6"))
    first, second = RejectedRecord.objects.order_by("id")

    replay_rejected(compute.pk, [second.pk], actor=ACTOR, payloads={second.pk: first.payload})

    second.refresh_from_db()
    assert (second.status, second.closing_reason) == ("discarded", f"the same as rejected record {first.pk}")


def test_only_open_entries_are_replayed_or_discarded(compute: UsageEvent) -> None:
    take_in(compute, record(hours="5"), record(hours="6"))
    first, second = open_ids()
    with pytest.raises(CorrectionError, match="reason"):
        discard_rejected(compute.pk, [first], reason=" ", actor=ACTOR)
    assert discard_rejected(compute.pk, [first], reason="test data", actor=ACTOR) == 1

    for act in (
        lambda: replay_rejected(compute.pk, [first, second], actor=ACTOR),
        lambda: discard_rejected(compute.pk, [first, second], reason="again", actor=ACTOR),
    ):
        with pytest.raises(NotOpen):
            act()
    with pytest.raises(RejectedRecord.DoesNotExist):
        replay_rejected(compute.pk, [second + 1000], actor=ACTOR)
    assert open_ids() == [second]


def test_causes_group_what_is_open(compute: UsageEvent) -> None:
    take_in(compute, record(hours="5"), record(hours="5"), record(hours="6"), record(timestamp="never"))

    found = [(cause.code, cause.entries, cause.records) for cause in causes(compute.organisation_id)]
    assert found == [("schema", 2, 3), ("timestamp", 1, 1)]
    assert causes(compute.organisation_id + 1) == []


def test_a_process_that_believes_in_an_old_policy_is_set_right(compute: UsageEvent) -> None:
    believed = define(compute)
    UsageEvent.objects.filter(pk=compute.pk).update(unknown_customer="quarantine")

    result = ingest(replace(believed), submission(record(customer="new")), source=API)

    assert [problem.code for problem in result.problems] == ["unknown_customer"]


def test_many_that_are_refused_for_another_cause_are_noted_in_a_few_statements(compute: UsageEvent) -> None:
    take_in(compute, *(record(hours=f"{number}") for number in range(40)))
    publish_schema(compute, {"type": "object", "required": ["region"]}, accept_violations=True)

    with CaptureQueriesContext(connection) as queries:
        result = replay_rejected(compute.pk, open_ids(), actor=ACTOR)

    assert len(result.refused) == 40
    assert len(queries) < 30
    assert set(RejectedRecord.objects.values_list("status", "message")) == {
        ("open", "'region' is required, but is missing")
    }


def test_of_entries_that_became_equal_one_stays_open(compute: UsageEvent) -> None:
    take_in(compute, record(hours="5"), record(hours="6"), record(hours="7"))
    first, second, third = RejectedRecord.objects.order_by("id")
    same = '{"customer_id": "c"}'

    replay_rejected(compute.pk, open_ids(), actor=ACTOR, payloads={first.pk: same, second.pk: same})

    rows = RejectedRecord.objects.order_by("id").values_list("status", "code", "closing_reason")
    assert list(rows) == [
        ("open", "missing_field", ""),
        ("discarded", "schema", f"the same as rejected record {first.pk}"),
        ("open", "schema", ""),
    ]
    assert third.fingerprint == RejectedRecord.objects.get(pk=third.pk).fingerprint


def test_a_message_that_quotes_a_null_character_is_kept_again(compute: UsageEvent) -> None:
    take_in(compute, record(hours="5"))
    (entry,) = open_ids()
    mended = '{"customer_id":"c","timestamp":"\\u0000","data":{}}'

    result = replay_rejected(compute.pk, [entry], actor=ACTOR, payloads={entry: mended})

    assert [problem.code for problem in result.refused] == [RejectedRecord.objects.get().code]
    assert RejectedRecord.objects.get().payload == mended
