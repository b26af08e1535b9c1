"""The visual builder: what each calculation takes, mistakes at their fields, and a preview that stores nothing."""

from decimal import Decimal
from typing import Any

import pytest
from django.test import Client

from customers.exactjson import loads
from customers.models import Organisation
from metrics.builder_forms import BuilderForm
from metrics.models import Metric, MetricAggregate
from tests.conftest import active_metric, record, take_in
from tests.people import HOSTILE, staff_of
from usage.definitions import create_usage_event
from usage.models import UsageEvent

ADD = "/admin/metrics/metric/add/"
PREVIEW = "/admin/metrics/metric/preview/"
EU = '{"all": [{"property": "region", "operator": "eq", "value": "eu"}]}'


@pytest.fixture
def staff(organisation: Organisation) -> Client:
    return staff_of(organisation)


def entries(usage_event: UsageEvent, /, **fields: Any) -> dict[str, Any]:
    """What a browser posts: every field, those that are not shown among them."""
    pk = usage_event.pk
    values = {
        "usage_event": pk,
        "filters": "",
        "aggregation": "sum",
        "as_is": "latest",
        "value_from": "property",
        "property": f"{pk}/cpu_usage_hours",
        "expression": "",
        "percentile": "",
        "rounding_mode": "",
        "rounding_digits": "",
        "name": "CPU hours",
        "code": "",
        "unit": "",
    }
    return values | fields


def added(client: Client, usage_event: UsageEvent, /, **fields: Any) -> Metric:
    """The metric that was added; the test fails with the form's errors if none was."""
    response = client.post(ADD, entries(usage_event, **fields))
    assert response.status_code == 302, dict(response.context["form"].errors)
    return Metric.objects.get()


def refused(client: Client, usage_event: UsageEvent, /, **fields: Any) -> dict[str, list[str]]:
    """The errors by field, and nothing was stored."""
    response = client.post(ADD, entries(usage_event, **fields))
    assert response.status_code == 200
    assert not Metric.objects.exists()
    return {name: list(messages) for name, messages in response.context["form"].errors.items()}


def formula(metric: Metric) -> dict[str, Any]:
    """What of the formula is not empty."""
    return {
        field: getattr(metric, field)
        for field in BuilderForm.formula[1:]
        if getattr(metric, field) not in ("", None, {}, [])
    }


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"aggregation": "count"}, {"aggregation": "count"}),
        ({"aggregation": "avg"}, {"aggregation": "avg", "property": "cpu_usage_hours"}),
        ({"aggregation": "unique_count", "property": "region"}, {"aggregation": "unique_count", "property": "region"}),
        (
            {"aggregation": "percentile", "percentile": "99.5"},
            {"aggregation": "percentile", "property": "cpu_usage_hours", "percentile": Decimal("99.5")},
        ),
        ({"aggregation": "weighted_sum"}, {"aggregation": "weighted_sum", "property": "cpu_usage_hours"}),
        (
            {"value_from": "expression", "expression": "cpu_usage_hours*2"},
            {"aggregation": "sum", "expression": "cpu_usage_hours*2"},
        ),
        (
            {"aggregation": "as_is", "property": "cpu_usage_hours_per_month"},
            {"aggregation": "latest", "property": "cpu_usage_hours_per_month"},
        ),
        ({"aggregation": "as_is", "as_is": "sum"}, {"aggregation": "sum", "property": "cpu_usage_hours"}),
        (
            {"rounding_mode": "half_even", "rounding_digits": "0"},
            {"aggregation": "sum", "property": "cpu_usage_hours", "rounding_mode": "half_even", "rounding_digits": 0},
        ),
        (
            {"aggregation": "count", "filters": EU, "group_by": ["region"]},
            {
                "aggregation": "count",
                "filters": {"all": [{"property": "region", "operator": "eq", "value": "eu"}]},
                "group_by": ["region"],
            },
        ),
    ],
)
def test_each_calculation_takes_what_it_needs(
    staff: Client, compute: UsageEvent, chosen: dict[str, Any], expected: dict[str, Any]
) -> None:
    for field in ("property", "group_by"):
        if field in chosen:
            names = chosen[field] if isinstance(chosen[field], list) else [chosen[field]]
            chosen = {**chosen, field: [f"{compute.pk}/{name}" for name in names]}
    assert formula(added(staff, compute, **chosen)) == expected


def test_what_is_not_shown_is_not_looked_at(staff: Client, compute: UsageEvent) -> None:
    """Fields keep what was typed before another calculation was chosen."""
    left_over = {
        "property": f"{compute.pk}/region",
        "value_from": "expression",
        "expression": "not ( an expression",
        "percentile": "900",
        "rounding_digits": "-1",
    }
    assert formula(added(staff, compute, aggregation="count", **left_over)) == {"aggregation": "count"}


def test_names_that_fall_into_words_are_told_to_be_quoted(staff: Client, compute: UsageEvent) -> None:
    schema = {"type": "object", "properties": {"in-tokens": {"type": "number"}}}
    stream = create_usage_event(compute.organisation, name="S", slug="s", schema=schema)
    (told,) = refused(staff, stream, value_from="expression", expression="2 * in-tokens")["expression"]
    assert told.endswith("got 'in', 'tokens'; a name such as 'in-tokens' is written in double quotes.")
    (told,) = refused(staff, stream, value_from="expression", expression="2 * gone")["expression"]
    assert told.endswith("got 'gone'.")


def test_a_plain_post_needs_no_more_than_the_calculation(staff: Client, compute: UsageEvent) -> None:
    plain = {"usage_event": compute.pk, "name": "N", "aggregation": "sum", "expression": "cpu_usage_hours"}
    assert staff.post(ADD, plain).status_code == 302
    assert formula(Metric.objects.get()) == {"aggregation": "sum", "expression": "cpu_usage_hours"}


def test_mistakes_are_told_at_their_fields(staff: Client, compute: UsageEvent) -> None:
    pk = compute.pk
    assert refused(staff, compute, property="") == {"property": ["Choose the number that is calculated with."]}
    assert refused(staff, compute, property="", aggregation="unique_count") == {
        "property": ["Choose the property whose values are counted."]
    }
    assert refused(staff, compute, property=f"{pk}/region") == {
        "property": ["“region” is not a number in the schema of “Compute hours”."]
    }
    assert list(refused(staff, compute, aggregation="percentile", percentile="101")) == ["percentile"]
    assert refused(staff, compute, aggregation="percentile") == {
        "percentile": ["A number from 0 to 100 was expected, such as 95."]
    }
    for nothing in ({"as_is": ""}, {"as_is": "newest"}):
        assert list(refused(staff, compute, aggregation="as_is", **nothing)) == ["as_is"]
    assert refused(staff, compute, value_from="expression") == {
        "expression": ["Enter what is calculated of each record."]
    }
    assert list(refused(staff, compute, value_from="expression", expression="region * 2")) == ["expression"]
    assert refused(staff, compute, rounding_mode="up") == {
        "rounding_digits": ["A whole number from 0 to 30 was expected."]
    }
    assert list(refused(staff, compute, filters="{")) == ["filters"]
    told = refused(staff, compute, filters='{"all": [{"property": "size", "operator": "eq", "value": 1}]}')
    assert told["filters"][0].startswith("At all[0].property: ")
    assert list(refused(staff, compute, group_by=[f"{pk}/size"])) == ["group_by"]
    assert list(refused(staff, compute, aggregation="median")) == ["aggregation"]


def test_only_numbers_are_calculated_with(staff: Client, compute: UsageEvent) -> None:
    form = staff.get(ADD).context["form"]
    described = {one["name"]: one["number"] for one in form.catalog()[str(compute.pk)]["properties"]}
    assert described == {"cpu_usage_hours": True, "cpu_usage_hours_per_month": True, "region": False}


def test_boxes_of_another_usage_event_are_not_looked_at(staff: Client, compute: UsageEvent) -> None:
    other = create_usage_event(compute.organisation, name="Other", slug="other", schema=compute.schema)
    both = [f"{other.pk}/cpu_usage_hours", f"{compute.pk}/region"]
    assert added(staff, compute, group_by=both).group_by == ["region"]


def test_a_draft_shows_what_it_holds(staff: Client, compute: UsageEvent) -> None:
    chosen = {"value_from": "expression", "expression": "cpu_usage_hours + 1", "filters": EU}
    metric = added(staff, compute, **chosen, group_by=[f"{compute.pk}/region"])
    form = staff.get(f"/admin/metrics/metric/{metric.pk}/change/").context["form"]
    shown = {name: form[name].value() for name in ("aggregation", "value_from", "expression", "group_by")}
    assert shown == {
        "aggregation": "sum",
        "value_from": "expression",
        "expression": "cpu_usage_hours + 1",
        "group_by": [f"{compute.pk}/region"],
    }
    assert loads(form["filters"].value()) == metric.filters


def test_the_order_of_dimensions_stays_as_it_was(staff: Client, compute: UsageEvent) -> None:
    metric = added(staff, compute)
    Metric.objects.update(group_by=["region", "cpu_usage_hours"])
    boxes = [f"{compute.pk}/{name}" for name in ("cpu_usage_hours", "region")]
    page = f"/admin/metrics/metric/{metric.pk}/change/"
    assert staff.post(page, entries(compute, group_by=boxes, code="c")).status_code == 302
    metric.refresh_from_db()
    assert metric.group_by == ["region", "cpu_usage_hours"]


def same_records(page: Any) -> dict[str, list[str]]:
    same = page.context["same_records"]
    return {usage_event.name: [metric.name for metric, _ in metrics] for usage_event, metrics in same}


def test_other_metrics_that_count_the_same_records_are_named(staff: Client, compute: UsageEvent) -> None:
    other = create_usage_event(compute.organisation, name="Other", slug="other", schema=compute.schema)
    active_metric(compute, code="all", name="All of it", aggregation="count")
    retired = active_metric(compute, code="gone", name="Gone", aggregation="count")
    Metric.objects.filter(pk=retired.pk).update(status=Metric.Status.RETIRED)
    active_metric(other, code="elsewhere", name="Elsewhere", aggregation="count")
    same = staff.get(ADD).context["same_records"]
    assert [
        (usage_event.name, [(metric.name, words) for metric, words in metrics]) for usage_event, metrics in same
    ] == [
        ("Compute hours", [("All of it", "Count of records")]),
        ("Other", [("Elsewhere", "Count of records")]),
    ]
    own = Metric.objects.get(code="all")
    same = staff.get(f"/admin/metrics/metric/{own.pk}/new-version/").context["same_records"]
    assert [usage_event.name for usage_event, _ in same] == ["Other"]


def test_nothing_that_can_be_typed_is_a_fault(staff: Client, compute: UsageEvent) -> None:
    looked_at = ("usage_event", "filters", "expression", "preview_customer", "preview_start")
    for field in looked_at:
        for value in HOSTILE:
            posted = entries(
                compute, value_from="expression" if field == "expression" else "property", **{field: value}
            )
            assert staff.post(PREVIEW, posted).status_code == 200, (field, value[:20])
    for field in ("aggregation", "code", "percentile", "rounding_digits"):
        for value in HOSTILE:
            posted = {**entries(compute, aggregation="percentile", rounding_mode="up"), field: value}
            assert staff.post(ADD, posted).status_code in (200, 302), (field, value[:20])


# --- preview ---------------------------------------------------------------------------------------------------------


def look(client: Client, usage_event: UsageEvent, /, **fields: Any) -> dict[str, Any]:
    response = client.post(PREVIEW, entries(usage_event, name="", **fields))
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


def test_a_preview_is_of_real_records_and_stores_nothing(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, record("cus_1", hours=Decimal("2.50")), record("cus_1", "2025-06-19T01:00:00Z", hours=1))
    take_in(compute, {**record("cus_2"), "data": {"region": "eu"}})
    found = look(staff, compute)
    assert found["errors"] == {}
    assert found["chart"]["labels"] == [f"2025-05-{day}" for day in range(21, 32)] + [
        f"2025-06-{day:02}" for day in range(1, 20)
    ]
    assert found["chart"]["type"] == "bar"
    series = {one["label"]: one["values"] for one in found["chart"]["series"]}
    assert (series["cus_1"][-3:], series["cus_2"][-3:]) == ([2.5, None, 1.0], [0.0, None, None])
    assert 'data-quantity="2.5"' in found["html"]
    assert "Sum of cpu_usage_hours" in found["html"]
    assert "2025-05-21 to 2025-06-20, UTC" in found["html"]
    assert not Metric.objects.exists()
    assert not MetricAggregate.objects.exists()


def test_counted_and_skipped_records_are_told(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, record("cus_1"), record("cus_1"), {**record("cus_2"), "data": {}})
    posted = entries(compute, name="", preview="look")
    shown = staff.post(ADD, posted).context["preview"]
    assert (shown.counted, shown.skipped, shown.customer_count, shown.more_customers) == (2, 1, 2, False)


def test_period_window_and_customer_can_be_chosen(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, record("cus_1", hours=3), record("cus_2", hours=4))
    asked = {"preview_start": "2025-06-01", "preview_end": "2025-08-01", "preview_window": "month"}
    found = look(staff, compute, preview_customer="cus_2", **asked)
    assert found["chart"]["labels"] == ["2025-06", "2025-07"]
    assert found["chart"]["series"] == [{"label": "cus_2", "values": [4.0, None]}]
    assert look(staff, compute, preview_customer="cus_9", **asked)["errors"] == {
        "preview_customer": ["There is no customer “cus_9”."]
    }
    backwards = look(staff, compute, preview_start="2025-08-01", preview_end="2025-06-01")
    assert backwards["errors"] == {"preview_end": ["The end must be after the start."]}
    too_many = {"preview_start": "2000-01-01", "preview_end": "2100-01-01", "preview_window": "hour"}
    assert "At most 10000 windows" in look(staff, compute, **too_many)["errors"]["preview_end"][0]


def test_days_are_those_of_the_organisation(staff: Client, compute: UsageEvent) -> None:
    Organisation.objects.update(timezone="Asia/Kolkata")
    take_in(compute, record(timestamp="2025-06-17T18:30:00Z"))
    found = look(staff, compute)
    assert (found["chart"]["labels"][-1], found["chart"]["series"][0]["values"][-1]) == ("2025-06-18", 1.0)


def test_dimensions_are_shown_apart(staff: Client, compute: UsageEvent) -> None:
    data = [{"cpu_usage_hours": 1, "region": "eu"}, {"cpu_usage_hours": 2}]
    take_in(compute, *({**record(), "data": one} for one in data))
    found = look(staff, compute, group_by=[f"{compute.pk}/region"], filters="")
    assert {one["label"]: one["values"][-1] for one in found["chart"]["series"]} == {
        "cus_1 · eu": 1.0,
        "cus_1 · not set": 2.0,
    }
    narrowed = look(staff, compute, group_by=[f"{compute.pk}/region"], filters=EU)
    assert [one["label"] for one in narrowed["chart"]["series"]] == ["cus_1 · eu"]


def test_mistakes_are_told_while_the_form_is_filled_in(staff: Client, compute: UsageEvent) -> None:
    found = look(staff, compute, aggregation="percentile", filters='{"all": [{"property": "region"}]}', code="no code")
    assert found["chart"] is None
    assert sorted(found["errors"]) == ["percentile"]
    found = look(staff, compute, filters='{"all": [{"property": "region"}]}')
    assert found["errors"]["filters"][0].startswith("At all[0].operator: ")


def test_at_most_twenty_customers_and_eight_series_are_shown(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, *(record(f"cus_{i:02}", hours=i) for i in range(25)))
    found = look(staff, compute)
    assert "The first 20 customers with usage are shown." in found["html"]
    assert [one["label"] for one in found["chart"]["series"]] == [f"cus_{i}" for i in range(19, 11, -1)]
    assert found["chart"]["left_out"] == 12


def test_the_largest_numbers_can_be_drawn(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, record(hours=Decimal("9e64")))
    found = look(staff, compute, value_from="expression", expression=" * ".join(["cpu_usage_hours"] * 9))
    assert found["chart"]["series"][0]["values"][-1] == 1e300


def test_without_a_script_the_button_shows_the_preview_and_saves_nothing(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, record(hours=7))
    page = staff.post(ADD, entries(compute, name="", preview="look"))
    assert page.status_code == 200
    assert 'data-quantity="7"' in page.content.decode()
    assert not page.context["form"].errors
    assert not Metric.objects.exists()


def test_a_preview_is_posted_by_who_works_for_an_organisation(compute: UsageEvent) -> None:
    stranger = staff_of(Organisation.objects.create(name="Other", timezone="UTC"), name="stranger")
    take_in(compute, record())
    found = look(stranger, compute)
    assert sorted(found["errors"]) == ["property", "usage_event"]
    assert found["chart"] is None
    assert stranger.get(PREVIEW).status_code == 405
    assert staff_of(name="nobody").post(PREVIEW, entries(compute)).status_code == 403
    assert Client().post(PREVIEW, entries(compute)).status_code == 302
