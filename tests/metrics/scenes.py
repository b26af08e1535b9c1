"""A usage event with a metric of each kind, for tests of what happens at the same time and of what breaks."""

from collections.abc import Iterable
from typing import Any

from metrics.models import Metric
from metrics.quantities import quantities_in
from metrics.questions import Question
from metrics.snapshots import snapshot
from tests.conftest import active_metric
from tests.metrics.comparing import answered_rows, assert_answer
from tests.metrics.counting import expected_aggregates, expected_answer, stored_aggregates
from usage.models import ChangedWindow, PendingBatch, UsageEvent

FORMULAS: dict[str, dict[str, Any]] = {
    "hours": {"aggregation": "sum", "property": "cpu_usage_hours"},
    "eu_hours": {
        "aggregation": "sum",
        "expression": "cpu_usage_hours * 2 - coalesce(cpu_usage_hours_per_month, 1)",
        "filters": {"any": [{"property": "region", "operator": "starts_with", "value": "eu"}]},
        "group_by": ["region"],
    },
    "amounts": {"aggregation": "unique_count", "property": "cpu_usage_hours", "group_by": ["region"]},
    "last": {"aggregation": "latest", "property": "cpu_usage_hours"},
    "median": {"aggregation": "percentile", "property": "cpu_usage_hours", "percentile": 50, "group_by": ["region"]},
}
REGIONS = ["eu", "eu-2", "us", None]


def metrics_of_each_kind(usage_event: UsageEvent, codes: Iterable[str] = FORMULAS) -> list[Metric]:
    """Put the formulas in force, each under its code."""
    return [active_metric(usage_event, code=code, **FORMULAS[code]) for code in codes]


def assert_answers(usage_event: UsageEvent, codes: list[str], question: Question) -> int:
    """Ask for each code by all its dimensions and compare with the recount in the same snapshot; returns the rows."""
    rows = 0
    for code in codes:
        with snapshot() as cursor:
            metric = Metric.objects.get(organisation=usage_event.organisation, code=code, status="active")
            asked = Question(**{**_fields(question), "group_by": metric.group_by})
            answer = quantities_in(cursor, usage_event.organisation_id, code, asked)
            assert answer.metric == metric
            found = answered_rows([answer])
            assert_answer(found, expected_answer(metric, asked, answer.as_of))
            rows += len(found)
    return rows


def assert_settled(usage_event: UsageEvent) -> None:
    """Fail unless nothing is pending and every stored hour of every metric in force is the recount."""
    assert not PendingBatch.objects.filter(usage_event=usage_event).exists()
    assert not ChangedWindow.objects.filter(usage_event=usage_event).exists()
    for metric in Metric.objects.filter(usage_event=usage_event, status="active"):
        assert stored_aggregates(metric) == expected_aggregates(metric), metric.code


def _fields(question: Question) -> dict[str, Any]:
    return {name: getattr(question, name) for name in question.__dataclass_fields__}
