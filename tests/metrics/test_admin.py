"""Metrics in the admin: drafted, activated, published for ever, revised as versions that are compared first."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from customers.models import Customer, Organisation
from metrics.admin import versions
from metrics.definitions import activate_metric, revise_metric
from metrics.materialization import build
from metrics.models import Metric
from metrics.questions import TookTooLong
from tests.conftest import record, take_in
from tests.people import HOSTILE, staff_of
from usage.definitions import create_usage_event
from usage.models import UsageEvent

ADD = "/admin/metrics/metric/add/"
LIST = "/admin/metrics/metric/"
FEW = {"all": [{"property": "cpu_usage_hours", "operator": "gt", "value": 4}]}
SUMMER = {"start": "2025-06-01", "end": "2025-08-01"}


@pytest.fixture
def staff(organisation: Organisation) -> Client:
    return staff_of(organisation)


@pytest.fixture
def draft(cpu_hours: Metric) -> Metric:
    """The second version of `cpu_hours`, which counts less."""
    return revise_metric(cpu_hours, {"filters": FEW})


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


def page_of(metric: Metric, name: str = "change") -> str:
    return reverse(f"admin:metrics_metric_{name}", args=[metric.pk])


def text_of(response: Any) -> str:
    assert response.status_code == 200
    return str(response.content.decode())


def test_a_draft_is_added_activated_and_built(staff: Client, compute: UsageEvent) -> None:
    add(staff, compute)
    metric = Metric.objects.get()
    assert (metric.code, metric.property, metric.status) == ("cpu_hours", "cpu_usage_hours", "draft")
    assert "Activate" in text_of(staff.get(page_of(metric)))

    activate = page_of(metric, "activate")
    assert staff.get(activate).status_code == 405
    staff.post(activate)
    metric.refresh_from_db()
    assert metric.status == "building"
    assert "Building from history" in text_of(staff.get(page_of(metric)))

    assert build(metric.pk)
    page = text_of(staff.get(page_of(metric)))
    assert "Sum of cpu_usage_hours" in page
    assert 'name="property"' not in page
    again = staff.post(activate, follow=True).content.decode()
    assert "only a draft can be activated" in again


def test_mistakes_are_told_at_their_fields(staff: Client, compute: UsageEvent) -> None:
    other = create_usage_event(compute.organisation, name="Other", slug="other", schema=compute.schema)
    foreign = errors(add(staff, compute, property=f"{other.pk}/cpu_usage_hours"))
    assert foreign == {"property": ["This property is not one of “Compute hours”."]}
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
    late = staff.post(page_of(metric), {**changed, "name": "Late", "aggregation": "sum"}, follow=True)
    assert "Nothing was saved: this version was activated meanwhile" in late.content.decode()
    published = {"name": "Published", "unit": "u", "code": "other"}
    assert staff.post(page_of(metric), published).status_code == 302
    metric.refresh_from_db()
    assert (metric.name, metric.unit, metric.code, metric.aggregation) == ("Published", "u", "renamed", "count")


def test_what_is_refused_does_not_show_as_if_it_were_so(staff: Client, compute: UsageEvent) -> None:
    add(staff, compute)
    add(staff, compute, name="Second")
    second = Metric.objects.get(code="second")
    changed = {"usage_event": compute.pk, "name": "Third", "code": "cpu_hours", "aggregation": "count"}
    response = staff.post(page_of(second), changed)
    assert list(errors(response)) == ["code"]
    assert response.context["title"] == "Second"


def test_the_list_tells_each_formula_in_words(staff: Client, draft: Metric) -> None:
    page = text_of(staff.get(LIST))
    assert "Sum of cpu_usage_hours, where cpu_usage_hours &gt; 4" in page
    assert "Compute hours" in page


# --- building --------------------------------------------------------------------------------------------------------


def test_a_build_tells_how_far_it_has_come(
    staff: Client, compute: UsageEvent, cpu_hours: Metric, draft: Metric
) -> None:
    take_in(compute, *(record(f"cus_{i}") for i in range(4)))
    activate_metric(draft.pk)
    progress = page_of(draft, "progress")
    assert staff.get(progress).json() == {"building": True, "percent": 0}
    third = Customer.objects.order_by("pk")[2]
    Metric.objects.filter(pk=draft.pk).update(built_customer_id=third.pk)
    assert staff.get(progress).json() == {"building": True, "percent": 50}
    page = text_of(staff.get(page_of(draft)))
    assert 'aria-valuenow="50"' in page
    assert "Version 1 keeps answering" in page

    assert build(draft.pk)
    assert staff.get(progress).json() == {"building": False, "percent": 100}
    assert staff.get(page_of(cpu_hours, "progress")).json() == {"building": False, "percent": 100}
    assert "version 2 is in force" in text_of(staff.get(page_of(cpu_hours)))


# --- versions --------------------------------------------------------------------------------------------------------


def revised(client: Client, metric: Metric, /, **fields: Any) -> Any:
    values = {
        "usage_event": metric.usage_event_id,
        "name": metric.name,
        "aggregation": "sum",
        "property": f"{metric.usage_event_id}/cpu_usage_hours",
        **fields,
    }
    return client.post(page_of(metric, "new_version"), values)


def test_a_new_version_is_a_draft_beside_the_one_in_force(staff: Client, cpu_hours: Metric) -> None:
    page = staff.get(page_of(cpu_hours, "new_version"))
    assert page.context["form"]["property"].value() == f"{cpu_hours.usage_event_id}/cpu_usage_hours"
    assert "code" not in page.context["form"].fields
    response = revised(staff, cpu_hours, rounding_mode="up", rounding_digits="0", code="other")
    second = Metric.objects.get(version=2)
    assert response["Location"] == page_of(second)
    assert (second.code, second.status, second.rounding_mode) == ("cpu_hours", "draft", "up")
    cpu_hours.refresh_from_db()
    assert (cpu_hours.status, cpu_hours.rounding_mode) == ("active", "")
    shown = text_of(staff.get(page_of(second)))
    assert "Compare and activate" in shown
    assert page_of(second, "compare") in shown


def test_a_version_in_preparation_is_gone_on_with(staff: Client, cpu_hours: Metric, draft: Metric) -> None:
    response = staff.get(page_of(cpu_hours, "new_version"))
    assert (response.status_code, response["Location"]) == (302, page_of(draft))
    assert staff.get(page_of(draft, "new_version"))["Location"] == page_of(draft)
    assert revised(staff, cpu_hours, aggregation="count")["Location"] == page_of(draft)
    draft.refresh_from_db()
    assert (draft.aggregation, draft.filters) == ("sum", FEW)
    assert Metric.objects.count() == 2


def test_the_same_formula_makes_no_version(staff: Client, cpu_hours: Metric) -> None:
    response = revised(staff, cpu_hours, name="Renamed")
    assert response["Location"] == page_of(cpu_hours)
    cpu_hours.refresh_from_db()
    assert (cpu_hours.name, Metric.objects.count()) == ("Renamed", 1)


def test_an_earlier_formula_comes_back_as_a_new_version(staff: Client, cpu_hours: Metric, draft: Metric) -> None:
    activate_metric(draft.pk)
    assert build(draft.pk)
    cpu_hours.refresh_from_db()
    assert revised(staff, cpu_hours)["Location"] == page_of(Metric.objects.get(version=3))
    assert list(Metric.objects.order_by("version").values_list("version", "status", "filters")) == [
        (1, "retired", {}),
        (2, "active", FEW),
        (3, "draft", {}),
    ]


def test_a_version_says_what_is_wrong_with_it(staff: Client, cpu_hours: Metric) -> None:
    assert list(errors(revised(staff, cpu_hours, property=""))) == ["property"]
    assert Metric.objects.count() == 1


def test_versions_are_listed_the_newest_first(staff: Client, cpu_hours: Metric, draft: Metric) -> None:
    for metric in (cpu_hours, draft):
        lines = staff.get(page_of(metric)).context["versions"]
        assert [(line.metric.version, line.words, line.shown) for line in lines] == [
            (2, "Sum of cpu_usage_hours, where cpu_usage_hours > 4", metric == draft),
            (1, "Sum of cpu_usage_hours", metric == cpu_hours),
        ]


def test_two_versions_are_compared_before_the_button_that_activates(
    staff: Client, compute: UsageEvent, draft: Metric
) -> None:
    take_in(compute, record("cus_1", hours=5), record("cus_2", hours=3), record("cus_3", hours=8))
    response = staff.get(page_of(draft, "compare"), SUMMER)
    page = text_of(response)
    assert [(change.part, change.after) for change in response.context["changes"]] == [
        ("Which records count", "cpu_usage_hours > 4")
    ]
    rows = [(row.customer_id, str(row.old), str(row.new)) for row in response.context["rows"]]
    assert rows == [("cus_2", "3", "0"), ("cus_1", "5", "5"), ("cus_3", "8", "8")]
    assert "1 of 3 quantities change" in page
    assert page.index("1 of 3 quantities change") < page.index("Activate version 2")


def test_an_earlier_version_is_compared_with_the_one_in_force(staff: Client, cpu_hours: Metric, draft: Metric) -> None:
    activate_metric(draft.pk)
    assert build(draft.pk)
    third = revise_metric(draft, {"aggregation": "count", "property": ""})
    compared = staff.get(page_of(third, "compare")).context
    assert (compared["old"].version, [one.version for one in compared["others"]]) == (2, [2, 1])
    assert staff.get(page_of(third, "compare"), {"with": "1"}).context["old"].version == 1
    assert staff.get(page_of(cpu_hours, "compare")).context["old"].version == 2
    assert staff.get(page_of(draft, "compare")).context["old"].version == 1


def test_one_version_alone_has_nothing_to_be_compared_with(staff: Client, cpu_hours: Metric) -> None:
    assert "one version only" in text_of(staff.get(page_of(cpu_hours, "compare")))


def test_what_cannot_be_compared_is_told_at_its_field(
    staff: Client, draft: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = page_of(draft, "compare")
    assert list(errors(staff.get(page, {**SUMMER, "end": "2025-01-01"}))) == ["end"]
    assert errors(staff.get(page, {**SUMMER, "customer_id": "cus_9"})) == {
        "customer_id": ["There is no customer “cus_9”."]
    }
    for field in ("with", "start", "end", "window", "customer_id"):
        for value in HOSTILE:
            assert staff.get(page, {**SUMMER, field: value[:5_000]}).status_code == 200, (field, value[:20])

    def late(*_: Any) -> None:
        raise TookTooLong(10)

    monkeypatch.setattr(versions, "compare", late)
    assert "takes longer than 10 s" in text_of(staff.get(page, SUMMER))


def test_pages_about_versions_are_the_organisations_own(cpu_hours: Metric, draft: Metric) -> None:
    stranger = staff_of(Organisation.objects.create(name="Other", timezone="UTC"), name="stranger")
    for name in ("new_version", "compare", "progress"):
        assert stranger.get(page_of(draft, name)).status_code == 404
    assert revised(stranger, cpu_hours, aggregation="count").status_code == 404
    assert Metric.objects.count() == 2
