"""Explanations: what they count is what the quantity counts, wherever it was read, for every aggregation."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import override_settings
from django.utils.timezone import now

from customers.models import Customer, CustomerAlias, Organisation
from metrics import explanation as explanation_module
from metrics.definitions import activate_metric, save_metric
from metrics.explained_records import SeenRecord, counted_records
from metrics.explanation import Explanation, Source, explain, explain_in
from metrics.materialization import fold
from metrics.models import Metric, MetricAggregate
from metrics.periods import PeriodError
from metrics.quantities import active_metric as metric_in_force
from metrics.quantities import quantities, quantities_in
from metrics.questions import NotActive, Question, TookTooLong, UnknownCustomer, UnknownDimension, UnknownMetric
from metrics.snapshots import snapshot
from tests.conftest import active_metric, take_in
from tests.metrics.record_values import dimensions_of, is_meant, passes, value_of
from usage.corrections import Actor, correct_record, restore_records, void_records
from usage.definitions import create_usage_event
from usage.models import IngestBatch, UsageEvent, UsageRecord
from usage.references import batch_reference

ACTOR = Actor(None, "someone")
SCHEMA = {
    "type": "object",
    "properties": {
        "amount": {"type": ["number", "null"]},
        "factor": {"type": "number"},
        "region": {"type": ["string", "null"]},
        "tier": {},
    },
}
NOT_US = {"all": [{"property": "region", "operator": "ne", "value": "us"}]}
JUNE = Question(start=datetime(2025, 6, 1, tzinfo=UTC), end=datetime(2025, 7, 1, tzinfo=UTC), customer_ids=["a"])
CUT = replace(JUNE, start=datetime(2025, 6, 1, 0, 30, tzinfo=UTC), end=datetime(2025, 6, 21, 0, 15, tzinfo=UTC))
ONE_HOUR = replace(JUNE, start=datetime(2025, 6, 1, 0, 30, tzinfo=UTC), end=datetime(2025, 6, 1, 0, 55, tzinfo=UTC))
EU = replace(JUNE, filter_by={"region": ["eu"]})

DEFINITIONS: list[dict[str, Any]] = [
    {"aggregation": "count", "filters": NOT_US},
    {"aggregation": "sum", "property": "amount"},
    {"aggregation": "sum", "expression": "amount * coalesce(factor, 1) / 3", "filters": NOT_US},
    {"aggregation": "avg", "property": "amount"},
    {"aggregation": "min", "property": "amount", "filters": NOT_US},
    {"aggregation": "max", "property": "amount", "rounding_mode": "ceiling", "rounding_digits": 0},
    {"aggregation": "latest", "property": "amount", "filters": NOT_US},
    {"aggregation": "unique_count", "property": "tier", "filters": NOT_US},
    {"aggregation": "percentile", "property": "amount", "percentile": Decimal(90), "filters": NOT_US},
    {"aggregation": "weighted_sum", "property": "amount", "filters": NOT_US},
]


@pytest.fixture
def stream(organisation: Organisation) -> UsageEvent:
    """A usage event whose records have an amount, a factor, a region, and a tier of any type."""
    return create_usage_event(organisation, name="Stream", slug="stream", schema=SCHEMA)


def at(moment: str, customer: str = "a", **data: Any) -> dict[str, Any]:
    return {"customer_id": customer, "timestamp": f"2025-{moment}:00Z", "data": data}


RECORDS = [
    at("05-31T23:00", amount=7, region="eu"),
    at("06-01T00:20", amount=5, region="eu", tier=1),
    at("06-01T00:50", amount=Decimal("2.5"), region="us", tier=Decimal("1.0")),
    at("06-01T00:50", amount=3, region="eu", tier="1"),
    at("06-11T00:00", amount=None, region="eu", tier=True),
    at("06-21T00:00", amount=10, factor=2, region=None, tier=[1]),
    at("06-21T00:10", "b", amount=4, region="eu"),
    at("07-01T00:00", amount=100, region="eu"),
]


def explained(metric: Metric, question: Question) -> Explanation:
    return explain(metric.organisation_id, metric.code, question)


def listed(metric: Metric, question: Question, *, skipped: bool = False, page_size: int = 100) -> list[SeenRecord]:
    """Return the records of all pages."""
    found, place = [], None
    while True:
        page = counted_records(
            metric.organisation_id, metric.code, question, skipped=skipped, place=place, page_size=page_size
        )
        found += page.rows
        place = page.next
        if place is None:
            return found


def expected_reasons(metric: Metric, question: Question) -> Counter[str | None]:
    """Return how many records there are for each reason, by the tests' own reading of definitions."""
    reasons: Counter[str | None] = Counter()
    (customer,) = question.customer_ids
    inside = {"timestamp__gte": question.start, "timestamp__lt": question.end}
    for stored in UsageRecord.objects.filter(customer__external_id=customer, **inside):
        dimensions = dict(zip(metric.group_by, dimensions_of(metric, stored.data), strict=True))
        if not all(
            any(is_meant(str(text), dimensions[name]) for text in texts) for name, texts in question.filter_by.items()
        ):
            continue
        if stored.voided_at is not None:
            reasons["voided"] += 1
        elif not passes(metric.filters, stored.data):
            reasons["filtered_out"] += 1
        else:
            reasons[None if value_of(metric, stored.data) is not None else "no_value"] += 1
    return reasons


def check(metric: Metric, question: Question) -> Explanation:
    """Explain a quantity and hold everything against everything else; returns the explanation."""
    found = explained(metric, question)
    (row,) = quantities(metric.organisation_id, metric.code, question).rows
    assert found.quantity == found.recount == row.quantity
    reasons = expected_reasons(metric, question)
    assert found.tally == (reasons[None], reasons["filtered_out"], reasons["no_value"], reasons["voided"])
    assert found.tally.counted + found.tally.no_value == row.record_count
    assert found.tally.counted == row.value_count
    assert sum(part.record_count or 0 for part in found.parts) == row.record_count
    everything = listed(metric, question, skipped=True, page_size=2)
    assert Counter(seen.reason for seen in everything) == reasons
    assert [(seen.timestamp, seen.id) for seen in everything] == sorted(
        (seen.timestamp, seen.id) for seen in everything
    )
    assert listed(metric, question, page_size=1) == [seen for seen in everything if seen.counted]
    return found


@pytest.mark.parametrize("definition", DEFINITIONS, ids=str)
def test_an_explanation_counts_what_the_quantity_counts(stream: UsageEvent, definition: dict[str, Any]) -> None:
    metric = active_metric(stream, code="m", group_by=["region"], **definition)
    take_in(stream, *RECORDS)
    merged = definition["aggregation"] not in ("percentile", "weighted_sum")

    def everywhere(*sources: Source, questions: tuple[Question, ...] = (JUNE,)) -> None:
        for question in questions:
            check(metric, question)
        found = {part.source for part in check(metric, CUT).parts}
        assert found == ({*sources, Source.RECORDS} if merged else {Source.RECORDS})

    everywhere(Source.PENDING)
    fold(stream.pk)
    everywhere(Source.AGGREGATES)
    _, second, of_us, *_, last = UsageRecord.objects.filter(customer__external_id="a").order_by("id")
    assert of_us.data["region"] == "us"
    void_records(stream.pk, [second.pk, of_us.pk], reason="r", actor=ACTOR)
    moved: dict[str, Any] = {
        "timestamp": datetime(2025, 6, 11, 0, 59, tzinfo=UTC),
        "data": {"amount": 8, "region": "eu", "tier": "x"},
    }
    correct_record(last.pk, revision=1, reason="r", actor=ACTOR, **moved)
    everywhere(Source.CHANGED)
    take_in(stream, at("06-11T00:30", amount=1, region="eu"), at("06-12T00:30", amount=2, region="eu", tier=2))
    take_in(stream, at("06-01T00:40", amount=6, region="us"))
    everywhere(Source.CHANGED, Source.PENDING, questions=(JUNE, ONE_HOUR, EU))
    fold(stream.pk)
    everywhere(Source.AGGREGATES)
    restore_records(stream.pk, [second.pk], reason="r", actor=ACTOR)
    check(metric, CUT)


def test_parts_are_told_exactly(stream: UsageEvent) -> None:
    metric = active_metric(stream, code="m", aggregation="sum", property="amount", filters=NOT_US)
    take_in(
        stream,
        *(at(f"06-02T0{hour}:10", amount=hour, region="eu") for hour in (1, 2, 3, 5)),
        at("06-02T05:20", region="eu"),
        at("06-02T05:30", amount=1, region="us"),
        at("06-02T07:20", amount=1, region="eu"),
        at("06-02T08:20", amount=1, region="eu"),
        at("06-02T08:30", "b", amount=1, region="eu"),
    )
    fold(stream.pk)
    to_void = UsageRecord.objects.get(timestamp=datetime(2025, 6, 2, 7, 20, tzinfo=UTC))
    void_records(stream.pk, [to_void.pk], reason="r", actor=ACTOR)
    take_in(stream, at("06-02T03:30", amount=1, region="eu"), at("06-02T09:00", amount=1, region="eu"))
    take_in(stream, at("06-02T10:00", "b", amount=1, region="eu"))
    batch = IngestBatch.objects.order_by("pk")[1]
    question = replace(JUNE, start=_at(1), end=_at(8, 30))

    found = check(metric, question)

    name = batch_reference(batch.pk, batch.received_at)
    assert [(part.start, part.end, str(part.source), part.record_count, part.batch) for part in found.parts] == [
        (_at(1), _at(4), "aggregates", 3, None),
        (_at(3), _at(4), "pending", 1, name),
        (_at(5), _at(6), "aggregates", 2, None),
        (_at(7), _at(8), "changed", 0, None),
        (_at(8), _at(8, 30), "records", 1, None),
    ]
    assert found.tally == (6, 1, 1, 1)
    assert not found.truncated
    whole = check(metric, JUNE)
    assert [(part.start, part.end, part.record_count) for part in whole.parts if part.batch] == [(_at(3), _at(10), 2)]


def _at(hour: int, minute: int = 0) -> datetime:
    return datetime(2025, 6, 2, hour, minute, tzinfo=UTC)


def test_a_list_of_parts_has_an_end(stream: UsageEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = active_metric(stream, code="m", aggregation="count")
    take_in(stream, *(at(f"06-02T{hour:02}:10") for hour in range(0, 12, 2)))
    fold(stream.pk)
    monkeypatch.setattr(explanation_module, "MAX_PARTS", 6)
    assert not explained(metric, JUNE).truncated
    monkeypatch.setattr(explanation_module, "MAX_PARTS", 5)

    found = explained(metric, JUNE)

    assert found.truncated
    assert [part.start for part in found.parts] == [_at(hour) for hour in range(0, 10, 2)]
    assert found.quantity == 6


def test_what_is_held_into_the_period_is_named(stream: UsageEvent) -> None:
    one = active_metric(stream, code="one", aggregation="weighted_sum", property="amount")
    each = active_metric(stream, code="each", aggregation="weighted_sum", property="amount", group_by=["region"])
    take_in(
        stream,
        at("05-01T00:00", amount=1, region="eu"),
        at("05-02T00:00", amount=2, region="us"),
        at("05-02T00:00", amount=3, region="us"),
        at("05-03T00:00", region="eu"),
        at("05-04T00:00", "b", amount=9, region="eu"),
        at("05-05T00:00", amount=9, region="asia"),
        at("06-02T00:00", amount=0, region="us"),
    )
    void_records(stream.pk, [UsageRecord.objects.get(data__region="asia").pk], reason="r", actor=ACTOR)

    found = check(one, JUNE)
    assert [(row.timestamp.day, row.value, row.dimensions) for row in found.carried_in] == [(2, "3", {})]
    assert found.quantity == 3 * 24
    found = check(each, JUNE)
    shown = [(row.value, row.dimensions["region"], row.reason) for row in found.carried_in]
    assert shown == [("1", "eu", None), ("3", "us", None)]
    assert found.quantity == 30 * 24 + 3 * 24
    assert [row.value for row in check(each, EU).carried_in] == ["1"]
    assert found.tally == (1, 0, 0, 0)


def test_nothing_is_held_into_a_period_that_has_not_begun(stream: UsageEvent) -> None:
    metric = active_metric(stream, code="m", aggregation="weighted_sum", property="amount")
    take_in(stream, at("05-01T00:00", amount=1))
    start = now() + timedelta(days=1)

    found = explained(metric, replace(JUNE, start=start, end=start + timedelta(days=1)))

    assert (found.quantity, found.recount, found.carried_in) == (None, None, [])


def test_the_same_snapshot_gives_the_same_quantity(stream: UsageEvent) -> None:
    metric = active_metric(stream, code="m", aggregation="sum", property="amount")
    take_in(stream, *RECORDS)

    with snapshot(seconds=10) as cursor:
        found = explain_in(cursor, metric_in_force(stream.organisation_id, "m"), JUNE)
        answer = quantities_in(cursor, stream.organisation_id, metric.code, JUNE)

    assert found.quantity == answer.rows[0].quantity == Decimal("20.5")
    assert found.question.customer_ids == ["a"]


def test_a_recount_tells_of_what_is_stored_wrongly(stream: UsageEvent) -> None:
    metric = active_metric(stream, code="m", aggregation="sum", property="amount")
    take_in(stream, *RECORDS)
    fold(stream.pk)
    MetricAggregate.objects.filter(metric=metric, window_start=datetime(2025, 6, 1, tzinfo=UTC)).update(sum=1000)

    found = explained(metric, JUNE)

    assert (found.quantity, found.recount) == (Decimal(1010), Decimal("20.5"))


def test_values_of_records_are_shown_exactly(stream: UsageEvent) -> None:
    tiers: list[Any] = [1, Decimal("1.0"), "1", 'ü"', True, None, [1], Decimal("1e-12"), Decimal("1E+20")]
    take_in(stream, *(at(f"06-01T00:{minute:02}", tier=tier) for minute, tier in enumerate(tiers)))
    distinct = active_metric(stream, code="d", aggregation="unique_count", property="tier", group_by=["tier"])
    total = active_metric(stream, code="s", aggregation="sum", expression="coalesce(amount, 1) / 3")

    shown = [(row.value, row.reason) for row in listed(distinct, JUNE, skipped=True)]

    assert shown == [
        *[("1", None), ("1", None), ('"1"', None), ('"ü\\""', None), ("true", None), (None, "no_value")],
        *[(None, "no_value"), ("0.000000000001", None), ("100000000000000000000", None)],
    ]
    dimensions = [row.dimensions["tier"] for row in listed(distinct, JUNE, skipped=True)]
    assert dimensions[:6] == [1, 1, "1", 'ü"', True, None]
    assert list(dimensions[6]) == ["sha256"]
    assert {row.value for row in listed(total, JUNE)} == {"0." + "3" * 40}


def test_pages_go_both_ways(stream: UsageEvent) -> None:
    active_metric(stream, code="m", aggregation="count")
    take_in(stream, *(at("06-01T00:10") for _ in range(5)))
    ids = list(UsageRecord.objects.order_by("id").values_list("id", flat=True))

    def page(place: Any) -> Any:
        return counted_records(stream.organisation_id, "m", JUNE, place=place, page_size=2)

    first = page(None)
    second = page(first.next)
    third = page(second.next)
    assert [[row.id for row in one.rows] for one in (first, second, third)] == [ids[:2], ids[2:4], ids[4:]]
    assert (first.previous, third.next) == (None, None)
    assert [row.id for row in page(third.previous).rows] == ids[2:4]
    assert [row.id for row in page(second.previous).rows] == ids[:2]
    assert page(second.previous).previous is None
    assert page(second.previous).next == first.next


def test_a_late_record_between_two_pages_does_no_harm(stream: UsageEvent) -> None:
    metric = active_metric(stream, code="m", aggregation="count")
    take_in(stream, at("06-01T00:10"), at("06-01T00:20"), at("06-01T00:40"))

    first = counted_records(stream.organisation_id, metric.code, JUNE, page_size=2)
    take_in(stream, at("06-01T00:05"), at("06-01T00:30"))
    second = counted_records(stream.organisation_id, metric.code, JUNE, place=first.next, page_size=10)

    assert [row.timestamp.minute for row in [*first.rows, *second.rows]] == [10, 20, 30, 40]
    assert first.as_of < second.as_of


def test_what_cannot_be_explained_is_refused(stream: UsageEvent) -> None:
    metric = active_metric(stream, code="m", aggregation="count", group_by=["region"])
    draft = save_metric(
        Metric(organisation=stream.organisation, usage_event=stream, code="d", name="D", aggregation="count")
    )
    take_in(stream, at("06-01T00:10"))
    refused: list[tuple[type[Exception], str, Question]] = [
        (UnknownMetric, "nothing", JUNE),
        (NotActive, draft.code, JUNE),
        (UnknownCustomer, "m", replace(JUNE, customer_ids=["nobody"])),
        (UnknownDimension, "m", replace(JUNE, filter_by={"tier": ["1"]})),
        (PeriodError, "m", replace(JUNE, end=JUNE.start)),
        (ValueError, "m", replace(JUNE, customer_ids=["a", "b"])),
    ]
    for error, code, question in refused:
        for act in (explain, counted_records):
            with pytest.raises(error):
                act(stream.organisation_id, code, question)
    assert explained(metric, JUNE).quantity == 1
    activate_metric(draft.pk)
    with pytest.raises(NotActive, match="building"):
        explain(stream.organisation_id, draft.code, JUNE)


def test_an_alias_names_the_customer(stream: UsageEvent) -> None:
    metric = active_metric(stream, code="m", aggregation="sum", property="amount")
    take_in(stream, at("06-01T00:10", amount=3))
    customer = Customer.objects.get(external_id="a")
    CustomerAlias.objects.create(organisation=stream.organisation, customer=customer, alias="old-a")
    aliased = replace(JUNE, customer_ids=["old-a"])

    found = explained(metric, aliased)

    (row,) = quantities(stream.organisation_id, "m", aliased).rows
    assert (found.customer_id, found.quantity) == (row.customer_id, row.quantity) == ("a", 3)
    assert [seen.value for seen in listed(metric, aliased)] == ["3"]


def test_customers_of_another_organisation_are_unknown(stream: UsageEvent) -> None:
    other = Organisation.objects.create(name="Other", timezone="UTC")
    theirs = create_usage_event(other, name="Stream", slug="stream", schema=SCHEMA)
    take_in(theirs, at("06-01T00:10", "theirs"))
    active_metric(stream, code="m", aggregation="count")

    with pytest.raises(UnknownCustomer):
        explain(stream.organisation_id, "m", replace(JUNE, customer_ids=["theirs"]))


def test_what_takes_too_long_is_cut_off(stream: UsageEvent) -> None:
    active_metric(stream, code="m", aggregation="sum", expression=" + ".join(["amount * factor"] * 20))
    take_in(stream, *(at("06-01T00:10", amount=n, factor=n) for n in range(3000)))

    with override_settings(QUANTITIES_SECONDS=0.001), pytest.raises(TookTooLong, match=r"longer than 0\.001 s"):
        for _ in range(20):
            explain(stream.organisation_id, "m", JUNE)
