"""The page of quantities: what was asked, exact, as table, chart and CSV, each number with its explanation."""

import csv
import io
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client, override_settings
from django.utils import timezone

from customers.models import Organisation
from metrics.admin import quantities as quantity_pages
from metrics.definitions import activate_metric, revise_metric, save_metric
from metrics.drift import find_drift
from metrics.exactly import exact_total
from metrics.materialization import fold
from metrics.models import Aggregation, DriftCheck, Metric, MetricAggregate
from tests.conftest import active_metric, record, take_in
from tests.people import HOSTILE, staff_of
from usage.definitions import create_usage_event
from usage.models import UsageEvent

METRICS = "/admin/metrics/metric/"
QUANTITIES = f"{METRICS}quantities/"


@pytest.fixture
def staff(organisation: Organisation) -> Client:
    return staff_of(organisation)


def errors(response: Any) -> dict[str, list[str]]:
    assert response.status_code == 200
    return dict(response.context["form"].errors)


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

    behind = staff.get(response.context["rows"][0]["explain_url"])
    assert behind.context["found"].quantity == Decimal(f"{'9' * 30}.{'0' * 30}1")
    assert [row["record"].data["cpu_usage_hours"] for row in behind.context["records"]] == [huge, tiny]
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
    for field in ("metric", "start", "end", "window", "timezone", "customer_id", "after", "exactly.region", "exactly."):
        for value in HOSTILE:
            assert ask(staff, cpu_hours, **{field: value[:5_000]}).status_code == 200, (field, value[:20])


def test_a_metric_that_is_not_active_explains_itself(staff: Client, compute: UsageEvent) -> None:
    organisation = compute.organisation
    draft = save_metric(
        Metric(organisation=organisation, usage_event=compute, code="m", name="M", aggregation=Aggregation.COUNT)
    )
    assert "Not active yet" in ask(staff, draft).content.decode()
    activate_metric(draft.pk)
    assert "Still building" in ask(staff, draft).content.decode()
    assert "Choose a metric" in staff.get(QUANTITIES).content.decode()


def test_without_a_metric_the_way_to_one_is_shown(staff: Client) -> None:
    assert f'href="{METRICS}add/">Add metric</a>' in staff.get(QUANTITIES).content.decode()
    assert "Choose a quantity" in staff.get(f"{QUANTITIES}explain/").content.decode()


def test_customers_come_in_pages(staff: Client, compute: UsageEvent) -> None:
    calls = active_metric(compute, code="calls", aggregation=Aggregation.COUNT)
    take_in(compute, *(record(f"cus_{i:03}") for i in range(130)))
    first = ask(staff, calls)
    assert len(rows(first)) == 100
    assert "Total of this page" in re.sub(r"\s+", " ", first.content.decode())
    second = staff.get(QUANTITIES + first.context["next_url"])
    assert rows(first) + rows(second) == [(f"cus_{i:03}", "1", 1) for i in range(130)]
    assert second.context["next_url"] == ""


# --- dimensions ------------------------------------------------------------------------------------------------------


@pytest.fixture
def by_region(compute: UsageEvent) -> Metric:
    """An active metric of hours by region, with usage in two regions and without one."""
    metric = active_metric(
        compute, code="by_region", aggregation="sum", property="cpu_usage_hours", group_by=["region"], unit="hours"
    )
    hours = [("cus_1", "eu", 1), ("cus_1", "us", 2), ("cus_1", None, 4), ("cus_2", "eu", 8), ("=cus", "us", -16)]
    for customer, region, value in hours:
        data = {"cpu_usage_hours": value} | ({"region": region} if region else {})
        take_in(compute, {**record(customer), "data": data})
    return metric


def test_rows_by_dimension_add_up(staff: Client, by_region: Metric) -> None:
    response = ask(staff, by_region, group_by="region")

    shown = [
        (row["quantity"].customer_id, row["dimensions"], row["quantity"].quantity) for row in response.context["rows"]
    ]
    assert shown == [
        ("cus_1", ["eu"], 1),
        ("cus_1", ["us"], 2),
        ("cus_1", ["not set"], 4),
        ("cus_2", ["eu"], 8),
        ("=cus", ["us"], -16),
    ]
    assert 'data-total="-1"' in response.content.decode()
    assert rows(ask(staff, by_region))[0] == ("cus_1", "7", 3)


def test_a_row_leads_to_its_own_explanation(staff: Client, by_region: Metric) -> None:
    response = ask(staff, by_region, group_by="region", window="day", timezone="Asia/Kolkata")
    for row in response.context["rows"]:
        explained = staff.get(row["explain_url"]).context
        assert explained["found"].quantity == row["quantity"].quantity
        assert explained["found"].question.zone.key == "Asia/Kolkata"
        assert [shown["dimensions"] for shown in explained["records"]] == [row["dimensions"]]


def test_a_dimension_can_be_asked_for(staff: Client, by_region: Metric) -> None:
    assert rows(ask(staff, by_region, **{"filter.region": "eu"})) == [("cus_1", "1", 1), ("cus_2", "8", 1)]
    both = ask(staff, by_region, **{"filter.region": "eu\r\nus"})
    assert rows(both) == [("cus_1", "3", 2), ("cus_2", "8", 1), ("=cus", "-16", 1)]
    assert rows(ask(staff, by_region, **{"filter.region": ["eu", "us"]})) == rows(both)
    explained = staff.get(both.context["rows"][0]["explain_url"]).context["found"]
    assert (explained.quantity, explained.question.filter_by) == (3, {"region": ("eu", "us")})


def test_dimensions_are_those_of_the_version_in_force(staff: Client, by_region: Metric, cpu_hours: Metric) -> None:
    assert "group_by" not in ask(staff, cpu_hours, group_by="region").context["form"].fields
    assert errors(ask(staff, by_region, group_by="tier")) == {
        "group_by": ["Select a valid choice. tier is not one of the available choices."]
    }
    draft = Metric(
        organisation=by_region.organisation,
        usage_event=by_region.usage_event,
        code="by_region",
        name="Next",
        version=2,
        aggregation="count",
    )
    save_metric(draft)
    response = ask(staff, draft, group_by="region")
    assert (response.context["metric"].version, len(response.context["rows"])) == (1, 5)


def test_rows_that_are_written_alike_lead_to_their_own_explanations(staff: Client, compute: UsageEvent) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "number"}, "tier": {}}}
    usage_event = create_usage_event(compute.organisation, name="S", slug="s", schema=schema)
    metric = active_metric(usage_event, code="m", aggregation="sum", property="n", group_by=["tier"])
    tiers = [
        1,
        "1",
        Decimal("1.0"),
        True,
        "true",
        None,
        "",
        " ",
        "x" * 300,
        {"a": 1},
        "a\nb",
        "null",
        "[]",
        Decimal("1e30"),
    ]
    given = [{"n": 2**i, "tier": tier} for i, tier in enumerate(tiers)]
    take_in(usage_event, *({**record(), "data": data} for data in [*given, {"n": 2 ** len(tiers)}]))

    for _ in range(2):
        shown = ask(staff, metric, group_by="tier").context["rows"]
        quantities = [row["quantity"].quantity for row in shown]
        assert sorted(quantities) == sorted([1 + 4, 32 + 2**14, *(2**i for i in (1, 3, 4, *range(6, 14)))])
        for row in shown:
            explained = staff.get(row["explain_url"]).context
            assert (explained["found"].quantity, explained["found"].recount) == (row["quantity"].quantity,) * 2
            assert {seen["dimensions"][0] for seen in explained["records"]} == set(row["dimensions"])
        assert len({row["dimensions"][0] for row in shown}) == len(shown)
        fold(usage_event.pk)
    assert "exactly.tier" in ask(staff, metric, **{"exactly.tier": "null"}).context["form"].fields
    assert rows(ask(staff, metric, **{"exactly.tier": ['"1"', "1"]})) == [("cus_1", "7", 3)]
    assert rows(ask(staff, metric, **{"exactly.tier": '"1"', "filter.tier": "true"})) == [("cus_1", "2", 1)]
    assert rows(ask(staff, metric, **{"exactly.tier": "", "filter.tier": "true"})) == [("cus_1", "24", 2)]


@pytest.mark.parametrize(
    "text", ["eu", "[]", '{"a": 1}', '{"sha256": 1}', "1e9999", '"\\u0000"', '"\\ud800"', "[" * 5_000]
)
def test_exact_values_are_json_of_what_a_dimension_can_be(staff: Client, by_region: Metric, text: str) -> None:
    found = errors(ask(staff, by_region, **{"exactly.region": text}))
    assert list(found) == ["exactly.region"]
    assert found["exactly.region"][0].endswith(f"got {text[:60]}.")


def test_what_is_no_dimension_is_not_passed_over(staff: Client, by_region: Metric, cpu_hours: Metric) -> None:
    for prefix in ("filter.", "exactly."):
        found = errors(ask(staff, cpu_hours, **{f"{prefix}region": "null"}))
        assert found == {"metric": ["“region” is no dimension of this metric."]}
    assert rows(ask(staff, cpu_hours, **{"filter.region": ""})) != []


def test_a_link_to_an_earlier_version_goes_on_working(staff: Client, by_region: Metric) -> None:
    before = ask(staff, by_region, group_by="region")
    link = before.context["rows"][0]["explain_url"]
    draft = revise_metric(by_region, {"aggregation": "count", "property": ""})

    after = ask(staff, by_region, group_by="region")
    assert rows(after) == rows(before) == rows(ask(staff, draft, group_by="region"))
    assert after.context["form"]["metric"].value() == str(draft.pk)
    explained = staff.get(link).context["found"]
    assert (explained.metric, explained.quantity) == (by_region, 1)


def test_drift_is_told_beside_the_quantities(staff: Client, compute: UsageEvent, cpu_hours: Metric) -> None:
    take_in(compute, record())
    fold(compute.pk)
    assert "See what differs" not in ask(staff, cpu_hours).content.decode()
    MetricAggregate.objects.update(sum=9)
    start = datetime(2025, 6, 17, tzinfo=UTC)
    find_drift(cpu_hours.pk, start, start + timedelta(days=1), DriftCheck.Kind.CLOSED_DAY)
    page = ask(staff, cpu_hours)
    for shown in (
        page,
        staff.get(page.context["rows"][0]["explain_url"]),
        staff.get(f"{METRICS}{cpu_hours.pk}/change/"),
    ):
        assert f'/drift/?metric={cpu_hours.pk}">See what differs</a>' in shown.content.decode()


# --- the chart -------------------------------------------------------------------------------------------------------


def chart(response: Any) -> Any:
    assert response.status_code == 200
    found = response.context["chart"]
    assert ("data-tb-quantity-chart" in response.content.decode()) is (found is not None)
    return found


def test_one_number_needs_no_chart(staff: Client, compute: UsageEvent, cpu_hours: Metric) -> None:
    assert chart(ask(staff, cpu_hours)) is None
    take_in(compute, record())
    assert chart(ask(staff, cpu_hours)) is None
    assert chart(ask(staff, cpu_hours, window="day")).shown["labels"][0] == "2025-06-01"


def test_the_largest_customers_are_series_and_the_others_are_added_up(
    staff: Client, compute: UsageEvent, cpu_hours: Metric
) -> None:
    take_in(compute, *(record(f"cus_{n:02}", f"2025-06-0{1 + n % 2}T00:00:00Z", 2**n) for n in range(12)))
    found = chart(ask(staff, cpu_hours, window="day", end="2025-06-03"))

    series = [(one["label"], one["values"]) for one in found.shown["series"]]
    assert series[0] == ("cus_11", [None, 2048.0])
    assert [label for label, _ in series[:8]] == [f"cus_{n:02}" for n in range(11, 3, -1)]
    assert series[8:] == [("4 others", [5.0, 10.0])]
    assert (found.added_up, found.left_out) == (4, 0)
    assert (found.shown["type"], found.shown["stacked"]) == ("bar", True)
    assert found.shown["labels"] == ["2025-06-01", "2025-06-02"]


def test_what_does_not_add_up_is_left_out_and_said(staff: Client, compute: UsageEvent) -> None:
    metric = active_metric(compute, code="m", aggregation="max", property="cpu_usage_hours")
    take_in(compute, *(record(f"cus_{n:02}", hours=n) for n in range(12)))
    response = ask(staff, metric, window="week")

    found = chart(response)
    assert len(found.shown["series"]) == 8
    assert (found.added_up, found.left_out, found.shown["type"]) == (0, 4, "line")
    assert "4 smaller series are left out of the chart" in response.content.decode()
    assert response.context["total"] is None
    assert "<tfoot>" not in response.content.decode()


def test_series_are_told_apart_by_type(staff: Client, compute: UsageEvent) -> None:
    schema = {"type": "object", "properties": {"tier": {}}}
    usage_event = create_usage_event(compute.organisation, name="S", slug="s", schema=schema)
    metric = active_metric(usage_event, code="m", aggregation="count", group_by=["tier"])
    take_in(usage_event, *({**record(), "data": {"tier": tier}} for tier in (1, "1", "1", None, "not set")))

    found = chart(ask(staff, metric, group_by="tier")).shown

    bars = sorted(zip(found["labels"], found["series"][0]["values"], strict=True))
    assert bars == [("cus_1 · 1", 1.0), ("cus_1 · not set", 1.0), ("cus_1 · “1”", 2.0), ("cus_1 · “not set”", 1.0)]


def test_one_window_is_a_bar_for_each_customer(staff: Client, compute: UsageEvent, cpu_hours: Metric) -> None:
    take_in(compute, *(record(f"cus_{n:02}", hours=n + 1) for n in range(30)))
    found = chart(ask(staff, cpu_hours)).shown
    assert found["labels"] == [*(f"cus_{n:02}" for n in range(29, 9, -1)), "10 others"]
    assert found["series"] == [{"label": "Quantity", "values": [*(float(n) for n in range(30, 10, -1)), 55.0]}]
    assert (found["type"], found["stacked"]) == ("bar", False)


def test_numbers_beyond_all_floats_are_drawn(staff: Client, compute: UsageEvent) -> None:
    factors = " * ".join(["cpu_usage_hours"] * 10)
    metric = active_metric(compute, code="m", aggregation="sum", expression=factors)
    take_in(compute, record(hours=Decimal("1e60")), record("cus_2", hours=Decimal("-1e60")))
    assert chart(ask(staff, metric)).shown["series"][0]["values"] == [1e300, 1e300]


# --- CSV -------------------------------------------------------------------------------------------------------------


def downloaded(client: Client, page: Any) -> list[list[str]]:
    response: Any = client.get(page.context["csv_url"])
    assert response.status_code == 200
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    text = b"".join(response.streaming_content).decode()
    return list(csv.reader(io.StringIO(text, newline="")))


def test_csv_has_every_customer_and_every_digit(
    staff: Client, compute: UsageEvent, cpu_hours: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = Decimal("0.12345678901234567890123456789")
    take_in(compute, *(record(f"cus_{i:03}", hours=exact) for i in range(250)))
    monkeypatch.setattr("metrics.quantity_export.MAX_PAGE_SIZE", 100)
    first = ask(staff, cpu_hours, timezone="Europe/Berlin")

    header, *lines = downloaded(staff, first)

    assert header == [
        *["metric", "version", "customer_id", "start", "end", "quantity", "unit", "record_count", "as_of"]
    ]
    assert [line[:-1] for line in lines] == [
        *(
            ["cpu_hours", "1", f"cus_{i:03}", "2025-06-01T00:00:00+02:00", "2025-07-01T00:00:00+02:00"]
            + [str(exact), "", "1"]
            for i in range(250)
        )
    ]
    assert len({line[-1] for line in lines}) == 1
    assert downloaded(staff, staff.get(f"{QUANTITIES}{first.context['next_url']}"))[1:][0][:3] == lines[0][:3]


def test_csv_has_dimensions_and_no_formula(staff: Client, by_region: Metric) -> None:
    by_region.unit = "@hours"
    by_region.save(update_fields=["unit"])

    header, *lines = downloaded(staff, ask(staff, by_region, group_by="region", **{"filter.region": ["us", "eu"]}))

    assert header[3] == "dimensions.region"
    assert [[line[2], line[3], line[6], line[7], line[8]] for line in lines] == [
        ["cus_1", "eu", "1", "'@hours", "1"],
        ["cus_1", "us", "2", "'@hours", "1"],
        ["cus_2", "eu", "8", "'@hours", "1"],
        ["'=cus", "us", "-16", "'@hours", "1"],
    ]
    unset = downloaded(staff, ask(staff, by_region, group_by="region"))
    assert [line[3] for line in unset[1:]] == ["eu", "us", "", "eu", "us"]


def test_csv_of_what_cannot_be_asked_is_the_page_with_its_errors(
    staff: Client, compute: UsageEvent, cpu_hours: Metric
) -> None:
    june: dict[str, Any] = {
        "metric": cpu_hours.pk,
        "start": "2025-06-01",
        "end": "2025-07-01",
        "window": "total",
        "timezone": "UTC",
    }
    refused = staff.get(f"{QUANTITIES}csv/", {**june, "customer_id": "nobody"})
    assert errors(refused) == {"customer_id": ["There is no customer “nobody”."]}
    assert staff.get(f"{QUANTITIES}csv/").status_code == 200
    draft = save_metric(
        Metric(organisation=compute.organisation, usage_event=compute, code="m", name="M", aggregation="count")
    )
    assert "Not active yet" in staff.get(f"{QUANTITIES}csv/", {**june, "metric": draft.pk}).content.decode()


# --- limits ----------------------------------------------------------------------------------------------------------


def test_what_takes_too_long_is_told_at_the_end(staff: Client, compute: UsageEvent) -> None:
    metric = active_metric(compute, code="m", aggregation="percentile", property="cpu_usage_hours", percentile=50)
    take_in(compute, *(record(hours=n) for n in range(3000)))
    with override_settings(QUANTITIES_SECONDS=0.001):
        found = [errors(ask(staff, metric, window="hour")) for _ in range(10)]
    assert {
        "end": ["This takes longer than 0.001 s to calculate; ask for a shorter period or for fewer customers."]
    } in found


def test_a_page_has_so_many_rows_and_says_so(
    staff: Client, compute: UsageEvent, cpu_hours: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantity_pages, "ROWS_SHOWN", 2)
    take_in(compute, *(record(timestamp=f"2025-06-0{day}T00:00:00Z", hours=day) for day in range(1, 6)))
    response = ask(staff, cpu_hours, window="day")
    assert rows(response) == [("cus_1", "1", 1), ("cus_1", "2", 1)]
    assert "and 3 more rows of these customers" in response.content.decode()
    assert 'data-total="15"' in response.content.decode()
    assert len(downloaded(staff, response)) == 6


def test_many_windows_make_smaller_pages(staff: Client, compute: UsageEvent, cpu_hours: Metric) -> None:
    take_in(compute, *(record(f"cus_{i:03}") for i in range(5)))
    response = ask(staff, cpu_hours, window="hour", end="2025-06-15")
    assert response.context["question"].page_size == 1000 // (14 * 24)
    later = ask(staff, cpu_hours, window="hour", start="2025-06-10", end="2025-06-24")
    assert [row[0] for row in rows(later)] == ["cus_000", "cus_001"]
    following = staff.get(QUANTITIES + later.context["next_url"])
    assert [row[0] for row in rows(following)] == ["cus_002", "cus_003"]
    assert "First customers" in following.content.decode()


def test_a_metric_of_sql_has_quantities_too(staff: Client, compute: UsageEvent) -> None:
    text = """SELECT customer_id, region, sum(cpu_usage_hours) AS quantity FROM compute_hours
              WHERE timestamp >= {{start_date}} AND timestamp < {{end_date}} GROUP BY 1, 2"""
    metric = Metric(organisation=compute.organisation, code="s", name="S", sql=text, sql_window="day")
    save_metric(metric)
    activate_metric(metric.pk)
    take_in(compute, {**record(hours=1), "data": {"cpu_usage_hours": 3, "region": "eu"}}, record("cus_2", hours=4))

    response = ask(staff, metric, group_by="region")

    assert rows(response) == [("cus_1", "3", 0), ("cus_2", "4", 0)]
    assert response.context["rows"][0]["dimensions"] == ["eu"]
    assert '<th class="tb-number">Records</th>' not in response.content.decode()
    explained = staff.get(response.context["rows"][0]["explain_url"])
    assert explained.context["found"].quantity == 3
    assert rows(ask(staff, metric, **{"filter.region": "us"})) == []
    header, *lines = downloaded(staff, response)
    assert [(line[2], line[3], line[6], line[8]) for line in lines] == [
        ("cus_1", "eu", "3", ""),
        ("cus_2", "", "4", ""),
    ]
    assert header[3] == "dimensions.region"
    assert errors(ask(staff, metric, window="hour")) == {
        "window": ["The SQL is calculated for each day: a day or longer."]
    }
    assert response.context["rows"][1]["explain_url"] == ""
    assert errors(ask(staff, metric, **{"exactly.region": "null"})) == {
        "metric": ["The columns of SQL can be asked for by text only."]
    }


def test_a_total_is_never_rounded() -> None:
    assert exact_total([Decimal("1e64"), None, Decimal("1e-64")]) == Decimal("1" + "0" * 64 + "." + "0" * 63 + "1")
