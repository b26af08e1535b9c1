"""Folding and building: what is claimed, what is added, what is computed anew, and what a crash leaves."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg.errors
import pytest
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.transaction import TransactionManagementError

from customers.models import Organisation
from metrics import folding_sql, materialization, sql
from metrics.definitions import activate_metric, save_metric
from metrics.materialization import (
    Folded,
    adapted,
    build,
    fold,
    rebuild,
    request_rebuild,
    usage_events_to_fold,
)
from metrics.models import FoldReport, Metric, MetricAggregate
from metrics.quantities import quantities
from metrics.questions import Question
from tests.conftest import active_metric, record, take_in
from tests.metrics.counting import State, expected_aggregates, stored_aggregates
from tests.threads import run_together
from usage.corrections import Actor, correct_record, restore_records, void_records
from usage.definitions import create_usage_event
from usage.models import ChangedWindow, PendingBatch, UsageEvent, UsageRecord

ACTOR = Actor(None, "someone")
HOUR_14 = datetime(2025, 6, 17, 14, tzinfo=UTC)


def states(metric: Metric) -> list[State]:
    return list(stored_aggregates(metric).values())


def test_a_fold_adds_new_batches_to_what_is_there(compute: UsageEvent, cpu_hours: Metric) -> None:
    take_in(compute, record(hours=Decimal("0.1")))
    assert fold(compute.pk) == Folded(batches=1, windows=0, records=1)
    take_in(compute, record(hours=Decimal("0.2")), record(hours=3, timestamp="2025-06-17T15:00:00Z"))
    take_in(compute, {"customer_id": "cus_1", "timestamp": "2025-06-17T14:59:59Z", "data": {"region": "eu"}})
    assert fold(compute.pk) == Folded(batches=2, windows=0, records=3)

    customer_id = UsageRecord.objects.first().customer_id  # type: ignore[union-attr]
    assert stored_aggregates(cpu_hours) == {
        (customer_id, HOUR_14): State(3, 2, Decimal("0.3")),
        (customer_id, HOUR_14.replace(hour=15)): State(1, 1, Decimal(3)),
    }
    assert not PendingBatch.objects.exists()


def test_a_fold_with_nothing_pending_claims_nothing(compute: UsageEvent, cpu_hours: Metric) -> None:
    assert fold(compute.pk) == Folded(0, 0)
    assert usage_events_to_fold() == []


def test_what_no_metric_counts_is_claimed_too(compute: UsageEvent) -> None:
    take_in(compute, record())
    assert usage_events_to_fold() == [compute.pk]

    assert fold(compute.pk) == Folded(1, 0, records=1)
    assert usage_events_to_fold() == []


def test_a_correction_empties_the_old_window_and_fills_the_new(compute: UsageEvent, cpu_hours: Metric) -> None:
    take_in(compute, record(customer="cus_old", hours=5))
    fold(compute.pk)

    correct_record(
        UsageRecord.objects.get().pk,
        customer_id="cus_new",
        timestamp=datetime(2025, 6, 18, tzinfo=UTC),
        data={"cpu_usage_hours": 7},
        revision=1,
        reason="typo",
        actor=ACTOR,
    )
    assert fold(compute.pk) == Folded(batches=0, windows=2)

    assert stored_aggregates(cpu_hours) == expected_aggregates(cpu_hours)
    assert states(cpu_hours) == [State(1, 1, Decimal(7))]


def test_a_record_corrected_before_its_batch_was_folded_counts_once(compute: UsageEvent, cpu_hours: Metric) -> None:
    take_in(compute, record(hours=5), record(hours=1))
    first = UsageRecord.objects.earliest("id")
    correct_record(first.pk, data={"cpu_usage_hours": 50}, revision=1, reason="typo", actor=ACTOR)

    assert fold(compute.pk) == Folded(batches=1, windows=1, records=2)
    assert states(cpu_hours) == [State(2, 2, Decimal(51))]


def test_void_takes_a_record_out_and_restore_brings_it_back(compute: UsageEvent, cpu_hours: Metric) -> None:
    take_in(compute, record(hours=5))
    ids = [UsageRecord.objects.get().pk]
    fold(compute.pk)

    void_records(compute.pk, ids, reason="test data", actor=ACTOR)
    fold(compute.pk)
    assert states(cpu_hours) == []

    restore_records(compute.pk, ids, reason="it was real", actor=ACTOR)
    fold(compute.pk)
    assert states(cpu_hours) == [State(1, 1, Decimal(5))]


def test_a_count_keeps_no_sum(compute: UsageEvent) -> None:
    records = active_metric(compute, code="records", aggregation="count")
    take_in(compute, record(), record())
    fold(compute.pk)

    row = MetricAggregate.objects.get(metric=records)
    assert (row.record_count, row.value_count, row.sum) == (2, 2, None)


def test_values_of_another_type_are_skipped_and_never_stop_a_fold(compute: UsageEvent, cpu_hours: Metric) -> None:
    take_in(compute, record(hours=5))
    with connection.cursor() as cursor, transaction.atomic():
        # What an older schema might have let in.
        cursor.execute("SELECT set_config('tallybook.act', 'test', true)")
        for value in ('"5"', "null", "true", "[1]", '{"a": 1}'):
            cursor.execute(
                """
                INSERT INTO usage_usagerecord (id, usage_event_id, customer_id, timestamp, data, batch_id,
                                               schema_version, received_at)
                SELECT nextval('usage_usagerecord_id_seq'), usage_event_id, customer_id, timestamp,
                       jsonb_build_object('cpu_usage_hours', %s::jsonb), batch_id, 1, received_at
                FROM usage_usagerecord ORDER BY id LIMIT 1
                """,
                [value],
            )
    fold(compute.pk)

    assert states(cpu_hours) == [State(6, 1, Decimal(5))]


def test_usage_events_are_folded_apart(compute: UsageEvent, cpu_hours: Metric) -> None:
    other = create_usage_event(compute.organisation, name="Other", slug="other", schema=compute.schema)
    take_in(compute, record())
    take_in(other, record())

    fold(compute.pk)

    assert usage_events_to_fold() == [other.pk]


# --- building ---------------------------------------------------------------------------------------------------------


def test_a_new_metric_is_built_from_history_in_stretches(compute: UsageEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(materialization, "STRETCH_RECORDS", 2)
    for customer in ("a", "b", "c"):
        take_in(compute, *(record(customer=customer, timestamp=f"2025-06-17T{hour:02}:00:00Z") for hour in range(5)))

    metric = active_metric(compute, code="hours", aggregation="sum", property="cpu_usage_hours")

    assert metric.status == Metric.Status.ACTIVE
    assert metric.activated_at is not None
    assert stored_aggregates(metric) == expected_aggregates(metric)
    assert len(states(metric)) == 15
    assert not PendingBatch.objects.exists()


def test_folds_during_a_build_touch_only_what_is_built(compute: UsageEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(materialization, "STRETCH_RECORDS", 2)
    take_in(compute, *(record(customer=customer) for customer in ("a", "a", "a", "b", "b", "b")))
    metric = draft(compute)
    activate_metric(metric.pk)
    one_stretch(metric)
    metric.refresh_from_db()
    assert metric.status == Metric.Status.BUILDING

    take_in(compute, record(customer="a", hours=10), record(customer="b", hours=20))
    void_records(compute.pk, [UsageRecord.objects.latest("id").pk], reason="no", actor=ACTOR)
    fold(compute.pk)

    built = {key: state for key, state in expected_aggregates(metric).items() if key[0] == metric.built_customer_id}
    assert stored_aggregates(metric) == built
    assert build(metric.pk)
    assert stored_aggregates(metric) == expected_aggregates(metric)


def test_a_build_goes_on_where_it_stopped(compute: UsageEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(materialization, "STRETCH_RECORDS", 1)
    take_in(compute, *(record(customer=customer) for customer in "abcdef"))
    metric = draft(compute)
    activate_metric(metric.pk)
    one_stretch(metric)
    one_stretch(metric)
    before = stored_aggregates(metric)
    assert len(before) == 4

    assert build(metric.pk)
    assert stored_aggregates(metric) == expected_aggregates(metric)


def test_only_a_metric_to_be_built_is_built(compute: UsageEvent) -> None:
    metric = draft(compute)

    assert not build(metric.pk)
    metric.refresh_from_db()
    assert metric.status == Metric.Status.DRAFT


@pytest.mark.parametrize("name", ["cpu_%", "%(metric_id)s", "%s", "a'b", 'a"b', "a\\b", "größe", "a b"])
def test_a_property_may_have_any_name(organisation: Organisation, name: str) -> None:
    schema = {"type": "object", "properties": {name: {"type": "number"}}}
    usage_event = create_usage_event(organisation, name="Odd", slug="odd", schema=schema)
    odd = {"customer_id": "c", "timestamp": "2025-06-17T14:00:00Z", "data": {name: 2}}
    take_in(usage_event, odd)
    metric = active_metric(usage_event, code="odd", aggregation="sum", property=name)
    take_in(usage_event, odd)
    question = Question(start=HOUR_14, end=HOUR_14.replace(hour=15))

    assert [row.quantity for row in quantities(organisation.pk, "odd", question).rows] == [4]
    fold(usage_event.pk)
    assert states(metric) == [State(2, 2, Decimal(4))]


def test_renaming_a_metric_while_it_is_built_does_not_move_the_build(
    compute: UsageEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(materialization, "STRETCH_RECORDS", 1)
    take_in(compute, *(record(customer=customer) for customer in "abcdef"))
    activate_metric(draft(compute).pk)
    seen_before = Metric.objects.get()
    one_stretch(seen_before)

    seen_before.name = "Another name"
    save_metric(seen_before)

    assert build(seen_before.pk)
    metric = Metric.objects.get()
    assert (metric.name, metric.status) == ("Another name", Metric.Status.ACTIVE)
    assert stored_aggregates(metric) == expected_aggregates(metric)


def test_a_fold_of_a_backlog_goes_on_until_all_is_claimed_or_the_time_is_up(
    compute: UsageEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    some, rest = Folded(1, 0, complete=False), Folded(1, 0)
    rounds = iter([some, some, rest, rest])
    monkeypatch.setattr(materialization, "_fold_once", lambda *_, before, **more: before + next(rounds))
    monkeypatch.setattr(materialization, "FOLD_SECONDS", 0.0)
    assert fold(compute.pk) == some

    monkeypatch.setattr(materialization, "FOLD_SECONDS", 60.0)
    assert fold(compute.pk) == Folded(2, 0)
    assert list(rounds) == [rest]


def test_a_fold_leaves_to_the_next_one_what_came_in_meanwhile(
    compute: UsageEvent, cpu_hours: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_in(compute, record(id="before"))
    once = materialization._fold_once

    def ingest() -> None:
        take_in(compute, record(id="meanwhile"))

    def while_others_ingest(*arguments: Any, **options: Any) -> Folded:
        run_together(ingest)
        return once(*arguments, **options)

    monkeypatch.setattr(materialization, "_fold_once", while_others_ingest)
    assert fold(compute.pk) == Folded(1, 0, 1)
    monkeypatch.setattr(materialization, "_fold_once", once)
    assert PendingBatch.objects.count() == 1
    assert fold(compute.pk) == Folded(1, 0, 1)
    assert stored_aggregates(cpu_hours) == expected_aggregates(cpu_hours)


def mark_windows(usage_event: UsageEvent, count: int) -> None:
    """Have so many windows marked, of records that were folded and then voided."""
    take_in(usage_event, *(record(customer=f"cus_{n}", hours=n) for n in range(count)))
    fold(usage_event.pk)
    void_records(usage_event.pk, list(UsageRecord.objects.values_list("pk", flat=True)), reason="no", actor=ACTOR)


def test_more_marks_than_one_claim_takes_are_folded_by_the_same_fold(
    compute: UsageEvent, cpu_hours: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark_windows(compute, 5)
    monkeypatch.setattr(materialization, "CLAIM_WINDOWS", 2)

    assert fold(compute.pk) == Folded(0, 5)
    assert not ChangedWindow.objects.exists()
    assert stored_aggregates(cpu_hours) == {}


def test_a_lost_connection_is_not_retried_without_the_lock(
    compute: UsageEvent, cpu_hours: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_in(compute, record())
    attempts = []

    def lose(*arguments: Any, **options: Any) -> Any:
        attempts.append(1)
        connection.close()
        raise OperationalError from psycopg.errors.SerializationFailure()

    with monkeypatch.context() as patch:
        patch.setattr(materialization, "_fold_once", lose)
        with pytest.raises((OperationalError, TransactionManagementError, InterfaceError)):
            fold(compute.pk)
    assert len(attempts) == 1
    assert fold(compute.pk) == Folded(1, 0, records=1)
    assert stored_aggregates(cpu_hours) == expected_aggregates(cpu_hours)


# --- bounded claims ---------------------------------------------------------------------------------------------------


def once(usage_event: UsageEvent) -> Folded:
    """One claim in a snapshot of its own."""
    return materialization._in_snapshot(lambda cursor: materialization._fold_once(cursor, usage_event.pk))


@pytest.fixture
def small_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(materialization, "CLAIM_BATCHES", 2)


def test_a_backlog_is_folded_oldest_first_in_bounded_claims(
    compute: UsageEvent, cpu_hours: Metric, small_claims: None
) -> None:
    for hours in (1, 2, 4, 8, 16):
        take_in(compute, record(hours=hours))

    assert once(compute) == Folded(2, 0, records=2, complete=False)
    assert states(cpu_hours) == [State(2, 2, Decimal(3))]
    assert once(compute) == Folded(2, 0, records=2, complete=False)
    assert once(compute) == Folded(1, 0, records=1, complete=True)
    assert once(compute) == Folded(0, 0, complete=True)
    assert states(cpu_hours) == [State(5, 5, Decimal(31))]


def test_a_claim_is_bounded_by_records_too_and_takes_one_batch_at_least(
    compute: UsageEvent, cpu_hours: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(materialization, "CLAIM_RECORDS", 3)
    for size in (5, 2, 1, 3, 1):
        take_in(compute, *(record() for _ in range(size)))

    claims = [once(compute) for _ in range(4)]
    # A claim ends with the batch that fills it.
    assert [(claim.batches, claim.records, claim.complete) for claim in claims] == [
        (1, 5, False),
        (2, 3, False),
        (1, 3, False),
        (1, 1, True),
    ]
    assert states(cpu_hours) == [State(12, 12, Decimal(12))]


def test_marks_are_claimed_only_together_with_the_last_batches(
    compute: UsageEvent, cpu_hours: Metric, small_claims: None
) -> None:
    for hours in (1, 2, 4, 8, 16):
        take_in(compute, record(hours=hours))
    first, last = UsageRecord.objects.earliest("id"), UsageRecord.objects.latest("id")
    correct_record(first.pk, data={"cpu_usage_hours": 100}, revision=1, reason="typo", actor=ACTOR)
    void_records(compute.pk, [last.pk], reason="no", actor=ACTOR)
    question = Question(start=HOUR_14, end=HOUR_14.replace(hour=15))

    for expected in (Folded(2, 0, 2, complete=False), Folded(2, 0, 2, complete=False), Folded(1, 1, 1)):
        assert ChangedWindow.objects.count() == 2
        (row,) = quantities(compute.organisation_id, "cpu_hours", question).rows
        assert (row.quantity, row.record_count) == (114, 4)
        assert once(compute) == expected

    assert not ChangedWindow.objects.exists()
    assert stored_aggregates(cpu_hours) == expected_aggregates(cpu_hours)
    assert states(cpu_hours) == [State(4, 4, Decimal(114))]


def test_a_fold_goes_on_until_everything_is_claimed(compute: UsageEvent, cpu_hours: Metric, small_claims: None) -> None:
    for hours in (1, 2, 4, 8, 16):
        take_in(compute, record(hours=hours))
    void_records(compute.pk, [UsageRecord.objects.earliest("id").pk], reason="no", actor=ACTOR)

    assert fold(compute.pk) == Folded(batches=5, windows=1, records=5)
    assert states(cpu_hours) == [State(4, 4, Decimal(30))]
    report = FoldReport.objects.get()
    assert (report.usage_event_id, report.batches, report.windows, report.records) == (compute.pk, 5, 1, 5)


def test_a_fold_that_finds_nothing_leaves_the_last_report(compute: UsageEvent, cpu_hours: Metric) -> None:
    fold(compute.pk)
    assert not FoldReport.objects.exists()
    take_in(compute, record(), record())
    fold(compute.pk)
    first = FoldReport.objects.get()
    fold(compute.pk)
    assert FoldReport.objects.get().folded_at == first.folded_at
    take_in(compute, record())
    fold(compute.pk)
    second = FoldReport.objects.get()
    assert (first.batches, first.records, second.batches, second.records) == (1, 2, 1, 1)
    assert second.folded_at > first.folded_at


@pytest.mark.parametrize("rebuilding", [False, True])
def test_a_build_waits_until_every_batch_is_claimed(
    compute: UsageEvent, small_claims: None, monkeypatch: pytest.MonkeyPatch, rebuilding: bool
) -> None:
    monkeypatch.setattr(materialization, "STRETCH_RECORDS", 2)
    metric = active_metric(compute, code="m", aggregation="sum", property="cpu_usage_hours") if rebuilding else None
    for customer in "abcde":
        take_in(compute, record(customer=customer))
    if metric is None:
        metric = draft(compute)
        activate_metric(metric.pk)
        step, position = materialization._build_once, "built_customer_id"
    else:
        assert request_rebuild(metric.pk)
        step, position = materialization._rebuild_once, "rebuilt_customer_id"

    for pending in (3, 1):
        outcome = materialization._in_snapshot(lambda cursor: step(cursor, metric.pk, 2))
        metric.refresh_from_db()
        assert (outcome, getattr(metric, position), PendingBatch.objects.count()) == ("on", 0, pending)
    assert materialization._in_snapshot(lambda cursor: step(cursor, metric.pk, 2)) == "on"
    metric.refresh_from_db()
    assert getattr(metric, position) > 0
    assert not PendingBatch.objects.exists()

    assert (rebuild if rebuilding else build)(metric.pk)
    assert stored_aggregates(metric) == expected_aggregates(metric)


def test_a_stretch_takes_as_many_records_as_fit_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert adapted(100_000, 0.8) == 100_000
    assert adapted(100_000, 1.6) == 50_000
    assert adapted(100_000, 0.6) == 133_333
    assert adapted(100_000, 0.01) == 200_000, "at most twice as many"
    assert adapted(100_000, 0) == 200_000
    assert adapted(900_000, 0.1) == 1_000_000, "at most so many"
    assert adapted(60_000, 600) == 1_000, "at least so many"
    monkeypatch.setattr(materialization, "STRETCH_RECORDS", 2)
    assert (adapted(2, 8), adapted(2, 0.1), adapted(1_500, 8)) == (2, 4, 150)


def test_what_a_retired_version_stored_is_forgotten_piece_by_piece(
    compute: UsageEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(materialization, "FORGET_AT_ONCE", 2)
    formula = {"aggregation": "unique_count", "property": "cpu_usage_hours"}
    retired = active_metric(compute, code="old", **formula)
    kept = active_metric(compute, code="kept", **formula)
    take_in(compute, *(record(customer=customer) for customer in "abcde"))
    fold(compute.pk)
    assert materialization.forget_retired() == 0

    Metric.objects.filter(pk=retired.pk).update(status=Metric.Status.RETIRED)
    assert materialization.forget_retired() == 10
    assert stored_aggregates(retired) == {}
    assert stored_aggregates(kept) == expected_aggregates(kept)
    assert materialization.forget_retired() == 0


# --- crashes ----------------------------------------------------------------------------------------------------------

STEPS = [(folding_sql, "claim"), (folding_sql, "add_batches"), (sql, "rebuild_windows"), (folding_sql, "report_fold")]


@pytest.mark.parametrize(("place", "step"), STEPS)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_crash_at_any_step_of_a_fold_undoes_all_of_it(
    compute: UsageEvent, cpu_hours: Metric, monkeypatch: pytest.MonkeyPatch, place: Any, step: str, moment: str
) -> None:
    take_in(compute, record(hours=1))
    fold(compute.pk)
    take_in(compute, record(hours=2), record(hours=4, timestamp="2025-06-18T00:00:00Z"))
    correct_record(
        UsageRecord.objects.earliest("id").pk, data={"cpu_usage_hours": 8}, revision=1, reason="typo", actor=ACTOR
    )
    before = stored_aggregates(cpu_hours), PendingBatch.objects.count(), ChangedWindow.objects.count()

    real = getattr(place, step)

    def crash(*arguments: Any, **options: Any) -> Any:
        if moment == "after":
            real(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(place, step, crash)
    with pytest.raises(KeyboardInterrupt):
        fold(compute.pk)
    assert (stored_aggregates(cpu_hours), PendingBatch.objects.count(), ChangedWindow.objects.count()) == before

    monkeypatch.setattr(place, step, real)
    assert fold(compute.pk) == Folded(batches=1, windows=1, records=2)
    assert stored_aggregates(cpu_hours) == expected_aggregates(cpu_hours)


def draft(usage_event: UsageEvent) -> Metric:
    return save_metric(
        Metric(
            organisation=usage_event.organisation,
            usage_event=usage_event,
            code="draft",
            name="Draft",
            aggregation="sum",
            property="cpu_usage_hours",
        )
    )


def one_stretch(metric: Metric) -> None:
    materialization._in_snapshot(
        lambda cursor: materialization._build_once(cursor, metric.pk, materialization.STRETCH_RECORDS)
    )


def test_marks_are_claimed_in_bounded_numbers(
    compute: UsageEvent, cpu_hours: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark_windows(compute, 3)
    monkeypatch.setattr(materialization, "CLAIM_WINDOWS", 2)
    monkeypatch.setattr(materialization, "FOLD_SECONDS", 0.0)
    question = Question(start=HOUR_14, end=HOUR_14.replace(hour=15))

    assert fold(compute.pk) == Folded(0, 2, complete=False)
    assert ChangedWindow.objects.count() == 1
    assert [row.quantity for row in quantities(compute.organisation_id, "cpu_hours", question).rows] == []
    assert fold(compute.pk) == Folded(0, 1)
    assert stored_aggregates(cpu_hours) == {}
