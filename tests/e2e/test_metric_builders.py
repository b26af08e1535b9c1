"""The builders of metrics in a real browser: conditions as rows, a preview while typing, mistakes where they are."""

from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from playwright.sync_api import Page, expect

from customers.exactjson import loads
from customers.models import Membership, Organisation
from metrics.definitions import save_metric
from metrics.models import Metric
from tests.conftest import record, take_in
from tests.people import signed_in
from usage.models import UsageEvent

pytestmark = pytest.mark.browser

SELECT = """select customer_id,
  sum(cpu_usage) as quantity
from compute_hours
where timestamp >= {{start_date}} and timestamp < {{end_date}}
group by customer_id"""
ADD, ADD_SQL = "/admin/metrics/metric/add/", "/admin/metrics/metric/add-sql/"


@pytest.fixture
def site(live_server: Any, page: Page, organisation: Organisation) -> str:
    """The address of the server, where the browser is signed in as one of the staff."""
    user = User.objects.create_user("olga", is_staff=True)
    Membership.objects.create(organisation=organisation, user=user)
    client: Client = signed_in(user)
    cookie = client.cookies["sessionid"].value
    page.context.add_cookies([{"name": "sessionid", "value": cookie, "url": str(live_server.url)}])
    return str(live_server.url)


def condition(page: Page, index: int) -> Any:
    return page.locator(".tb-condition").nth(index)


def test_a_metric_is_built_with_its_preview_beside_it(page: Page, site: str, compute: UsageEvent) -> None:
    data = [("cus_1", 5, "eu"), ("cus_1", 3, "us"), ("cus_2", 9, "eu")]
    take_in(
        compute,
        *({**record(customer), "data": {"cpu_usage_hours": n, "region": region}} for customer, n, region in data),
    )
    page.goto(site + ADD)
    expect(page.get_by_label("Property")).to_be_visible()
    page.get_by_label("Property").select_option(label="cpu_usage_hours")
    panel = page.get_by_label("Preview", exact=True)
    expect(panel.locator("[data-quantity]")).to_have_count(2)

    page.get_by_role("button", name="+ Add condition").click()
    condition(page, 0).get_by_label("Field").select_option("region")
    expect(condition(page, 0).locator(".tb-errors")).to_have_text("Enter a value.")
    condition(page, 0).get_by_label("Value").fill("eu")
    expect(panel).to_contain_text("Sum of cpu_usage_hours, where region is “eu”")
    expect(panel.locator("[data-quantity='9']")).to_have_count(1)
    expect(panel.locator("[data-quantity='5']")).to_have_count(1)
    expect(panel.locator("canvas")).to_be_visible()

    page.get_by_label("Calculation").select_option(label="Count of records")
    expect(page.get_by_label("Property")).to_be_hidden()
    page.get_by_label("region", exact=True).check()
    expect(panel).to_contain_text("Count of records by region, where region is “eu”")
    page.get_by_label("Name").fill("European records")
    page.get_by_role("button", name="Add metric").click()
    expect(page.locator("body")).to_contain_text("was added as a draft")
    metric = Metric.objects.get()
    assert (metric.code, metric.aggregation, metric.property, metric.group_by) == (
        *("european_records", "count", ""),
        ["region"],
    )
    assert metric.filters == {"all": [{"property": "region", "operator": "eq", "value": "eu"}]}


def test_conditions_keep_every_digit_and_what_lies_deeper(page: Page, site: str, compute: UsageEvent) -> None:
    exact = Decimal("0.1000000000000000000000000001")
    deep = {"all": [{"any": [{"property": "region", "operator": "in", "value": ["1.50", "eu"]}]}]}
    filters = {
        "any": [
            {"property": "cpu_usage_hours", "operator": "gte", "value": exact},
            {"all": [{"property": "region", "operator": "exists", "value": True}, deep]},
        ]
    }
    metric = save_metric(
        Metric(
            organisation=compute.organisation,
            usage_event=compute,
            code="m",
            name="M",
            aggregation="count",
            filters=filters,
        )
    )
    page.goto(f"{site}/admin/metrics/metric/{metric.pk}/change/")
    expect(page.locator(".tb-condition")).to_have_count(2)
    expect(condition(page, 0).get_by_label("Value")).to_have_value(str(exact))
    expect(page.locator(".tb-deep")).to_contain_text('"1.50"')
    page.get_by_label("How conditions go together").nth(1).select_option("any")
    assert loads(page.locator("#id_filters").input_value()) == {
        "any": [filters["any"][0], {"any": filters["any"][1]["all"]}]  # type: ignore[index]
    }
    page.get_by_role("button", name="Remove this condition").first.click()
    page.get_by_role("button", name="Save draft").click()
    expect(page.locator("body")).to_contain_text("was saved")
    metric.refresh_from_db()
    assert metric.filters == {"any": [{"any": filters["any"][1]["all"]}]}  # type: ignore[index]


def test_a_mistake_in_sql_is_marked_at_its_line(page: Page, site: str, compute: UsageEvent) -> None:
    take_in(compute, record(hours=7))
    page.goto(site + ADD_SQL)
    text = page.get_by_role("textbox", name="SQL")
    text.fill(SELECT)
    expect(page.locator(".tb-sql-lines .tb-faulty")).to_have_text("2")
    expect(page.locator(".tb-errors")).to_contain_text("ine 2, column 7")
    text.evaluate("area => area.setSelectionRange(area.value.indexOf('cpu_usage'), area.value.indexOf(') as'))")
    page.get_by_role("button", name="cpu_usage_hours", exact=True).click()
    expect(page.locator(".tb-sql-lines .tb-faulty")).to_have_count(0)
    expect(page.locator("[data-quantity='7']")).to_have_count(1)
