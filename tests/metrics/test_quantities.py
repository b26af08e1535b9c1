"""Quantities: exact at the moment of asking, folded or not, in any zone."""

from datetime import UTC, date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from metrics.definitions import save_metric
from metrics.materialization import fold
from metrics.models import Metric
from metrics.periods import PeriodError, Window, midnight
from metrics.quantities import quantities
from metrics.questions import NotActive, Question, UnknownCustomer, UnknownMetric
from tests.conftest import active_metric, record, take_in
from usage.corrections import Actor, correct_record, void_records
from usage.models import UsageEvent, UsageRecord

ACTOR = Actor(None, "someone")
JUNE = Question(start=datetime(2025, 6, 1, tzinfo=UTC), end=datetime(2025, 7, 1, tzinfo=UTC))


def ask(metric: Metric, **asked: object) -> list[tuple[str, str, int]]:
    question = Question(**{"start": JUNE.start, "end": JUNE.end, **asked})  # type: ignore[arg-type]
    answer = quantities(metric.organisation_id, metric.code, question)
    return [(row.customer_id, str(row.quantity), row.record_count) for row in answer.rows]


@pytest.mark.parametrize("folded", [False, True])
def test_what_was_acknowledged_is_in_the_quantity(compute: UsageEvent, cpu_hours: Metric, folded: bool) -> None:
    take_in(compute, record(hours=Decimal("0.1")), record(hours=Decimal("0.2")), record(customer="cus_2", hours=7))
    take_in(compute, record(timestamp="2025-07-01T00:00:00Z"), record(timestamp="2025-05-31T23:59:59.999999Z"))
    if folded:
        fold(compute.pk)

    assert ask(cpu_hours) == [("cus_1", "0.3", 2), ("cus_2", "7", 1)]


@pytest.mark.parametrize("folded", [False, True])
def test_a_correction_is_in_the_quantity_at_once(compute: UsageEvent, cpu_hours: Metric, folded: bool) -> None:
    take_in(compute, record(hours=5), record(hours=1))
    if folded:
        fold(compute.pk)
    first, second = UsageRecord.objects.order_by("id")

    correct_record(first.pk, data={"cpu_usage_hours": 8}, customer_id="cus_2", revision=1, reason="r", actor=ACTOR)
    void_records(compute.pk, [second.pk], reason="r", actor=ACTOR)

    assert ask(cpu_hours) == [("cus_2", "8", 1)]
    assert ask(cpu_hours, customer_ids=["cus_1", "cus_2"]) == [("cus_1", "0", 0), ("cus_2", "8", 1)]


@pytest.mark.parametrize("folded", [False, True])
def test_period_edges_inside_an_hour_are_exact(compute: UsageEvent, cpu_hours: Metric, folded: bool) -> None:
    for minute in (0, 29, 30, 31, 59):
        take_in(compute, record(hours=minute, timestamp=f"2025-06-17T14:{minute:02}:00Z"))
    if folded:
        fold(compute.pk)

    start, end = datetime(2025, 6, 17, 14, 29, tzinfo=UTC), datetime(2025, 6, 17, 14, 31, tzinfo=UTC)
    assert ask(cpu_hours, start=start, end=end) == [("cus_1", "59", 2)]


def test_days_of_a_zone_with_half_an_hour(compute: UsageEvent, cpu_hours: Metric) -> None:
    take_in(compute, record(hours=1, timestamp="2025-06-01T18:29:59.999999Z"))
    take_in(compute, record(hours=2, timestamp="2025-06-01T18:30:00Z"))
    fold(compute.pk)
    zone = ZoneInfo("Asia/Kolkata")

    question = Question(
        start=midnight(date(2025, 6, 1), zone), end=midnight(date(2025, 6, 3), zone), window=Window.DAY, zone=zone
    )
    rows = quantities(cpu_hours.organisation_id, cpu_hours.code, question).rows
    assert [(row.start, row.quantity) for row in rows] == [
        (datetime(2025, 5, 31, 18, 30, tzinfo=UTC), 1),
        (datetime(2025, 6, 1, 18, 30, tzinfo=UTC), 2),
    ]


def test_windows_without_records_are_left_out_and_skipped_records_are_not(
    compute: UsageEvent, cpu_hours: Metric
) -> None:
    take_in(compute, {"customer_id": "cus_1", "timestamp": "2025-06-17T14:00:00Z", "data": {"region": "eu"}})

    assert ask(cpu_hours, window=Window.DAY) == [("cus_1", "0", 1)]


def test_nothing_to_count_is_zero_for_a_named_customer_only(compute: UsageEvent, cpu_hours: Metric) -> None:
    take_in(compute, record(timestamp="2024-01-01T00:00:00Z"))

    assert ask(cpu_hours) == []
    assert ask(cpu_hours, customer_ids=["cus_1"]) == [("cus_1", "0", 0)]
    assert ask(cpu_hours, customer_ids=["cus_1"], window=Window.DAY) == []


def test_every_digit_arrives(compute: UsageEvent, cpu_hours: Metric) -> None:
    take_in(compute, record(hours=Decimal("12345678901234567890.123456789")), record(hours=Decimal("0.0000001")))

    assert ask(cpu_hours) == [("cus_1", "12345678901234567890.1234568890"[:-1], 2)]


@pytest.mark.parametrize("folded", [False, True])
def test_customers_come_in_pages(compute: UsageEvent, cpu_hours: Metric, folded: bool) -> None:
    take_in(compute, *(record(customer=f"cus_{number}", hours=number) for number in range(7)))
    if folded:
        fold(compute.pk)
    found, after = [], 0
    while True:
        question = Question(start=JUNE.start, end=JUNE.end, after=after, page_size=3)
        answer = quantities(cpu_hours.organisation_id, cpu_hours.code, question)
        found.append([row.customer_id for row in answer.rows])
        if answer.next is None:
            break
        after = answer.next

    assert [len(page) for page in found] == [3, 3, 1]
    assert sorted(name for page in found for name in page) == [f"cus_{number}" for number in range(7)]


def test_a_count_counts_records(compute: UsageEvent) -> None:
    metric = active_metric(compute, code="records", aggregation="count")
    take_in(compute, record(), record())

    assert ask(metric) == [("cus_1", "2", 2)]
    fold(compute.pk)
    take_in(compute, record())
    assert ask(metric) == [("cus_1", "3", 3)]


def test_what_cannot_be_answered_says_so(compute: UsageEvent, cpu_hours: Metric) -> None:
    organisation_id = compute.organisation_id
    with pytest.raises(UnknownMetric):
        quantities(organisation_id, "nope", JUNE)
    with pytest.raises(UnknownMetric):
        quantities(organisation_id + 1, "cpu_hours", JUNE)
    with pytest.raises(UnknownCustomer, match="cus_9"):
        ask(cpu_hours, customer_ids=["cus_9"])
    metric = Metric(
        organisation=compute.organisation, usage_event=compute, code="draft", name="Draft", aggregation="count"
    )
    save_metric(metric)
    with pytest.raises(NotActive) as refused:
        quantities(organisation_id, "draft", JUNE)
    assert refused.value.status == "draft"


def test_an_answer_has_a_bound(compute: UsageEvent, cpu_hours: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metrics.quantities.MAX_ROWS", 60)
    take_in(compute, *(record(customer=f"cus_{number}") for number in range(5)))
    question = Question(start=JUNE.start, end=JUNE.end, window=Window.DAY)

    answer = quantities(cpu_hours.organisation_id, "cpu_hours", question)
    assert [row.customer_id for row in answer.rows] == ["cus_0", "cus_1"]
    assert answer.next is not None
    with pytest.raises(PeriodError, match="at most 2 customers"):
        ask(cpu_hours, window=Window.DAY, customer_ids=["cus_0", "cus_1", "cus_2"])


@pytest.mark.parametrize("folded", ["all", "half", "none"])
@pytest.mark.parametrize("window", list(Window))
def test_pages_miss_nobody_whatever_is_folded(
    compute: UsageEvent, cpu_hours: Metric, folded: str, window: Window
) -> None:
    zone = ZoneInfo("Asia/Kolkata")
    for number in range(6):
        take_in(compute, record(customer=f"cus_{number}", hours=number, timestamp="2025-06-02T18:29:59Z"))
        take_in(compute, record(customer=f"cus_{number}", hours=10, timestamp="2025-06-02T18:30:00Z"))
        if folded == "all" or (folded == "half" and number == 2):
            fold(compute.pk)
    moved = UsageRecord.objects.filter(customer__external_id="cus_1").earliest("id")
    correct_record(moved.pk, data={"cpu_usage_hours": 100}, revision=1, reason="r", actor=ACTOR)
    found: dict[str, Decimal] = {}
    after: int | None = 0
    while after is not None:
        question = Question(
            start=midnight(date(2025, 6, 1), zone),
            end=midnight(date(2025, 6, 5), zone),
            window=window,
            zone=zone,
            after=after,
            page_size=2,
        )
        answer = quantities(cpu_hours.organisation_id, "cpu_hours", question)
        for row in answer.rows:
            found[row.customer_id] = found.get(row.customer_id, Decimal(0)) + (row.quantity or 0)
        after = answer.next

    assert found == {f"cus_{number}": (110 if number == 1 else number + 10) for number in range(6)}
