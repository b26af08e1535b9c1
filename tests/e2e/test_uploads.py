"""An upload in a real browser: the file, its columns, the trial, the bar that moves by itself, the result."""

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.people import staff_of
from usage import upload_chunks
from usage.models import Upload, UsageEvent
from usage.uploads import check_upload, ingest_upload

pytestmark = pytest.mark.browser


@pytest.fixture
def signed_in_page(page: Page, live_server: Any, settings: Any, tmp_path: Path, compute: UsageEvent) -> Page:
    settings.UPLOAD_DIR = tmp_path / "uploads"
    browser = staff_of(compute.organisation)
    page.context.add_cookies(
        [{"name": "sessionid", "value": browser.cookies["sessionid"].value, "url": live_server.url}]
    )
    page.goto(f"{live_server.url}/admin/usage/upload/add/")
    return page


def test_a_file_becomes_records_while_somebody_looks_on(
    signed_in_page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = signed_in_page
    path = tmp_path / "june.csv"
    rows = "".join(f"cus_{n};2025-06-17T14:03:12Z;{n},5;x\n" for n in range(30))
    path.write_text("Customer ID;timestamp;cpu_usage_hours;Note\n" + rows + "cus_1;yesterday;1;x\n")

    page.get_by_label("Usage event").select_option(label="Compute hours")
    page.get_by_label("File").set_input_files(path)
    page.get_by_role("button", name="Upload and look at it").click()
    expect(page.get_by_text("1 column did not say what it means")).to_be_visible()
    page.get_by_label("Note").select_option("Leave out")
    page.get_by_label("Decimal sign").select_option(",")
    page.get_by_role("button", name="Try it out").click()

    expect(page.get_by_role("heading", name="Trying it out")).to_be_visible()
    upload = Upload.objects.get()
    check_upload(upload.pk)
    expect(page.get_by_role("heading", name="30 new records would be stored")).to_be_visible()
    expect(page.locator("#errors")).to_contain_text("yesterday")
    page.get_by_role("button", name="Ingest 31 rows").click()

    monkeypatch.setattr(upload_chunks, "CHUNK_ROWS", 10)
    assert ingest_upload(upload.pk, seconds=0)
    expect(page.locator('[data-tb-count="rows_read"]')).to_have_text("10")
    assert int(page.get_by_role("progressbar").get_attribute("aria-valuenow") or 0) in range(25, 40)
    ingest_upload(upload.pk)
    expect(page.get_by_role("heading", name="30 records stored")).to_be_visible()
    page.get_by_role("link", name="Records", exact=True).click()
    expect(page.locator("#result_list tbody")).to_have_count(30)
