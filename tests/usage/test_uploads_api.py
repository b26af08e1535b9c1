"""Uploads over HTTP and from the command line: every parameter, every refusal, and never another organisation's."""

import io
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.test import Client
from pytest_django import Settings

from customers.keys import issue_api_key
from customers.models import Organisation
from tests.people import HOSTILE
from usage.definitions import archive_usage_event, publish_schema
from usage.models import Upload, UsageEvent, UsageRecord
from usage.openapi_schemas import UPLOAD_PARAMETERS, UPLOAD_READING
from usage.tasks import check_staged_upload, ingest_staged_upload, remove_old_uploads, wake_uploads
from usage.upload_files import errors_path_of
from usage.views.upload_requests import PARAMETERS, READING

UPLOADS = "/api/uploads/"
HEADER = "customer_id,timestamp,id,cpu_usage_hours,region\n"
GOOD = HEADER + "a,2025-06-17T14:03:12Z,,1.50,eu\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, settings: Settings) -> Path:
    settings.UPLOAD_DIR = tmp_path / "uploads"
    return tmp_path / "uploads"


@pytest.fixture
def send(client: Client, headers: dict[str, str], compute: UsageEvent) -> Any:
    """send(text, **parameters): a form with the file, as `curl -F` makes it."""

    def send_form(text: str | bytes, file_name: str = "june.csv", **parameters: str) -> Any:
        content = text.encode() if isinstance(text, str) else text
        form = {"usage_event": "compute_hours", "file": SimpleUploadedFile(file_name, content), **parameters}
        return client.post(UPLOADS, form, headers=headers)

    return send_form


def get(client: Client, headers: dict[str, str], path: str = "") -> Any:
    return client.get(UPLOADS + path, headers=headers)


def test_a_file_is_tried_out_started_and_followed(client: Client, headers: dict[str, str], send: Any) -> None:
    sent = send(GOOD + "a,never,,1,eu\n")
    assert sent.status_code == 201
    upload = sent.json()
    assert (upload["status"], upload["undecided"], upload["file_name"], upload["check"]) == (
        "checking",
        [],
        "june.csv",
        None,
    )
    check_staged_upload(int(upload["id"]))

    checked = get(client, headers, f"{upload['id']}/").json()
    assert checked["status"] == "checked"
    assert (checked["check"]["rows"], checked["check"]["new"], checked["check"]["rejected"]) == (2, 1, 1)
    assert checked["check"]["errors"][0]["line"] == 3

    started = client.post(f"{UPLOADS}{upload['id']}/start/", headers=headers)
    assert (started.status_code, started.json()["status"]) == (202, "ingesting")
    ingest_staged_upload(int(upload["id"]))
    done = get(client, headers, f"{upload['id']}/").json()
    assert {name: done[name] for name in ("status", "rows_read", "accepted", "rejected", "bytes_done")} == {
        "status": "done", "rows_read": 2, "accepted": 1, "rejected": 1, "bytes_done": done["size"],
    }  # fmt: skip
    errors = get(client, headers, f"{upload['id']}/errors/")
    text = b"".join(errors.streaming_content).decode()
    assert text.splitlines()[0] == "line,code,column,message,row"
    assert text.splitlines()[1].startswith("3,timestamp,timestamp,")
    assert errors["Content-Disposition"] == f'attachment; filename="upload-{upload["id"]}-errors.csv"'
    assert [row["id"] for row in get(client, headers).json()["results"]] == [upload["id"]]


def test_the_same_file_again_names_the_first(send: Any) -> None:
    first = send(GOOD, start="true").json()
    ingest_staged_upload(int(first["id"]))
    assert first["same_file_as"] is None
    assert send(GOOD).json()["same_file_as"] == first["id"]


def test_a_body_without_a_form(client: Client, headers: dict[str, str], compute: UsageEvent) -> None:
    line = '{"customer_id":"a","timestamp":"2025-06-17T14:03:12Z","data":{}}\n'
    for media_type, text, file_format in (("text/csv", GOOD, "csv"), ("application/x-ndjson", line, "ndjson")):
        path = UPLOADS + "?usage_event=compute_hours&file_name=x&start=true"
        answer = client.post(path, text, content_type=media_type, headers=headers)
        assert (answer.status_code, answer.json()["format"], answer.json()["status"]) == (201, file_format, "ingesting")
    wake_uploads_by_hand()
    assert UsageRecord.objects.count() == 2


def wake_uploads_by_hand() -> None:
    for upload in Upload.objects.under_way():
        ingest_staged_upload(upload.pk)


def test_columns_that_wait_are_decided_on_later(client: Client, headers: dict[str, str], send: Any) -> None:
    upload = send("customer;timestamp;Note\na;2025-06-17T14:03:12Z;hi\n").json()
    assert (upload["status"], upload["delimiter"], upload["undecided"]) == ("staged", ";", ["Note"])
    assert upload["mapping"] == {"customer": "customer_id", "timestamp": "timestamp"}
    path = f"{UPLOADS}{upload['id']}/"
    refused = client.post(path + "start/", headers=headers)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (400, "mapping")

    mapping = {**upload["mapping"], "Note": None}
    changed = client.patch(path, json.dumps({"mapping": mapping}), content_type="application/json", headers=headers)
    assert (changed.status_code, changed.json()["status"], changed.json()["mapping"]) == (200, "checking", mapping)


@pytest.mark.parametrize(
    ("parameters", "status", "field"),
    [
        ({"usage_event": "nowhere"}, 400, "usage_event"),
        ({"usage_event": ""}, 400, "usage_event"),
        ({"format": "xlsx"}, 400, "format"),
        ({"start": "yes"}, 400, "start"),
        ({"delimiter": "|"}, 400, "delimiter"),
        ({"timezone": "Mars"}, 400, "timezone"),
        ({"mapping": "{"}, 400, "mapping"),
        ({"mapping": "[]"}, 400, "mapping"),
        ({"mapping": '{"customer_id": "customer_id"}'}, 400, "mapping"),
        ({"maping": "{}"}, 400, "maping"),
    ],
)
def test_a_refusal_names_its_field_and_keeps_nothing(
    send: Any, folder: Path, parameters: dict[str, str], status: int, field: str
) -> None:
    answer = send(GOOD, **parameters)
    assert (answer.status_code, answer["Content-Type"]) == (status, "application/problem+json")
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert not Upload.objects.exists()
    assert not list(folder.iterdir()) if folder.exists() else True


def test_nothing_that_is_sent_is_a_fault(client: Client, headers: dict[str, str], send: Any) -> None:
    for name in ("usage_event", "format", "file_name", "delimiter", "decimal", "thousands", "timezone", "mapping"):
        for value in HOSTILE:
            assert send(GOOD, **{name: value}).status_code in (201, 400), (name, value)
    for text in ("", "\0", "\ufeff", '"', "a" * 2_000_000, b"\xff\xfe", "customer_id,timestamp\n\0,\0\n"):
        answer = send(text)
        assert answer.status_code in (201, 400), text[:20]
    for body, media_type in (
        ("x", "application/json"),
        ("x", "multipart/form-data"),
        ("x", "multipart/form-data; boundary=b"),
        ("", "text/csv"),
    ):
        answer = client.post(UPLOADS + "?usage_event=compute_hours", body, content_type=media_type, headers=headers)
        assert answer.status_code in (400, 415), media_type
    for upload in Upload.objects.under_way():
        check_staged_upload(upload.pk)
        upload.refresh_from_db()
        assert upload.status in ("checked", "failed")
    for body in ("[]", "{", '{"mapping": 5}', '{"delimiter": 5}', '{"foo": 1}', '{"mapping": {"a": 5}}', '"\\ud800"'):
        upload_id = Upload.objects.latest("pk").pk
        path = f"{UPLOADS}{upload_id}/"
        answer = client.patch(path, body, content_type="application/json", headers=headers)
        assert answer.status_code == 400, body


def test_a_file_over_the_limit_is_413(
    client: Client, headers: dict[str, str], send: Any, settings: Settings, folder: Path
) -> None:
    settings.UPLOAD_MAX_BYTES = len(GOOD)
    assert send(GOOD).status_code == 201
    assert send(GOOD + "\n").status_code == 413
    path = UPLOADS + "?usage_event=compute_hours"
    assert client.post(path, GOOD + "\n", content_type="text/csv", headers=headers).status_code == 413
    assert len(list(folder.iterdir())) == 1


def test_states_that_do_not_fit_are_409(client: Client, headers: dict[str, str], send: Any) -> None:
    upload = send(GOOD, start="true").json()
    again = client.post(f"{UPLOADS}{upload['id']}/start/", headers=headers)
    changed = client.patch(
        f"{UPLOADS}{upload['id']}/", '{"decimal": ","}', content_type="application/json", headers=headers
    )
    assert (again.status_code, changed.status_code) == (409, 409)


def test_an_archived_usage_event_is_told(send: Any, compute: UsageEvent) -> None:
    archive_usage_event(compute, archived=True)
    answer = send(GOOD)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "usage_event")


def test_scopes(client: Client, compute: UsageEvent, send: Any) -> None:
    upload = send(GOOD).json()["id"]
    expected = {"ingest": (200, 202), "read": (200, 403), "manage": (403, 403)}
    for scope, (reading, writing) in expected.items():
        _, secret = issue_api_key(compute.organisation, scope, [scope])
        mine = {"organisation": str(compute.organisation.key), "x-api-key": secret}
        check_staged_upload(int(upload))
        assert get(client, mine, f"{upload}/").status_code == reading
        assert client.post(f"{UPLOADS}{upload}/start/", headers=mine).status_code == writing


def test_nothing_of_another_organisation_is_there(client: Client, send: Any) -> None:
    upload = send(GOOD).json()["id"]
    other = Organisation.objects.create(name="Other")
    _, secret = issue_api_key(other, "k", ["ingest", "read"])
    theirs = {"organisation": str(other.key), "x-api-key": secret}

    assert get(client, theirs).json()["results"] == []
    for number in (upload, "999999"):
        assert get(client, theirs, f"{number}/").status_code == 404
        assert get(client, theirs, f"{number}/errors/").status_code == 404
        assert client.post(f"{UPLOADS}{number}/start/", headers=theirs).status_code == 404
        path, body = f"{UPLOADS}{number}/", '{"decimal": ","}'
        assert client.patch(path, body, content_type="application/json", headers=theirs).status_code == 404
    refused = client.post(
        UPLOADS, {"usage_event": "compute_hours", "file": SimpleUploadedFile("x", b"a")}, headers=theirs
    )
    assert refused.status_code == 400
    assert Upload.objects.get().status == "checking"


def test_removed_error_files_are_404(client: Client, headers: dict[str, str], send: Any) -> None:
    upload = send(HEADER + "a,never,,1,eu\n", start="true").json()["id"]
    ingest_staged_upload(int(upload))
    assert get(client, headers, f"{upload}/errors/").status_code == 200
    errors_path_of(Upload.objects.get().stored_name).unlink()
    assert get(client, headers, f"{upload}/errors/").status_code == 404


# --- tasks and the command --------------------------------------------------------------------------------------------


def test_what_is_under_way_is_taken_up_from_the_database(send: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    checking, ingesting = send(GOOD).json()["id"], send(GOOD, start="true").json()["id"]
    send("customer_id,timestamp,x\na,2025-06-17T14:03:12Z,1\n")
    sent: list[tuple[str, int]] = []
    for task in (check_staged_upload, ingest_staged_upload):
        monkeypatch.setattr(
            task, "apply_async", lambda args, expires, name=task.name: sent.append((name.rpartition(".")[2], *args))
        )
    wake_uploads()
    assert sent == [("check_staged_upload", int(checking)), ("ingest_staged_upload", int(ingesting))]


def test_the_tasks_may_run_at_any_time(compute: UsageEvent) -> None:
    remove_old_uploads()
    check_staged_upload(1)
    with pytest.raises(Upload.DoesNotExist):
        ingest_staged_upload(1)


def command(*arguments: str) -> dict[str, Any]:
    out = io.StringIO()
    call_command("ingest_upload", *arguments, stdout=out, stderr=io.StringIO())
    return dict(json.loads(out.getvalue()))


def test_the_command(compute: UsageEvent, tmp_path: Path) -> None:
    path = tmp_path / "june.csv"
    path.write_text(GOOD + "a,never,,1,eu\n")
    where = (str(path), "--organisation", str(compute.organisation.key), "--usage-event", "compute_hours")

    tried = command(*where, "--dry-run")
    assert (tried["status"], tried["new"], tried["rejected"]) == ("checked", 1, 1)
    done = command("--resume", str(tried["upload"]))
    assert Path(done.pop("error_file")).exists()
    assert done == {
        "upload": tried["upload"], "status": "done", "rows_read": 2, "accepted": 1, "duplicates": 0, "conflicts": 0,
        "rejected": 1,
    }  # fmt: skip
    assert command(*where)["duplicates"] == 1


def test_the_command_says_what_is_wrong(compute: UsageEvent, tmp_path: Path) -> None:
    path = tmp_path / "june.csv"
    path.write_bytes(b"\xff")
    where = ("--organisation", str(compute.organisation.key), "--usage-event", "compute_hours")
    for arguments, message in (
        ((str(path), *where), "UTF-8 was expected"),
        ((str(path),), "the slug of a usage event"),
        (where, "a file was expected"),
        ((str(tmp_path / "none"), *where), "No such file"),
        (("--resume", "77"), "the id of an upload was expected"),
    ):
        with pytest.raises(CommandError, match=message):
            command(*arguments)
    assert not Upload.objects.exists()


def test_the_document_names_every_parameter_of_an_upload() -> None:
    assert sorted(UPLOAD_PARAMETERS) == sorted(PARAMETERS)
    assert sorted(UPLOAD_READING) == sorted(READING)


@pytest.mark.parametrize("target", ["data.\\ud800", "data.\\u0000"])
def test_a_mapping_to_a_name_that_cannot_be_stored_is_refused(
    client: Client, headers: dict[str, str], compute: UsageEvent, target: str
) -> None:
    publish_schema(compute, {"type": "object"})
    mapping = quote('{"customer_id":"customer_id","timestamp":"timestamp","x":"' + target + '"}')
    answer = client.post(
        f"/api/uploads/?usage_event=compute_hours&mapping={mapping}",
        b"customer_id,timestamp,x\na,2025-06-17T14:03:12Z,1\n",
        content_type="text/csv",
        headers=headers,
    )

    assert answer.status_code == 400
    assert [error["field"].partition(".")[0] for error in answer.json()["errors"]] == ["mapping"]
    assert not Upload.objects.exists()


def test_two_files_in_one_form_are_refused(client: Client, headers: dict[str, str], compute: UsageEvent) -> None:
    files = [SimpleUploadedFile("a.csv", GOOD.encode()), SimpleUploadedFile("b.csv", GOOD.encode())]
    answer = client.post("/api/uploads/", {"usage_event": "compute_hours", "file": files}, headers=headers)

    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == ["file"]
    assert not Upload.objects.exists()


def test_a_null_character_in_the_slug_names_no_usage_event(
    client: Client, headers: dict[str, str], compute: UsageEvent
) -> None:
    path = "/api/uploads/?usage_event=compute_hours%00"
    answer = client.post(path, GOOD.encode(), content_type="text/csv", headers=headers)

    assert answer.status_code == 400
    assert not Upload.objects.exists()
