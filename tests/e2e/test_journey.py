"""The main job in a real browser: usage in by the shown curl, a quantity out, a correction, and its history."""

import json
import re
import shlex
from typing import Any
from urllib.request import Request, urlopen

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from customers.models import Membership, Organisation
from metrics.materialization import build, fold
from metrics.models import Metric
from usage.models import UsageEvent

pytestmark = pytest.mark.browser

PASSWORD = "a-long-enough-password"
SCHEMA = {"type": "object", "properties": {"gpu_hours": {"type": "number"}}, "additionalProperties": False}


@pytest.fixture
def errors(page: Page) -> list[str]:
    """What the browser complained about, on any page of the journey."""
    noted: list[str] = []
    page.on("console", lambda message: noted.append(message.text) if message.type == "error" else None)
    return noted


@pytest.fixture
def site(live_server: Any, settings: Any) -> str:
    settings.SITE_URL = live_server.url
    return str(live_server.url)


@pytest.fixture
def operator(organisation: Organisation) -> User:
    """A member of the staff, without any Django permission."""
    user = User.objects.create_user("olga", password=PASSWORD, is_staff=True, first_name="Olga", last_name="Ops")
    Membership.objects.create(organisation=organisation, user=user)
    return user


def test_usage_in_a_quantity_out_and_a_correction_in_between(
    page: Page, errors: list[str], site: str, operator: User
) -> None:
    sign_in(page, site)
    curl = add_usage_event(page)
    answer = run_shown_curl(curl, issue_key(page))
    assert (answer["accepted"], answer["rejected"]) == (1, 0)

    go_to(page, "Usage records")
    expect(page.locator("#result_list tbody")).to_have_count(1)
    expect(page.locator("#result_list")).to_contain_text('{"gpu_hours":5}')

    add_and_activate_metric(page)
    metric = Metric.objects.get()
    assert build(metric.pk)
    page.reload()
    expect(page.get_by_label("Formula")).to_contain_text("Active")
    page.get_by_label("Formula").locator("xpath=following::a[normalize-space()='Quantities']").click()
    assert shown_quantity(page) == "5"

    correct(page)
    expect(page.locator("#history")).to_contain_text("Olga Ops")
    expect(page.locator("#history")).to_contain_text("“the meter counted minutes”")
    expect(page.locator("#history del")).to_have_text("5")
    expect(page.locator("#history ins")).to_have_text("0.08333333333333333333")

    show_quantities(page)
    assert shown_quantity(page) == "0.08333333333333333333"
    fold(UsageEvent.objects.get().pk)
    page.reload()
    assert shown_quantity(page) == "0.08333333333333333333"
    assert errors == []


def sign_in(page: Page, site: str) -> None:
    page.goto(f"{site}/")
    page.get_by_label("Username").fill("olga")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name=re.compile("Log in")).click()
    expect(page.get_by_role("heading", name="Engineers")).to_be_visible()


def go_to(page: Page, entry: str) -> None:
    page.locator("#nav-sidebar-apps").get_by_role("link", name=entry).click()


def add_usage_event(page: Page) -> str:
    """Add a usage event and return the curl that is shown for it."""
    go_to(page, "Usage events")
    page.get_by_role("link", name="ADD USAGE EVENT").first.click()
    page.get_by_label("Usage event name").press_sequentially("GPU hours, Zürich")
    expect(page.get_by_label("API slug endpoint")).to_have_value("gpu_hours_zurich")
    expect(page.locator("[data-tb-preview]")).to_contain_text("/usage/gpu_hours_zurich")
    page.get_by_label("API slug endpoint").fill("gpu_hours")
    page.get_by_label("Your data schema").fill('{"type": "object",\n  "properties": oops}')
    page.get_by_role("button", name="Add usage event").click()
    expect(page.locator(".tb-errors")).to_contain_text("Line 2, column 17")
    page.get_by_label("Your data schema").fill(json.dumps(SCHEMA))
    page.get_by_role("button", name="Add usage event").click()
    expect(page.get_by_role("heading", name="Ready: post the first record")).to_be_visible()
    return page.locator("#tb-curl").inner_text()


def issue_key(page: Page) -> str:
    """Issue an API key and return the secret that is shown once."""
    page.get_by_role("link", name="Issue an API key").click()
    page.get_by_label("Name").fill("The journey")
    page.get_by_role("button", name="Issue key").click()
    secret = page.locator("#tb-secret").inner_text()
    page.get_by_role("link", name="I have copied it").click()
    expect(page.locator("body")).not_to_contain_text(secret)
    return secret


def run_shown_curl(command: str, api_key: str) -> Any:
    """Send what the command would send; a shell would put the key in the place of $API_KEY."""
    words = shlex.split(command.replace("\\\n", " ").replace("$API_KEY", api_key))
    assert words[:3] == ["curl", "-X", "POST"]
    headers = dict(words[i + 1].split(": ", 1) for i, word in enumerate(words) if word == "-H")
    body = words[words.index("--data-raw") + 1]
    with urlopen(Request(words[3], body.encode(), headers, method="POST"), timeout=10) as response:
        assert response.status == 201
        return json.load(response)


def add_and_activate_metric(page: Page) -> None:
    go_to(page, "Metrics")
    page.get_by_role("link", name="ADD METRIC").first.click()
    page.get_by_label("Usage event").select_option(label="GPU hours, Zürich")
    page.get_by_label("Name").press_sequentially("GPU time")
    expect(page.get_by_label("Code")).to_have_value("gpu_time")
    page.get_by_label("Property").select_option(label="gpu_hours")
    page.get_by_role("button", name="Add metric").click()
    page.get_by_role("button", name="Activate").click()
    expect(page.locator("body")).to_contain_text("Building from history")


def show_quantities(page: Page) -> None:
    go_to(page, "Quantities")
    page.get_by_label("Metric").select_option(label="GPU time")
    page.get_by_role("button", name="Show quantities").click()


def shown_quantity(page: Page) -> str | None:
    row = page.locator("#quantities tbody tr")
    expect(row).to_have_count(1)
    return row.locator("[data-quantity]").get_attribute("data-quantity")


def correct(page: Page) -> None:
    """From the quantity to the record behind it, first without a reason, then with one."""
    page.locator("#quantities tbody a").click()
    page.locator("#result_list th a").click()
    page.get_by_label("gpu_hours").fill("0.08333333333333333333")
    page.get_by_role("button", name="Save correction").click()
    expect(page.locator(".tb-errors")).to_have_text("This field is required.")
    page.get_by_label("Reason").fill("the meter counted minutes")
    page.get_by_role("button", name="Save correction").click()
    expect(page.locator("body")).to_contain_text("was corrected")
