"""Uploads in the admin: from the file to the result, each page in its state, mistakes at the field, tenants apart."""

import re
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from pytest_django import Settings

from customers.models import Organisation
from tests.people import HOSTILE, staff_of
from usage.definitions import archive_usage_event
from usage.models import RejectedRecord, Upload, UsageEvent, UsageRecord
from usage.uploads import check_upload, ingest_upload, stage_upload, start_upload

ADD = "/admin/usage/upload/add/"
LIST = "/admin/usage/upload/"
HEADER = "customer_id,timestamp,id,cpu_usage_hours,region\n"
GOOD = "a,2025-06-17T14:03:12Z,,1.50,eu\n"
BAD = "a,never,,1,<b>eu</b>\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, settings: Settings) -> Path:
    settings.UPLOAD_DIR = tmp_path / "uploads"
    return tmp_path / "uploads"


@pytest.fixture
def staff(organisation: Organisation, compute: UsageEvent) -> Client:
    return staff_of(organisation)


def add(client: Client, text: str | bytes, *, name: str = "june.csv", **fields: Any) -> Any:
    content = text.encode() if isinstance(text, str) else text
    usage_event = UsageEvent.objects.get(slug="compute_hours").pk
    form = {"usage_event": usage_event, "file": SimpleUploadedFile(name, content), "decimal": ".", "timezone": "UTC"}
    return client.post(ADD, {**form, **fields})


def page_of(upload: Upload) -> str:
    return f"/admin/usage/upload/{upload.pk}/change/"


def mapped(upload: Upload, **changes: str) -> dict[str, str]:
    """What the mapping page posts."""
    columns = {f"column_{number}": upload.mapping.get(name) or "" for number, name in enumerate(upload.columns)}
    return {"delimiter": upload.delimiter, "decimal": ".", "thousands": "", "timezone": "UTC", **columns, **changes}


def downloaded(response: Any) -> str:
    return b"".join(response.streaming_content).decode()


def test_from_a_file_to_its_records(staff: Client) -> None:
    response = add(staff, HEADER + GOOD + BAD)
    upload = Upload.objects.get()
    assert (response.status_code, response["Location"], str(upload.user)) == (302, page_of(upload), "olga")

    page = staff.get(page_of(upload))
    assert page.templates[0].name == "admin/usage/upload/mapping.html"
    assert [column.field.value() for column in page.context["form"].column_fields()] == [
        "customer_id", "timestamp", "id", "data.cpu_usage_hours", "data.region",
    ]  # fmt: skip
    assert "&lt;b&gt;eu&lt;/b&gt;" in page.content.decode()
    staff.post(page_of(upload), mapped(upload))
    upload.refresh_from_db()
    assert upload.status == "checking"

    text = staff.get(page_of(upload)).content.decode()
    assert f'data-tb-progress="/admin/usage/upload/{upload.pk}/progress/"' in text
    assert "upload.js" in text
    assert '<noscript><meta http-equiv="refresh"' in text
    check_upload(upload.pk)
    text = staff.get(page_of(upload)).content.decode()
    assert "1 new record would be stored" in text
    assert "Ingest 2 rows" in text
    assert re.search(r'<td class="tb-number">3</td><td><code class="tb-inline">timestamp</code>', text)
    assert not UsageRecord.objects.exists()

    assert staff.post(f"/admin/usage/upload/{upload.pk}/start/")["Location"] == page_of(upload)
    assert "Ingesting" in staff.get(page_of(upload)).content.decode()
    ingest_upload(upload.pk)
    text = staff.get(page_of(upload)).content.decode()
    assert "1 record stored" in text
    for path, count in (
        (f"/admin/usage/usagerecord/?usage_event={upload.usage_event_id}&upload={upload.pk}", 1),
        (f"/admin/usage/ingestbatch/?usage_event={upload.usage_event_id}&upload={upload.pk}", 1),
        (f"/admin/usage/rejectedrecord/?usage_event={upload.usage_event_id}&upload={upload.pk}&status=all", 1),
    ):
        assert path.replace("&", "&amp;") in text
        assert len(staff.get(path).context["cl"].result_list) == count, path
    other = f"?usage_event={upload.usage_event_id}&upload={upload.pk + 1}"
    assert len(staff.get(f"/admin/usage/usagerecord/{other}").context["cl"].result_list) == 0
    errors = downloaded(staff.get(f"/admin/usage/upload/{upload.pk}/errors/"))
    assert errors.splitlines()[1].startswith("3,timestamp,timestamp,")
    assert RejectedRecord.objects.get().batch.upload == upload


def test_the_list_shows_what_became_of_each(staff: Client) -> None:
    assert "Bring in a month of backlog" in staff.get(LIST).content.decode()
    add(staff, HEADER + GOOD)
    page = staff.get(LIST).content.decode()
    assert "june.csv" in page
    assert "Waiting for its mapping" in page


def test_progress_as_json(staff: Client) -> None:
    add(staff, HEADER + GOOD)
    upload = Upload.objects.get()
    start_upload(upload.pk)
    path = f"/admin/usage/upload/{upload.pk}/progress/"
    assert staff.get(path).json() == {
        "status": "ingesting", "under_way": True, "percent": 0, "rows_read": 0, "accepted": 0, "duplicates": 0,
        "conflicts": 0, "rejected": 0,
    }  # fmt: skip
    ingest_upload(upload.pk)
    assert staff.get(path).json() == {
        "status": "done", "under_way": False, "percent": 100, "rows_read": 1, "accepted": 1, "duplicates": 0,
        "conflicts": 0, "rejected": 0,
    }  # fmt: skip


def test_ndjson_needs_no_mapping(staff: Client) -> None:
    add(staff, '{"customer_id":"a","timestamp":"2025-06-17T14:03:12Z","data":{}}\n', name="june.NDJSON")
    upload = Upload.objects.get()
    assert (upload.format, upload.status) == ("ndjson", "checking")
    check_upload(upload.pk)
    page = staff.get(page_of(upload)).content.decode()
    assert "Change the mapping" not in page
    assert "1 new record would be stored" in page


def test_another_delimiter_reads_the_columns_anew(staff: Client) -> None:
    add(staff, "customer_id;timestamp;a,b,c,d\nx;2025-06-17T14:03:12Z;1\n")
    upload = Upload.objects.get()
    assert upload.delimiter == ","
    staff.post(page_of(upload), mapped(upload, delimiter=";"))
    upload.refresh_from_db()
    assert (upload.status, upload.columns) == ("staged", ["customer_id", "timestamp", "a,b,c,d"])
    assert upload.mapping == {"customer_id": "customer_id", "timestamp": "timestamp"}
    staff.post(page_of(upload), mapped(upload, column_2="-"))
    upload.refresh_from_db()
    assert (upload.status, upload.mapping["a,b,c,d"]) == ("checking", None)


def test_a_mapping_can_be_changed_after_the_trial(staff: Client) -> None:
    add(staff, HEADER + GOOD)
    upload = Upload.objects.get()
    staff.post(page_of(upload), mapped(upload))
    check_upload(upload.pk)
    page = staff.get(page_of(upload) + "?mapping")
    assert page.templates[0].name == "admin/usage/upload/mapping.html"
    staff.post(page_of(upload) + "?mapping", mapped(upload, column_4="-"))
    upload.refresh_from_db()
    assert (upload.status, upload.mapping["region"], upload.check_result) == ("checking", None, None)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"column_0": ""}, "column_0"),
        ({"column_0": "timestamp"}, "column_1"),
        ({"column_0": "data.nothing"}, "column_0"),
        ({"column_0": "-"}, "__all__"),
        ({"thousands": "."}, "thousands"),
        ({"timezone": "Mars"}, "timezone"),
        ({"delimiter": "|"}, "delimiter"),
        ({"delimiter": "\t"}, None),
    ],
)
def test_a_mapping_that_cannot_be_is_told_at_the_field(
    staff: Client, changes: dict[str, str], field: str | None
) -> None:
    add(staff, HEADER + GOOD)
    upload = Upload.objects.get()
    response = staff.post(page_of(upload), mapped(upload, **changes))
    if field is None:
        assert response.status_code == 302
    else:
        assert field in response.context["form"].errors
    upload.refresh_from_db()
    assert upload.status == "staged"


def test_a_file_that_cannot_be_is_told_at_the_field(staff: Client, compute: UsageEvent, settings: Settings) -> None:
    for content, message in (
        (b"", "A header and at least one row were expected, the file is empty."),
        (b"\xff", "UTF-8 was expected, byte 0 of the file (line 1) is 0xff; save it as UTF-8."),
        (b"a,a\n1,2\n", "Line 1: columns with different names were expected, got &#x27;a&#x27; twice."),
    ):
        response = add(staff, content)
        assert list(response.context["form"].errors) == ["file"]
        assert message in response.content.decode()
    archive_usage_event(compute, archived=True)
    assert list(add(staff, HEADER + GOOD).context["form"].errors) == ["usage_event"]
    assert not Upload.objects.exists()
    settings.UPLOAD_MAX_BYTES = 10
    assert add(staff, HEADER + GOOD).status_code == 400


def test_nothing_that_is_posted_is_a_fault(staff: Client) -> None:
    for value in HOSTILE:
        names = ("usage_event", "file_format", "delimiter", "decimal", "thousands", "timezone")
        refused = add(staff, HEADER + GOOD, **dict.fromkeys(names, value))
        assert refused.context["form"].errors.keys() >= {"file_format", "delimiter", "timezone"}, value
    for file_name in ("\0", "x" * 300, "../../etc/passwd", "a/b"):
        assert add(staff, HEADER + GOOD, name=file_name).status_code in (200, 302)
    add(staff, HEADER + GOOD)
    upload = Upload.objects.latest("pk")
    for value in HOSTILE:
        changes = dict.fromkeys(("delimiter", "column_0", "timezone", "decimal"), value)
        refused = staff.post(page_of(upload), mapped(upload, **changes))
        assert refused.context["form"].errors.keys() >= {"delimiter", "column_0", "timezone"}, value
    for query in ("?upload=%00", "?upload=abc", "?upload=" + "9" * 30):
        for path in ("usagerecord", "rejectedrecord", "ingestbatch"):
            assert staff.get(f"/admin/usage/{path}/{query}").status_code == 200
    upload.refresh_from_db()
    assert upload.status == "staged"


def test_discarding(staff: Client, folder: Path) -> None:
    add(staff, HEADER + GOOD)
    upload = Upload.objects.get()
    assert staff.get(f"/admin/usage/upload/{upload.pk}/discard/").status_code == 403
    assert staff.post(f"/admin/usage/upload/{upload.pk}/discard/")["Location"] == LIST
    assert list(folder.iterdir()) == []
    page = staff.get(page_of(upload)).content.decode()
    assert "This upload was given up" in page
    refused = staff.post(f"/admin/usage/upload/{upload.pk}/start/", follow=True).content.decode()
    assert "This upload was not started" in refused


def test_what_stopped_goes_on(staff: Client, compute: UsageEvent) -> None:
    add(staff, HEADER + GOOD)
    upload = Upload.objects.get()
    start_upload(upload.pk)
    archive_usage_event(compute, archived=True)
    ingest_upload(upload.pk)
    page = staff.get(page_of(upload)).content.decode()
    assert "the usage event was archived" in page
    assert "Go on" in page
    archive_usage_event(compute, archived=False)
    staff.post(f"/admin/usage/upload/{upload.pk}/start/")
    ingest_upload(upload.pk)
    assert "1 record stored" in staff.get(page_of(upload)).content.decode()


def test_staff_sees_the_uploads_of_its_organisation_only(staff: Client, compute: UsageEvent) -> None:
    upload = stage_upload(compute, [(HEADER + GOOD).encode()], file_name="zanzibar.csv", file_format="csv")
    other = staff_of(Organisation.objects.create(name="Other"), name="otto")
    assert "zanzibar" not in other.get(LIST).content.decode()
    for path in ("change", "progress", "errors", "start", "discard"):
        for response in (
            other.get(f"/admin/usage/upload/{upload.pk}/{path}/"),
            other.post(f"/admin/usage/upload/{upload.pk}/{path}/", {}),
        ):
            assert response.status_code in (302, 403, 404), path
            assert b"zanzibar" not in response.content
    refused = add(other, HEADER + GOOD)
    assert list(refused.context["form"].errors) == ["usage_event"]
    upload.refresh_from_db()
    assert (upload.status, Upload.objects.count()) == ("staged", 1)
