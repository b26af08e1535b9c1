"""Metrics in the admin: drafted with a property of the schema, activated, published for ever, asked for quantities."""

import re
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from customers.models import Organisation
from metrics.admin import exact_total
from metrics.materialization import build, fold
from metrics.models import Aggregation, Metric
from tests.conftest import active_metric, record, take_in
from tests.people import HOSTILE, staff_of
from usage.definitions import create_usage_event
from usage.models import UsageEvent

ADD = "/admin/metrics/metric/add/"
LIST = "/admin/metrics/metric/"
QUANTITIES = "/admin/metrics/metric/quantities/"


@pytest.fixture
def staff(organisation: Organisation) -> Client:
    return staff_of(organisation)


def add(client: Client, usage_event: UsageEvent, /, **fields: Any) -> Any:
    values = {
        "usage_event": usage_event.pk,
        "name": "CPU hours",
        "code": "",
        "aggregation": "sum",
        "property": f"{usage_event.pk}/cpu_usage_hours",
        "unit": "hours",
        **fields,
    }
    return client.post(ADD, values)


def errors(response: Any) -> dict[str, list[str]]:
    assert response.status_code == 200
    return dict(response.context["form"].errors)


def page_of(metric: Metric) -> str:
    return reverse("admin:metrics_metric_change", args=[metric.pk])


def test_only_numeric_properties_are_offered(staff: Client, compute: UsageEvent) -> None:
    choices = dict(staff.get(ADD).context["form"].fields["property"].choices)
    names = [name for _, name in choices["Compute hours"]]
    assert sorted(names) == ["cpu_usage_hours", "cpu_usage_hours_per_month"]


def test_a_draft_is_added_activated_and_built(staff: Client, compute: UsageEvent) -> None:
    add(staff, compute)
    metric = Metric.objects.get()
    assert (metric.code, metric.property, metric.status) == ("cpu_hours", "cpu_usage_hours", "draft")
    assert "Activate" in staff.get(page_of(metric)).content.decode()

    activate = reverse("admin:metrics_metric_activate", args=[metric.pk])
    assert staff.get(activate).status_code == 403
    staff.post(activate)
    metric.refresh_from_db()
    assert metric.status == "building"
    assert "Building from history" in staff.get(page_of(metric)).content.decode()

    assert build(metric.pk)
    page = staff.get(page_of(metric)).content.decode()
    assert "Sum of cpu_usage_hours" in page
    assert 'name="property"' not in page
    again = staff.post(activate, follow=True).content.decode()
    assert "only a draft can be activated" in again


def test_a_count_takes_no_property(staff: Client, compute: UsageEvent) -> None:
    add(staff, compute, aggregation="count")
    metric = Metric.objects.get()
    assert (metric.aggregation, metric.property) == ("count", "")


def test_mistakes_are_told_at_their_fields(staff: Client, compute: UsageEvent) -> None:
    other = create_usage_event(compute.organisation, name="Other", slug="other", schema=compute.schema)
    assert errors(add(staff, compute, property="")) == {"property": ["Choose the number that is added up."]}
    foreign = errors(add(staff, compute, property=f"{other.pk}/cpu_usage_hours"))
    assert foreign == {"property": ["This property is not one of “Compute hours”."]}
    assert list(errors(add(staff, compute, property=f"{compute.pk}/region"))) == ["property"]
    assert list(errors(add(staff, compute, code="with space"))) == ["code"]
    assert list(errors(add(staff, compute, code="x" * 100_000))) == ["code"]
    assert list(errors(add(staff, compute, name="量"))) == ["code"]
    assert list(errors(add(staff, compute, usage_event=""))) == ["usage_event"]
    assert not Metric.objects.exists()
    add(staff, compute)
    assert errors(add(staff, compute)) == {"code": ["A metric with this code exists already."]}


def test_nothing_that_can_be_typed_is_a_fault(staff: Client, compute: UsageEvent) -> None:
    for field in ("usage_event", "name", "code", "aggregation", "property", "unit"):
        for value in HOSTILE:
            assert add(staff, compute, **{field: value}).status_code in (200, 302), (field, value[:20])


def test_a_draft_may_change_a_published_formula_may_not(staff: Client, compute: UsageEvent) -> None:
    add(staff, compute)
    metric = Metric.objects.get()
    changed = {
        "usage_event": compute.pk,
        "name": "Renamed",
        "code": "renamed",
        "aggregation": "count",
        "unit": "records",
    }
    assert staff.post(page_of(metric), changed).status_code == 302
    metric.refresh_from_db()
    assert (metric.code, metric.aggregation, metric.property) == ("renamed", "count", "")

    staff.post(LIST, {"action": "activate", "_selected_action": [metric.pk]})
    assert build(metric.pk)
    published = {"name": "Published", "unit": "u", "code": "other", "aggregation": "sum", "property": "cpu_usage_hours"}
    assert staff.post(page_of(metric), published).status_code == 302
    metric.refresh_from_db()
    assert (metric.name, metric.unit, metric.code, metric.aggregation) == ("Published", "u", "renamed", "count")


# --- quantities ------------------------------------------------------------------------------------------------------


def ask(client: Client, metric: Metric, /, **question: Any) -> Any:
    june = {"metric": metric.pk, "start": "2025-06-01", "end": "2025-07-01", "window": "total", "timezone": "UTC"}
    return client.get(QUANTITIES, {**june, **question})


def rows(response: Any) -> list[tuple[str, str, int]]:
    assert response.status_code == 200
    shown = [row["quantity"] for row in response.context["rows"]]
    return [(row.customer_id, format(row.quantity, "f"), row.record_count) for row in shown]


def test_quantities_are_exact_with_the_records_behind_them(
    staff: Client, compute: UsageEvent, cpu_hours: Metric
) -> None:
    tiny, huge = Decimal("0.0000000000000000000000000000001"), Decimal("9" * 30)
    take_in(compute, record("cus_1", hours=huge), record("cus_1", hours=tiny), record("cus_2", hours=2))
    response = ask(staff, cpu_hours)
    assert rows(response) == [("cus_1", f"{'9' * 30}.{'0' * 30}1", 2), ("cus_2", "2", 1)]
    total = f"1{'0' * 29}1.{'0' * 30}1"
    assert f'data-total="{total}"' in response.content.decode()

    behind = response.context["rows"][0]["records_url"]
    found = staff.get(behind).context["cl"].result_list
    assert sorted(stored.data["cpu_usage_hours"] for stored in found) == [tiny, huge]
    fold(compute.pk)
    assert rows(ask(staff, cpu_hours)) == rows(response)


def test_customers_can_be_named_a_line_each(staff: Client, compute: UsageEvent, cpu_hours: Metric) -> None:
    take_in(compute, *(record(f"cus_{i}", hours=i) for i in range(1, 4)))
    assert rows(ask(staff, cpu_hours, customer_id="cus_3\r\n\r\ncus_1\r\ncus_3")) == [
        ("cus_3", "3", 1),
        ("cus_1", "1", 1),
    ]
    assert rows(ask(staff, cpu_hours, customer_id=["cus_2", "cus_1"])) == [("cus_2", "2", 1), ("cus_1", "1", 1)]
    unknown = ask(staff, cpu_hours, customer_id="cus_1\ncus_9")
    assert errors(unknown) == {"customer_id": ["There is no customer “cus_9”."]}


def test_windows_and_zones_cut_the_period(staff: Client, compute: UsageEvent, cpu_hours: Metric) -> None:
    take_in(compute, record(timestamp="2025-06-01T18:29:59Z"), record(timestamp="2025-06-01T18:30:00Z", hours=2))
    response = ask(staff, cpu_hours, window="day", timezone="Asia/Kolkata")
    assert rows(response) == [("cus_1", "1", 1), ("cus_1", "2", 1)]
    assert "2025-06-02" in response.content.decode()


def test_the_period_begins_as_the_organisations_month(staff: Client, cpu_hours: Metric) -> None:
    Organisation.objects.update(timezone="Pacific/Kiritimati")
    response = staff.get(QUANTITIES, {"metric": cpu_hours.pk})
    today = timezone.now().astimezone(response.context["question"].zone)
    assert response.context["form"]["start"].value() == today.strftime("%Y-%m-01")
    assert response.context["question"].zone.key == "Pacific/Kiritimati"
    assert "No usage in this period" in response.content.decode()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("start", "", "required"),
        ("start", "yesterday", "Enter a valid date"),
        ("start", "0001-01-01", "2000 to 2100"),
        ("end", "9999-12-31", "2000 to 2100"),
        ("end", "2025-06-01", "The end must be after the start"),
        ("window", "year", "valid choice"),
        ("timezone", "Mars/Base", "valid choice"),
        ("timezone", "../../etc/passwd", "valid choice"),
        ("customer_id", "a\0b", "Null characters"),
        ("after", "x", "whole number"),
    ],
)
def test_what_cannot_be_asked_is_told_at_its_field(
    staff: Client, cpu_hours: Metric, field: str, value: str, message: str
) -> None:
    found = errors(ask(staff, cpu_hours, **{field: value}))
    assert list(found) == [field]
    assert message in found[field][0]


def test_too_many_windows_are_told_at_the_end(staff: Client, cpu_hours: Metric) -> None:
    found = errors(ask(staff, cpu_hours, start="2000-01-01", end="2100-01-01", window="hour"))
    assert "At most 10000 windows" in found["end"][0]


def test_no_question_is_a_fault(staff: Client, cpu_hours: Metric) -> None:
    for field in ("metric", "start", "end", "window", "timezone", "customer_id", "after"):
        for value in HOSTILE:
            assert ask(staff, cpu_hours, **{field: value[:5_000]}).status_code == 200, (field, value[:20])


def test_a_metric_that_is_not_active_explains_itself(staff: Client, compute: UsageEvent) -> None:
    add(staff, compute)
    assert "Not active yet" in ask(staff, Metric.objects.get()).content.decode()
    staff.post(LIST, {"action": "activate", "_selected_action": [Metric.objects.get().pk]})
    assert "Still building" in ask(staff, Metric.objects.get()).content.decode()
    assert "Choose a metric" in staff.get(QUANTITIES).content.decode()


def test_customers_come_in_pages(staff: Client, compute: UsageEvent) -> None:
    calls = active_metric(compute, code="calls", aggregation=Aggregation.COUNT)
    take_in(compute, *(record(f"cus_{i:03}") for i in range(130)))
    first = ask(staff, calls)
    assert len(rows(first)) == 100
    assert "Total of this page" in re.sub(r"\s+", " ", first.content.decode())
    second = staff.get(QUANTITIES + first.context["next_url"])
    assert rows(first) + rows(second) == [(f"cus_{i:03}", "1", 1) for i in range(130)]
    assert second.context["next_url"] == ""


def test_a_total_is_never_rounded() -> None:
    assert exact_total([Decimal("1e64"), None, Decimal("1e-64")]) == Decimal("1" + "0" * 64 + "." + "0" * 63 + "1")
