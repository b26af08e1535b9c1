"""Every aggregation, from stored hours, pending batches, corrected records and previews: exact tables."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings
from django.utils.timezone import now

from customers.models import Organisation
from metrics import quantities as quantities_module
from metrics.materialization import fold
from metrics.models import Metric, MetricAggregate, MetricDistinctValue
from metrics.periods import PeriodError, Window
from metrics.quantities import preview, quantities, time_limit
from metrics.questions import Quantity, Question, TookTooLong, UnknownDimension
from tests.conftest import active_metric, take_in
from usage.corrections import Actor, void_records
from usage.definitions import create_usage_event
from usage.models import UsageEvent, UsageRecord

JUNE = Question(start=datetime(2025, 6, 1, tzinfo=UTC), end=datetime(2025, 7, 1, tzinfo=UTC))
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


@pytest.fixture
def stream(organisation: Organisation) -> UsageEvent:
    """A usage event whose records have an amount, a factor, a region, and a tier of any type."""
    return create_usage_event(organisation, name="Stream", slug="stream", schema=SCHEMA)


def at(moment: str, customer: str = "a", **data: Any) -> dict[str, Any]:
    return {"customer_id": customer, "timestamp": f"2025-06-{moment}:00Z", "data": data}


RECORDS = [
    at("01T00:20", amount=5, region="eu", tier=1),
    at("01T00:50", amount=Decimal("2.5"), region="us", tier=Decimal("1.0")),
    at("01T00:50", amount=3, region="eu", tier="1"),
    at("11T00:00", amount=None, region="eu", tier=True),
    at("21T00:00", amount=10, factor=2, region=None, tier=[1]),
    at("21T00:00", "b", factor=4),
]


def all_ways(stream: UsageEvent, metric: Metric, question: Question) -> list[Quantity]:
    """Return the rows of an answer: the same while its records are pending, folded, and as a preview."""
    pending = quantities(stream.organisation_id, metric.code, question).rows
    fold(stream.pk)
    assert quantities(stream.organisation_id, metric.code, question).rows == pending
    assert preview(metric, question).rows == pending
    return pending


CALCULATIONS: list[tuple[dict[str, Any], Decimal | None, Decimal | None]] = [
    ({"aggregation": "count"}, Decimal(5), Decimal(1)),
    ({"aggregation": "sum", "property": "amount"}, Decimal("20.5"), Decimal(0)),
    ({"aggregation": "sum", "expression": "amount * coalesce(factor, 1) + 1"}, Decimal("34.5"), Decimal(0)),
    ({"aggregation": "avg", "property": "amount"}, Decimal("5.125"), None),
    ({"aggregation": "min", "property": "amount"}, Decimal("2.5"), None),
    ({"aggregation": "max", "property": "amount"}, Decimal(10), None),
    ({"aggregation": "latest", "property": "amount"}, Decimal(10), None),
    ({"aggregation": "unique_count", "property": "tier"}, Decimal(3), Decimal(0)),
    ({"aggregation": "percentile", "property": "amount", "percentile": Decimal(50)}, Decimal(4), None),
    ({"aggregation": "percentile", "property": "amount", "percentile": Decimal(90)}, Decimal("8.5"), None),
    # Minutes: 5 x 30, 3 x (20 days less 50), 10 x 10 days; 2.5 is held for no time at all.
    ({"aggregation": "weighted_sum", "property": "amount"}, Decimal(150 + 3 * 28_750 + 10 * 14_400) / 60, None),
]


@pytest.mark.parametrize(("definition", "of_a", "of_b"), CALCULATIONS, ids=lambda case: str(case)[:60])
def test_every_aggregation(
    stream: UsageEvent, definition: dict[str, Any], of_a: Decimal | None, of_b: Decimal | None
) -> None:
    metric = active_metric(stream, code="m", **definition)
    take_in(stream, *RECORDS)
    named = Question(start=JUNE.start, end=JUNE.end, customer_ids=["a", "b"])

    a, b = all_ways(stream, metric, named)

    assert (a.customer_id, a.quantity, a.record_count) == ("a", of_a, 5)
    assert (b.customer_id, b.quantity, b.record_count) == ("b", of_b, 1)


@pytest.mark.parametrize(("definition", "of_a", "of_b"), CALCULATIONS, ids=lambda case: str(case)[:60])
def test_windows_are_of_the_same_stuff(
    stream: UsageEvent, definition: dict[str, Any], of_a: Decimal | None, of_b: Decimal | None
) -> None:
    metric = active_metric(stream, code="m", **definition)
    take_in(stream, *RECORDS)
    by_day = Question(start=JUNE.start, end=JUNE.end, window=Window.DAY)

    rows = [row for row in all_ways(stream, metric, by_day) if row.customer_id == "a"]

    assert sum(row.record_count for row in rows) == 5
    if definition["aggregation"] in {"count", "sum", "weighted_sum"}:
        assert sum(row.quantity or 0 for row in rows) == pytest.approx(of_a, abs=Decimal("1e-20"))
    days = 30 if definition["aggregation"] == "weighted_sum" else 3
    assert len(rows) == days


@pytest.mark.parametrize(("definition", "of_a", "of_b"), CALCULATIONS, ids=lambda case: str(case)[:60])
def test_dimensions_and_corrections(
    stream: UsageEvent, definition: dict[str, Any], of_a: Decimal | None, of_b: Decimal | None
) -> None:
    metric = active_metric(stream, code="m", group_by=["region", "tier"], **definition)
    take_in(stream, *RECORDS)
    fold(stream.pk)
    void_records(stream.pk, [UsageRecord.objects.earliest("id").pk], reason="wrong", actor=ACTOR)
    grouped = Question(start=JUNE.start, end=JUNE.end, group_by=["region"])

    rows = all_ways(stream, metric, grouped)

    found = [(row.customer_id, row.dimensions["region"], row.record_count) for row in rows]
    assert found == [("a", "eu", 2), ("a", "us", 1), ("a", None, 1), ("b", None, 1)]
    total = all_ways(stream, metric, JUNE)
    assert [row.record_count for row in total] == [4, 1]
    if definition["aggregation"] in {"count", "sum"}:
        assert sum(row.quantity or 0 for row in rows) == sum(row.quantity or 0 for row in total)


def test_dimensions_keep_types_apart_and_equal_numbers_together(stream: UsageEvent) -> None:
    metric = active_metric(stream, code="m", aggregation="count", group_by=["tier"])
    tiers = [1, Decimal("1.0"), "1", True, None, "", [1], {"a": 1}, "x" * 300]
    take_in(stream, *(at("01T00:10", tier=tier) for tier in tiers), at("01T00:10"))

    rows = all_ways(stream, metric, Question(start=JUNE.start, end=JUNE.end, group_by=["tier"]))

    found = [(row.dimensions["tier"], row.record_count) for row in rows]
    hashed = [(tier, count) for tier, count in found if isinstance(tier, dict)]
    plain = {repr(tier): count for tier, count in found if not isinstance(tier, dict)}
    assert plain == {"1": 2, "'1'": 1, "True": 1, "None": 2, "''": 1}
    assert [(list(tier), count) for tier, count in hashed] == [(["sha256"], 1)] * 3


@pytest.mark.parametrize(
    ("texts", "count"), [(["1"], 3), (["true"], 1), ([""], 1), (["1", "eu"], 3), (["x" * 300], 1), (["no"], 0)]
)
def test_a_dimension_is_asked_for_by_its_text(stream: UsageEvent, texts: list[str], count: int) -> None:
    metric = active_metric(stream, code="m", aggregation="count", group_by=["region", "tier"])
    tiers = [1, Decimal("1.0"), "1", True, None, "", [1], "x" * 300]
    take_in(stream, *(at("01T00:10", tier=tier) for tier in tiers))

    rows = all_ways(stream, metric, Question(start=JUNE.start, end=JUNE.end, filter_by={"tier": texts}))

    assert sum(row.record_count for row in rows) == count


@pytest.mark.parametrize("text", ['"' * 200, "\n" * 130, "\\" * 130, "x" * 253, "x" * 254, "é" * 126, "é" * 127])
def test_a_long_dimension_is_asked_for_by_its_text_too(stream: UsageEvent, text: str) -> None:
    metric = active_metric(stream, code="m", aggregation="count", group_by=["region"])
    take_in(stream, at("01T00:10", region=text))

    rows = all_ways(stream, metric, Question(start=JUNE.start, end=JUNE.end, filter_by={"region": [text]}))

    assert [row.quantity for row in rows] == [1]


@pytest.mark.parametrize("text", ["1E-7", "0.0000001", "1e64", "1" + "0" * 64])
def test_a_number_is_asked_for_as_answers_write_it(stream: UsageEvent, text: str) -> None:
    metric = active_metric(stream, code="m", aggregation="count", group_by=["tier"])
    take_in(stream, at("01T00:10", tier=Decimal("1E-7")), at("01T00:10", tier=Decimal("1E+64")))

    rows = all_ways(stream, metric, Question(start=JUNE.start, end=JUNE.end, filter_by={"tier": [text]}))

    assert [row.quantity for row in rows] == [1]


def test_null_and_missing_are_one_series_of_held_values(stream: UsageEvent) -> None:
    metric = active_metric(stream, code="m", aggregation="weighted_sum", property="amount", group_by=["region"])
    take_in(stream, at("01T00:00", amount=10, region=None), at("01T01:00", amount=0))
    two_hours = Question(start=JUNE.start, end=JUNE.start + timedelta(hours=2), group_by=["region"])

    assert [(row.dimensions, row.quantity) for row in all_ways(stream, metric, two_hours)] == [({"region": None}, 10)]


def test_filters_decide_what_counts(stream: UsageEvent) -> None:
    filters = {"any": [{"property": "region", "operator": "eq", "value": "eu"}]}
    metric = active_metric(stream, code="m", aggregation="sum", property="amount", filters=filters)
    take_in(stream, *RECORDS)

    rows = all_ways(stream, metric, JUNE)

    assert [(row.customer_id, row.quantity, row.record_count, row.value_count) for row in rows] == [("a", 8, 3, 2)]


def test_a_held_value_goes_on_without_records(stream: UsageEvent) -> None:
    metric = active_metric(stream, code="seats", aggregation="weighted_sum", property="amount")
    take_in(stream, at("01T00:00", amount=3), at("02T12:00", amount=5))
    july = Question(start=JUNE.end, end=JUNE.end + timedelta(days=1))

    assert [(row.quantity, row.record_count) for row in all_ways(stream, metric, july)] == [(Decimal(120), 0)]
    before = Question(start=JUNE.start - timedelta(days=1), end=JUNE.start)
    assert all_ways(stream, metric, before) == []


def test_a_value_is_not_held_in_the_future(stream: UsageEvent) -> None:
    metric = active_metric(stream, code="seats", aggregation="weighted_sum", property="amount")
    start = now() - timedelta(hours=2)
    take_in(stream, {"customer_id": "a", "timestamp": start.isoformat(), "data": {"amount": 1}})
    question = Question(start=start, end=start + timedelta(days=30))

    answer = quantities(stream.organisation_id, metric.code, question)

    (row,) = answer.rows
    held = Decimal((answer.as_of - start) // timedelta(microseconds=1)) / 3_600_000_000
    assert row.quantity == pytest.approx(held, abs=Decimal("1e-20"))
    later = Question(start=start + timedelta(days=1), end=start + timedelta(days=2))
    assert quantities(stream.organisation_id, metric.code, later).rows == []


def test_each_combination_of_dimensions_holds_its_own_value(stream: UsageEvent) -> None:
    metric = active_metric(stream, code="seats", aggregation="weighted_sum", property="amount", group_by=["region"])
    take_in(stream, at("01T00:00", amount=3, region="eu"), at("01T12:00", amount=5, region="us"))
    june_2 = Question(start=JUNE.start + timedelta(days=1), end=JUNE.start + timedelta(days=2))

    assert [row.quantity for row in all_ways(stream, metric, june_2)] == [Decimal(8 * 24)]


def test_rounding_comes_last(stream: UsageEvent) -> None:
    metric = active_metric(
        stream, code="m", aggregation="avg", property="amount", rounding_mode="half_up", rounding_digits=2
    )
    take_in(stream, at("01T00:10", amount=1), at("01T00:20", amount=0), at("02T00:20", amount=1))

    assert [str(row.quantity) for row in all_ways(stream, metric, JUNE)] == ["0.67"]


def test_an_average_has_34_digits_more_than_its_sum(stream: UsageEvent) -> None:
    metric = active_metric(stream, code="m", aggregation="avg", property="amount")
    take_in(stream, at("01T00:10", amount=1), at("01T00:20", amount=0), at("02T00:20", amount=0))

    assert [str(row.quantity) for row in all_ways(stream, metric, JUNE)] == ["0." + "3" * 35]


def test_unknown_dimensions_are_refused(stream: UsageEvent) -> None:
    metric = active_metric(stream, code="m", aggregation="count", group_by=["region"])
    for more in ({"group_by": ["tier"]}, {"filter_by": {"tier": ["1"]}}):
        with pytest.raises(UnknownDimension, match=r"expected \('region'\), got 'tier'"):
            preview(metric, Question(start=JUNE.start, end=JUNE.end, **more))


def test_too_many_rows_are_refused_or_paged(stream: UsageEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = active_metric(stream, code="m", aggregation="count", group_by=["tier"])
    take_in(stream, *(at("01T00:10", customer, tier=tier) for customer in "abcd" for tier in range(3)))
    monkeypatch.setattr(quantities_module, "MAX_ROWS", 7)
    grouped = Question(start=JUNE.start, end=JUNE.end, group_by=["tier"])

    first = quantities(stream.organisation_id, metric.code, grouped)
    assert [row.customer_id for row in first.rows] == ["a"] * 3 + ["b"] * 3 or first.next is not None
    rows, after = list(first.rows), first.next
    while after is not None:
        page = quantities(
            stream.organisation_id,
            metric.code,
            Question(start=JUNE.start, end=JUNE.end, group_by=["tier"], after=after),
        )
        rows, after = rows + page.rows, page.next
    assert [row.customer_id for row in rows] == [*"aaabbbcccddd"]
    monkeypatch.setattr(quantities_module, "MAX_ROWS", 2)
    with pytest.raises(PeriodError, match=r"customer 'a' alone has more \(the customers behind are at cursor=\d+\)"):
        quantities(stream.organisation_id, metric.code, grouped)
    monkeypatch.setattr(quantities_module, "MAX_ROWS", 7)
    with pytest.raises(PeriodError, match="at most 7 rows"):
        named = Question(start=JUNE.start, end=JUNE.end, group_by=["tier"], customer_ids=list("abcd"))
        quantities(stream.organisation_id, metric.code, named)


def test_what_takes_too_long_is_cut_off(stream: UsageEvent) -> None:
    metric = active_metric(stream, code="m", aggregation="percentile", property="amount", percentile=Decimal(50))
    take_in(stream, *(at("01T00:10", amount=n) for n in range(3000)))
    with override_settings(QUANTITIES_SECONDS=0.001), pytest.raises(TookTooLong, match=r"longer than 0\.001 s"):
        for _ in range(20):
            preview(metric, Question(start=JUNE.start, end=JUNE.end, window=Window.HOUR))


def test_the_time_is_for_the_whole_answer(stream: UsageEvent) -> None:
    with pytest.raises(TookTooLong), time_limit(0.05), connection.cursor() as cursor:
        for _ in range(100):
            cursor.execute("SELECT pg_sleep(0.01)")


def test_one_sum_has_one_average_however_its_zeros_were_written(stream: UsageEvent) -> None:
    metric = active_metric(stream, code="m", aggregation="avg", property="amount")
    take_in(stream, at("01T00:10", amount=Decimal("2.000")), at("01T00:20", "b", amount=2))
    take_in(stream, *(at("01T00:30", customer, amount=0) for customer in "aabb"))

    a, b = all_ways(stream, metric, JUNE)

    assert a.quantity == b.quantity == Decimal("0." + "6" * 34 + "7")


def test_distinct_values_are_counted_by_reference(stream: UsageEvent) -> None:
    metric = active_metric(stream, code="m", aggregation="unique_count", property="tier")
    take_in(stream, at("01T00:10", tier="x"), at("01T00:20", tier="x"))
    fold(stream.pk)
    take_in(stream, at("01T00:30", tier="x"), at("01T00:30", tier="y"))
    fold(stream.pk)
    kept = MetricDistinctValue.objects.filter(metric=metric).order_by("record_count")
    assert [row.record_count for row in kept] == [1, 3]

    void_records(stream.pk, [UsageRecord.objects.latest("id").pk], reason="wrong", actor=ACTOR)
    assert [row.quantity for row in all_ways(stream, metric, JUNE)] == [1]
    assert [row.record_count for row in kept.all()] == [3]
    assert MetricAggregate.objects.get(metric=metric).value_count == 3
