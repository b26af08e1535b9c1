"""Formulas against references from elsewhere: numpy, an integral step by step, exact fractions, tables of roundings."""

import random
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy
import pytest

from customers.models import Organisation
from metrics.materialization import fold
from metrics.models import Metric
from metrics.periods import Window
from metrics.quantities import quantities
from metrics.questions import Quantity, Question
from tests.conftest import active_metric, record, take_in
from tests.metrics.counting import percentile, stored_aggregates
from tests.metrics.histories import stop_the_clock
from tests.metrics.record_values import evaluate, rounded
from usage.corrections import Actor, correct_record
from usage.definitions import create_usage_event
from usage.models import UsageEvent, UsageRecord

DAY = datetime(2025, 6, 17, tzinfo=UTC)
WHOLE_DAY = Question(start=DAY, end=DAY + timedelta(days=1))


def ask(metric: Metric, **asked: Any) -> list[Quantity]:
    question = Question(**{"start": WHOLE_DAY.start, "end": WHOLE_DAY.end, **asked})
    return quantities(metric.organisation_id, metric.code, question).rows


def only(metric: Metric, **asked: Any) -> Decimal | None:
    (row,) = ask(metric, **asked)
    return row.quantity


def at(usage_event: UsageEvent, *values: tuple[float | timedelta, Any], customer: str = "cus_1") -> None:
    """Post values at hours of the day (which may be negative)."""
    moments = [(hours if isinstance(hours, timedelta) else timedelta(hours=hours), value) for hours, value in values]
    take_in(
        usage_event,
        *(
            {
                "customer_id": customer,
                "timestamp": (DAY + moment).isoformat(),
                "data": value if isinstance(value, dict) else {"cpu_usage_hours": value},
            }
            for moment, value in moments
        ),
    )


# --- percentiles ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_percentiles_are_those_of_numpy_and_of_exact_fractions(compute: UsageEvent, seed: int) -> None:
    chance = random.Random(seed)
    p = [Decimal(0), Decimal(100), Decimal(50), Decimal("95"), Decimal("99.9"), Decimal("33.333")][seed]
    metric = active_metric(compute, code="p", aggregation="percentile", property="cpu_usage_hours", percentile=p)
    values = [Decimal(chance.randrange(-(10**6), 10**6)).scaleb(-3) for _ in range(chance.randrange(2, 60))]
    values += chance.sample(values, 2)
    at(compute, *((chance.random() * 24, value) for value in values))

    found = only(metric)
    assert found is not None
    assert float(found) == pytest.approx(numpy.percentile(list(map(float, values)), float(p), method="linear"))
    assert Fraction(found) == percentile(map(Fraction, values), Fraction(p))


def test_percentiles_of_a_table(compute: UsageEvent) -> None:
    """The example of Hyndman and Fan's definition 7 in R: quantile(c(1, 2, 4, 8, 16), type = 7)."""
    at(compute, *((hour, value) for hour, value in enumerate((16, 1, 4, 8, 2))))
    expected = {"0": "1", "25": "2", "30": "2.4", "50": "4", "75": "8", "90": "12.8", "99.5": "15.84", "100": "16"}
    found = {}
    for number, p in enumerate(expected):
        metric = active_metric(
            compute, code=f"p{number}", aggregation="percentile", property="cpu_usage_hours", percentile=Decimal(p)
        )
        found[p] = only(metric)

    assert found == {p: Decimal(value) for p, value in expected.items()}


def test_a_percentile_of_one_value_is_that_value_and_of_none_null(compute: UsageEvent) -> None:
    metric = active_metric(
        compute, code="p", aggregation="percentile", property="cpu_usage_hours", percentile=Decimal(75)
    )
    at(compute, (1, 7), (2, {"region": "no value"}))
    at(compute, (2, {"region": "no value"}), customer="cus_2")

    assert [(row.quantity, row.record_count, row.value_count) for row in ask(metric)] == [(7, 2, 1), (None, 1, 0)]


# --- weighted sums ----------------------------------------------------------------------------------------------------


@pytest.fixture
def weighted(compute: UsageEvent) -> Metric:
    return active_metric(compute, code="weighted", aggregation="weighted_sum", property="cpu_usage_hours")


def test_a_weighted_sum_of_a_table(compute: UsageEvent, weighted: Metric) -> None:
    at(compute, (-30, 5), (-3, 2), (4, 10), (6, 0), (20, 3), (25, 1000))
    rows = ask(weighted, window=Window.HOUR, start=DAY + timedelta(hours=3), end=DAY + timedelta(hours=7))

    assert only(weighted) == 2 * 4 + 10 * 2 + 0 * 14 + 3 * 4
    assert [(row.quantity, row.record_count) for row in rows] == [(2, 0), (10, 1), (10, 0), (0, 1)]
    assert only(weighted, start=DAY + timedelta(hours=5, minutes=30), end=DAY + timedelta(hours=6)) == 5


def test_what_has_no_value_ends_nothing(compute: UsageEvent, weighted: Metric) -> None:
    at(compute, (0, 4), (6, {"region": "eu"}), (12, 1))

    assert [(row.quantity, row.record_count, row.value_count) for row in ask(weighted)] == [(60, 3, 2)]


def test_at_one_moment_the_value_stored_last_is_held(compute: UsageEvent, weighted: Metric) -> None:
    at(compute, (6, 100), (6, 1))
    assert only(weighted) == 18
    fold(compute.pk)
    at(compute, (6, 2))
    assert only(weighted) == 36


def test_at_one_moment_before_the_period_too(compute: UsageEvent, weighted: Metric) -> None:
    at(compute, (-6, 100), (-6, 1))

    assert only(weighted) == 24


def test_each_combination_of_dimensions_holds_its_own_value(compute: UsageEvent) -> None:
    metric = active_metric(
        compute, code="weighted", aggregation="weighted_sum", property="cpu_usage_hours", group_by=["region"]
    )
    at(
        compute,
        (-1, {"region": "eu", "cpu_usage_hours": 1}),
        (0, {"region": "us", "cpu_usage_hours": 10}),
        (12, {"region": "eu", "cpu_usage_hours": 3}),
    )

    by_region = {row.dimensions["region"]: row.quantity for row in ask(metric, group_by=["region"])}
    assert by_region == {"eu": 12 + 36, "us": 240}
    assert only(metric) == 288
    assert only(metric, filter_by={"region": ["us"]}) == 240


def test_who_holds_something_from_before_the_period_is_found(compute: UsageEvent, weighted: Metric) -> None:
    """A correction of the day before gave the value to a customer that has nothing else, and no fold has seen it."""
    at(compute, (-10, 3))
    fold(compute.pk)
    given = UsageRecord.objects.get()
    correct_record(given.pk, customer_id="cus_2", revision=1, reason="hers", actor=Actor(None, "someone"))

    for _ in range(2):
        assert [(row.customer_id, row.quantity, row.record_count) for row in ask(weighted)] == [("cus_2", 72, 0)]
        fold(compute.pk)


def test_nothing_is_held_beyond_the_moment_of_asking(
    compute: UsageEvent, weighted: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(compute, (6, 4), (18, 7))
    stop_the_clock(monkeypatch, DAY + timedelta(hours=8))

    assert only(weighted) == 8
    rows = ask(weighted, window=Window.HOUR, start=DAY + timedelta(hours=5), end=DAY + timedelta(hours=20))
    assert [(row.start.hour, row.quantity, row.record_count) for row in rows] == [(6, 4, 1), (7, 4, 0), (18, None, 1)]


@pytest.mark.parametrize("seed", range(6))
def test_a_weighted_sum_is_the_integral(compute: UsageEvent, weighted: Metric, seed: int) -> None:
    """Sum up the value held, second after second, over periods at any second."""
    chance = random.Random(seed)
    values = [(chance.randrange(-7200, 7200), Decimal(chance.randrange(-50, 100)) / 8) for _ in range(25)]
    at(compute, *((timedelta(seconds=second), value) for second, value in values))
    start, end = sorted(chance.sample(range(-3600, 9000), 2))
    held: Decimal | None = None
    total = None
    # The sort is stable: of one second, the value sent last stays.
    ordered = sorted(values, key=lambda value: value[0])
    for second in range(-7200, end):
        while ordered and ordered[0][0] == second:
            held = ordered.pop(0)[1]
        if second >= start and held is not None:
            total = (total or Decimal(0)) + held
    found = only(weighted, start=DAY + timedelta(seconds=start), end=DAY + timedelta(seconds=end))

    assert found is not None
    assert total is not None
    with localcontext(prec=80):
        assert abs(found - total / 3600) <= abs(total / 3600) * Decimal("1e-33")


# --- unique counts ----------------------------------------------------------------------------------------------------


def test_unique_counts_of_a_table(organisation: Organisation) -> None:
    """1 and 1.0 are one value, "1" and true are others; null, arrays, objects and what is missing are none."""
    schema = {"type": "object", "properties": {"user": {}}}
    usage_event = create_usage_event(organisation, name="Calls", slug="calls", schema=schema)
    metric = active_metric(usage_event, code="users", aggregation="unique_count", property="user")
    users = [1, Decimal("1.0"), "1", True, None, [1], {"a": 1}, "", "ü", "u\u0308", Decimal("1E+1"), 10, False, 0]
    for hour, some in enumerate((users, users[:3], users[2:])):
        values = [(hour, {"user": user}) for user in some] + [(hour, {})]
        at(usage_event, *values)
        fold(usage_event.pk)
        at(usage_event, *values)
        for _ in range(2):
            (row,) = ask(metric)
            assert (row.quantity, row.record_count, row.value_count) == (9, *[(30, 22), (38, 28), (64, 46)][hour])
            fold(usage_event.pk)

    assert [row.quantity for row in ask(metric, window=Window.HOUR)] == [9, 2, 8]
    # How many records have each value: in the first hour 1, 1.0 and 10, 1E+1 are twice two of them.
    distinct = [sorted(state.distinct) for _, state in sorted(stored_aggregates(metric).items())]
    assert distinct == [[2] * 7 + [4, 4], [2, 4], [2] * 7 + [4]]


# --- quotients --------------------------------------------------------------------------------------------------------


def test_an_average_carries_34_digits_more_than_the_sum_has(compute: UsageEvent) -> None:
    metric = active_metric(compute, code="avg", aggregation="avg", property="cpu_usage_hours")
    at(compute, (1, Decimal("12.5")), (2, Decimal("0.25")), (3, Decimal("-2.75")), (4, {"region": "no value"}))
    at(compute, (1, Decimal("0.1")), (2, Decimal("0.1")), (3, Decimal("0.1")), customer="cus_2")
    with localcontext(prec=2 + 34, rounding=ROUND_HALF_EVEN):
        third = Decimal(10) / 3

    found = [(row.quantity, row.record_count, row.value_count) for row in ask(metric)]
    assert found == [(third, 4, 3), (Decimal("0.1"), 3, 3)]
    assert str(third) == "3." + 35 * "3"


def test_an_average_of_equal_values_is_that_value(compute: UsageEvent) -> None:
    metric = active_metric(compute, code="avg", aggregation="avg", property="cpu_usage_hours")
    value = Decimal("1234567890123456789012345678901234567890.123456789012345678901234")
    at(compute, *((hour / 10, value) for hour in range(7)))

    assert only(metric) == value


def test_a_sum_keeps_every_digit_of_the_largest_and_the_smallest(compute: UsageEvent) -> None:
    metric = active_metric(compute, code="sum", aggregation="sum", property="cpu_usage_hours")
    at(compute, (1, Decimal("9e63")), (2, Decimal("1e-60")), (3, Decimal("-9e63")), (4, Decimal("3e-64")))
    assert only(metric) == Decimal("1.0003e-60")
    fold(compute.pk)
    assert only(metric) == Decimal("1.0003e-60")


# --- expressions ------------------------------------------------------------------------------------------------------

EXPRESSIONS = {
    "cpu_usage_hours + 4 * cpu_usage_hours_per_month": "42",
    "(cpu_usage_hours + 4) * cpu_usage_hours_per_month": "60",
    "-cpu_usage_hours - -cpu_usage_hours_per_month": "8",
    "cpu_usage_hours_per_month / cpu_usage_hours / 2": "2.5",
    "cpu_usage_hours_per_month / (cpu_usage_hours - 2)": None,
    "coalesce(cpu_usage_hours / 0, cpu_usage_hours_per_month)": "10",
    "min(cpu_usage_hours, cpu_usage_hours_per_month, 3)": "2",
    "max(cpu_usage_hours, -cpu_usage_hours_per_month) / 3": "0.6666666666666666666666666666666666666667",
    "-cpu_usage_hours / 3": "-0.6666666666666666666666666666666666666667",
    "1 / 3 * 3 + 0 * cpu_usage_hours": "0.9999999999999999999999999999999999999999",
}


def test_expressions_of_a_table(compute: UsageEvent) -> None:
    data = {"cpu_usage_hours": 2, "cpu_usage_hours_per_month": Decimal("10.0")}
    at(compute, (1, data), (2, {"cpu_usage_hours": 2}))
    found, recounted = {}, {}
    for number, text in enumerate(EXPRESSIONS):
        metric = active_metric(
            compute,
            code=f"e{number}",
            aggregation="max",
            expression=text,
            filters={"all": [{"property": "cpu_usage_hours_per_month", "operator": "exists", "value": True}]},
        )
        found[text] = only(metric)
        recounted[text] = evaluate(text, data)

    wanted = {text: value and Decimal(value) for text, value in EXPRESSIONS.items()}
    assert found == wanted
    assert recounted == {text: value if value is None else Fraction(value) for text, value in wanted.items()}


# --- rounding ---------------------------------------------------------------------------------------------------------

# Ties and what is beside them, on both sides of zero.
VALUES = ["5.5", "2.5", "1.6", "1.1", "1.0", "-1.0", "-1.1", "-1.6", "-2.5", "-5.5"]
ROUNDED = {
    "up": [6, 3, 2, 2, 1, -1, -2, -2, -3, -6],
    "down": [5, 2, 1, 1, 1, -1, -1, -1, -2, -5],
    "ceiling": [6, 3, 2, 2, 1, -1, -1, -1, -2, -5],
    "floor": [5, 2, 1, 1, 1, -1, -2, -2, -3, -6],
    "half_up": [6, 3, 2, 1, 1, -1, -1, -2, -3, -6],
    "half_even": [6, 2, 2, 1, 1, -1, -1, -2, -2, -6],
}


@pytest.mark.parametrize("mode", list(ROUNDED))
def test_modes_of_rounding(compute: UsageEvent, mode: str) -> None:
    at(compute, *((hour, Decimal(value)) for hour, value in enumerate(VALUES)))
    found = {}
    for digits in (0, 2):
        metric = active_metric(
            compute,
            code=f"to_{digits}",
            aggregation="latest",
            expression="cpu_usage_hours" if digits == 0 else "cpu_usage_hours / 100",
            rounding_mode=mode,
            rounding_digits=digits,
        )
        found[digits] = [str(row.quantity) for row in ask(metric, window=Window.HOUR)]

    assert found[0] == [str(value) for value in ROUNDED[mode]]
    assert found[2] == [f"{Decimal(value) / 100:.2f}" for value in ROUNDED[mode]]
    assert [int(rounded(Fraction(value), mode, 0)) for value in VALUES] == ROUNDED[mode]


def test_only_the_end_is_rounded(compute: UsageEvent) -> None:
    metric = active_metric(
        compute,
        code="cents",
        aggregation="sum",
        property="cpu_usage_hours",
        group_by=["region"],
        rounding_mode="half_up",
        rounding_digits=0,
    )
    at(compute, *((hour, {"cpu_usage_hours": Decimal("0.4"), "region": "eu"}) for hour in range(3)))
    take_in(compute, {**record(timestamp=DAY.isoformat()), "data": {"cpu_usage_hours": Decimal("0.4")}})

    assert [str(row.quantity) for row in ask(metric, window=Window.HOUR, group_by=["region"])] == ["0", "0", "0", "0"]
    assert {row.dimensions["region"]: str(row.quantity) for row in ask(metric, group_by=["region"])} == {
        None: "0",
        "eu": "1",
    }
    assert str(only(metric)) == "2"
