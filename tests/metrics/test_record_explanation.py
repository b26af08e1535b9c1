"""What metrics make of one record: counted with what value and where, or not and why."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from customers.models import Organisation
from metrics.definitions import activate_metric, revise_metric, save_metric
from metrics.materialization import build, fold
from metrics.models import Metric
from metrics.record_explanation import MetricOfRecord, UnknownRecord, explain_record
from tests.conftest import active_metric, record, take_in
from usage.corrections import Actor, correct_record, void_records
from usage.models import UsageEvent, UsageRecord

ACTOR = Actor(None, "someone")
EU = {"property": "region", "operator": "starts_with", "value": "eu"}
BIG = {"property": "cpu_usage_hours", "operator": "gte", "value": 5}
ODD = {"property": "region", "operator": "in", "value": ["us", "asia"]}


def of_record(usage_event: UsageEvent, stored: UsageRecord) -> dict[str, MetricOfRecord]:
    """Return what each metric makes of the record, by code and version."""
    found = explain_record(usage_event.organisation_id, stored.pk)
    assert found.record.id == stored.pk
    return {f"{one.metric.code}.{one.metric.version}": one for one in found.metrics}


def newest() -> UsageRecord:
    return UsageRecord.objects.latest("id")


def test_each_metric_tells_what_it_makes_of_a_record(compute: UsageEvent) -> None:
    active_metric(compute, code="hours", aggregation="sum", property="cpu_usage_hours", group_by=["region"])
    active_metric(compute, code="monthly", aggregation="sum", property="cpu_usage_hours_per_month")
    active_metric(compute, code="eu", aggregation="count", filters={"all": [EU]})
    active_metric(compute, code="regions", aggregation="unique_count", property="region")
    active_metric(compute, code="p50", aggregation="percentile", property="cpu_usage_hours", percentile=Decimal(50))
    take_in(compute, record(hours=Decimal("4.50")))
    data = {"cpu_usage_hours": Decimal("4.50"), "region": "us"}
    take_in(compute, {**record(), "data": data})

    found = of_record(compute, newest())

    told = {code: (one.reason, one.value, one.dimensions, str(one.source)) for code, one in found.items()}
    assert told == {
        "eu.1": ("filtered_out", "1", {}, "pending"),
        "hours.1": (None, "4.50", {"region": "us"}, "pending"),
        "monthly.1": ("no_value", None, {}, "pending"),
        "p50.1": (None, "4.50", {}, "records"),
        "regions.1": (None, '"us"', {}, "pending"),
    }
    assert found["eu.1"].condition == "region starts with “eu”"
    assert {one.condition for code, one in found.items() if code != "eu.1"} == {""}
    hour = datetime(2025, 6, 17, 14, tzinfo=UTC)
    assert {(one.window_start, one.window_end) for one in found.values()} == {(hour, hour.replace(hour=15))}


def test_where_the_hour_is_read_changes_with_the_folds(compute: UsageEvent, cpu_hours: Metric) -> None:
    take_in(compute, record())
    stored = newest()

    def source() -> str:
        return str(of_record(compute, stored)["cpu_hours.1"].source)

    assert source() == "pending"
    fold(compute.pk)
    assert source() == "aggregates"
    take_in(compute, record(customer="cus_2"))
    correct_record(newest().pk, data={"cpu_usage_hours": 2}, revision=1, reason="r", actor=ACTOR)
    assert source() == "aggregates"
    take_in(compute, record())
    assert source() == "aggregates"
    correct_record(stored.pk, data={"cpu_usage_hours": 2}, revision=1, reason="r", actor=ACTOR)
    assert source() == "changed"
    fold(compute.pk)
    assert source() == "aggregates"


def test_a_voided_record_is_nobodys(compute: UsageEvent, cpu_hours: Metric) -> None:
    active_metric(compute, code="eu", aggregation="count", filters={"all": [EU]})
    take_in(compute, record(hours=3))
    void_records(compute.pk, [newest().pk], reason="r", actor=ACTOR)

    found = of_record(compute, newest())

    assert [(one.reason, one.value, one.condition) for one in found.values()] == [
        ("voided", "3", ""),
        ("voided", "1", ""),
    ]


CONDITIONS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"all": [EU, BIG]}, {"region": "us", "cpu_usage_hours": 1}, "region starts with “eu”"),
    ({"all": [EU, BIG]}, {"region": "eu", "cpu_usage_hours": 1}, "cpu_usage_hours ≥ 5"),
    ({"all": [EU, {"all": [BIG]}]}, {"region": "eu", "cpu_usage_hours": 1}, "cpu_usage_hours ≥ 5"),
    ({"any": [EU, BIG]}, {"cpu_usage_hours": 1}, "region starts with “eu” or cpu_usage_hours ≥ 5"),
    (
        {"all": [BIG, {"any": [EU, ODD]}]},
        {"region": "x", "cpu_usage_hours": 9},
        "region starts with “eu” or region is one of “us”, “asia”",
    ),
    ({"any": [{"all": [EU, BIG]}]}, {}, "region starts with “eu” and cpu_usage_hours ≥ 5"),
]


@pytest.mark.parametrize(("filters", "data", "words"), CONDITIONS)
def test_the_condition_that_fails_is_told_in_words(
    compute: UsageEvent, filters: dict[str, Any], data: dict[str, Any], words: str
) -> None:
    active_metric(compute, code="m", aggregation="count", filters=filters)
    take_in(compute, {**record(), "data": data})

    (one,) = of_record(compute, newest()).values()

    assert (one.reason, one.condition) == ("filtered_out", words)


def test_a_version_that_is_being_built_has_come_so_far(
    compute: UsageEvent, cpu_hours: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_in(compute, *(record(f"cus_{n}", timestamp="2025-06-17T14:03:12Z") for n in range(3)))
    fold(compute.pk)
    draft = revise_metric(cpu_hours, {"filters": {"all": [BIG]}})
    activate_metric(draft.pk)
    records = list(UsageRecord.objects.order_by("customer_id"))
    correct_record(records[2].pk, data={"cpu_usage_hours": 5}, revision=1, reason="r", actor=ACTOR)
    records[2].refresh_from_db()

    def told() -> list[tuple[str | None, Any]]:
        return [
            (of_record(compute, one)["cpu_hours.2"].reason, of_record(compute, one)["cpu_hours.2"].source)
            for one in records
        ]

    assert told() == [("filtered_out", None), ("filtered_out", None), ("not_built_yet", None)]
    assert [of_record(compute, one)["cpu_hours.1"].reason for one in records] == [None, None, None]
    Metric.objects.filter(pk=draft.pk).update(built_customer_id=records[2].customer_id + 1)
    assert told()[2] == (None, None)
    Metric.objects.filter(pk=draft.pk).update(built_customer_id=records[2].customer_id)
    Metric.objects.filter(pk=draft.pk).update(built_window_start=datetime(2025, 6, 17, 14, tzinfo=UTC))
    assert told()[2] == ("not_built_yet", None)
    Metric.objects.filter(pk=draft.pk).update(built_window_start=datetime(2025, 6, 17, 15, tzinfo=UTC))
    assert told()[2] == (None, None)


def test_drafts_and_retired_versions_are_left_out(compute: UsageEvent, cpu_hours: Metric) -> None:
    take_in(compute, record())
    draft = revise_metric(cpu_hours, {"filters": {"all": [BIG]}})
    save_metric(Metric(organisation=compute.organisation, usage_event=compute, code="d", name="D", aggregation="count"))
    assert list(of_record(compute, newest())) == ["cpu_hours.1"]

    activate_metric(draft.pk)
    assert build(draft.pk)

    assert list(of_record(compute, newest())) == ["cpu_hours.2"]


def test_a_record_of_another_organisation_is_unknown(compute: UsageEvent, cpu_hours: Metric) -> None:
    take_in(compute, record())
    other = Organisation.objects.create(name="Other")
    for organisation_id, record_id in ((other.pk, newest().pk), (compute.organisation_id, newest().pk + 1)):
        with pytest.raises(UnknownRecord):
            explain_record(organisation_id, record_id)
