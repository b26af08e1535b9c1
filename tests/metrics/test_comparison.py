"""Two versions side by side: the same customers and windows, read at one moment."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from typing import Any

import pytest
from django.utils.timezone import now

from metrics import comparison, quantities
from metrics.comparison import Compared, compare
from metrics.definitions import activate_metric, revise_metric, save_metric
from metrics.materialization import build
from metrics.models import Metric
from metrics.periods import PeriodError, Window
from metrics.questions import Question, UnknownCustomer
from tests.conftest import active_metric, record, take_in
from usage.models import UsageEvent

JUNE, JULY, AUGUST = (datetime(2025, month, 1, tzinfo=UTC) for month in (6, 7, 8))
QUESTION = Question(JUNE, AUGUST, Window.MONTH)
IN_JULY = "2025-07-17T14:03:12Z"


def over(hours: int) -> dict[str, Any]:
    return {"filters": {"all": [{"property": "cpu_usage_hours", "operator": "gt", "value": hours}]}}


def shown(rows: list[Compared]) -> list[tuple[str, int, str | None, str | None]]:
    return [(row.customer_id, row.start.month, text(row.old), text(row.new)) for row in rows]


def text(value: Decimal | None) -> str | None:
    return None if value is None else str(value)


def test_both_versions_answer_for_every_customer_and_window(compute: UsageEvent, cpu_hours: Metric) -> None:
    take_in(compute, record("cus_1", hours=5), record("cus_1", hours=1), record("cus_1", IN_JULY, hours=7))
    take_in(compute, record("cus_2", IN_JULY, hours=2))
    draft = revise_metric(cpu_hours, over(4))
    found = compare(cpu_hours, draft, QUESTION)
    assert shown(found.rows) == [("cus_1", 6, "6", "5"), ("cus_1", 7, "7", "7"), ("cus_2", 7, "2", "0")]
    assert shown(found.changed_first) == [("cus_2", 7, "2", "0"), ("cus_1", 6, "6", "5"), ("cus_1", 7, "7", "7")]
    assert [row.difference for row in found.changed_first] == [Decimal(-2), Decimal(-1), Decimal(0)]
    assert (found.changed_count, found.complete, found.total) == (2, True, (Decimal(15), Decimal(12), Decimal(-3)))
    assert found.rows[0].end == JULY


def test_what_has_no_value_differs_from_zero(compute: UsageEvent, cpu_hours: Metric) -> None:
    take_in(compute, record("cus_1", hours=5))
    draft = revise_metric(cpu_hours, {"aggregation": "max", **over(9)})
    found = compare(cpu_hours, draft, QUESTION)
    assert shown(found.rows) == [("cus_1", 6, "5", None)]
    assert (found.rows[0].difference, found.rows[0].changed, found.total) == (None, True, None)


def test_a_difference_is_never_rounded(compute: UsageEvent, cpu_hours: Metric) -> None:
    take_in(compute, record(hours=Decimal("1e60")), record(hours=Decimal("1e-60")))
    draft = revise_metric(cpu_hours, over(1))
    row = compare(cpu_hours, draft, QUESTION).rows[0]
    assert row.difference == Decimal("-1e-60")


def test_the_differences_of_the_largest_numbers_are_exact_too(compute: UsageEvent, cpu_hours: Metric) -> None:
    take_in(compute, record(hours=Decimal("9" * 64)), record(hours=Decimal("1e-64")))
    draft = revise_metric(cpu_hours, {"property": "", "expression": " * ".join(["cpu_usage_hours"] * 8)})
    found = compare(cpu_hours, draft, QUESTION)
    with localcontext(prec=2_000):
        new = Decimal("9" * 64) ** 8 + Decimal("1e-64") ** 8
        assert found.rows[0].difference == new - (Decimal("9" * 64) + Decimal("1e-64"))
    assert found.total is not None


def test_one_formula_gives_one_answer_while_a_value_is_held(compute: UsageEvent) -> None:
    metric = active_metric(compute, code="m", aggregation="weighted_sum", property="cpu_usage_hours")
    take_in(compute, record(hours=5))
    draft = revise_metric(metric, {"property": "", "expression": "cpu_usage_hours + 0"})
    found = compare(metric, draft, Question(JUNE, now() + timedelta(days=1)))
    assert (found.changed_count, len(found.rows)) == (0, 1)
    assert found.total == (found.rows[0].old, found.rows[0].new, Decimal(0))


def test_many_customers_with_many_windows_are_cut_off_and_not_refused(
    compute: UsageEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    region = {"property": "region", "operator": "eq"}
    of_eu = {"filters": {"all": [{**region, "value": "eu"}]}}
    metric = active_metric(compute, code="m", aggregation="count", **of_eu)
    for n in range(10):
        data = {"region": "eu" if n % 2 else "us"}
        take_in(compute, {"customer_id": f"cus_{n}", "timestamp": "2025-06-17T14:03:12Z", "data": data})
    draft = revise_metric(metric, {"filters": {"all": [{**region, "value": "us"}]}})
    for module in (quantities, comparison):
        monkeypatch.setattr(module, "MAX_ROWS", 61 * 4)

    found = compare(metric, draft, replace(QUESTION, window=Window.DAY))

    assert not found.complete
    assert {row.customer_id for row in found.rows} == {"cus_1", "cus_3", "cus_5", "cus_7"}


def test_named_customers_only(compute: UsageEvent, cpu_hours: Metric) -> None:
    take_in(compute, record("cus_1"), record("cus_2"))
    draft = revise_metric(cpu_hours, over(0))
    question = Question(JUNE, AUGUST, Window.MONTH, customer_ids=["cus_2"])
    assert shown(compare(cpu_hours, draft, question).rows) == [("cus_2", 6, "1", "1")]
    with pytest.raises(UnknownCustomer):
        compare(cpu_hours, draft, Question(JUNE, AUGUST, customer_ids=["cus_9"]))
    with pytest.raises(PeriodError):
        compare(cpu_hours, draft, Question(AUGUST, JUNE))


def test_dimensions_are_summed_up(compute: UsageEvent, cpu_hours: Metric) -> None:
    take_in(compute, *({**record(hours=2), "data": {"cpu_usage_hours": 2, "region": region}} for region in "ab"))
    draft = revise_metric(cpu_hours, {"group_by": ["region"]})
    assert shown(compare(cpu_hours, draft, QUESTION).rows) == [("cus_1", 6, "4", "4")]


def test_of_too_many_customers_the_first_are_compared_in_both(
    compute: UsageEvent, cpu_hours: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cus_1 has no usage of the new version, cus_3 is on the new one's first page only: both are asked of both."""
    take_in(compute, record("cus_1", hours=1), record("cus_2", hours=5), record("cus_3", hours=6))
    draft = revise_metric(cpu_hours, over(4))
    monkeypatch.setattr(comparison, "MAX_CUSTOMERS", 2)
    found = compare(cpu_hours, draft, QUESTION)
    assert not found.complete
    assert shown(found.rows) == [("cus_1", 6, "1", "0"), ("cus_2", 6, "5", "5")]


def test_two_retired_or_drafted_versions_can_be_compared(compute: UsageEvent) -> None:
    old = active_metric(compute, code="c", aggregation="count")
    draft = revise_metric(old, {"aggregation": "sum", "property": "cpu_usage_hours"})
    take_in(compute, record(hours=3))
    Metric.objects.filter(pk=old.pk).update(status=Metric.Status.RETIRED)
    old.refresh_from_db()
    assert shown(compare(old, draft, QUESTION).rows) == [("cus_1", 6, "1", "3")]


def test_a_version_that_was_retired_meanwhile_is_not_mistaken_for_its_successor(
    compute: UsageEvent, cpu_hours: Metric
) -> None:
    take_in(compute, record(hours=3))
    draft = revise_metric(cpu_hours, over(4))
    activate_metric(draft.pk)
    assert build(draft.pk)
    seen_as_active = cpu_hours
    draft.refresh_from_db()
    assert seen_as_active.status == "active"
    assert shown(compare(seen_as_active, draft, QUESTION).rows) == [("cus_1", 6, "3", "0")]


def test_versions_in_sql_are_compared_too(compute: UsageEvent) -> None:
    text = (
        "select customer_id, sum(cpu_usage_hours) as quantity from compute_hours"
        " where timestamp >= {{start_date}} and timestamp < {{end_date}} group by 1"
    )
    names = {"organisation": compute.organisation, "code": "hours", "name": "Hours"}
    old = save_metric(Metric(**names, sql=text, sql_window="month"))
    activate_metric(old.pk)
    old.refresh_from_db()
    draft = revise_metric(old, {"sql": text.replace("sum(", "max(")})
    take_in(compute, record(hours=2), record(hours=5), record("cus_2", hours=1))
    found = compare(old, draft, QUESTION)
    assert shown(found.rows) == [("cus_1", 6, "7", "5"), ("cus_2", 6, "1", "1")]
    assert found.total is None
