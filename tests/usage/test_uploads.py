"""Uploads: staged, tried out, ingested chunk by chunk; what is stored, counted, refused and told."""

import csv
import hashlib
import io
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.utils.timezone import now
from pytest_django import Settings

from customers.keys import issue_api_key
from customers.models import Customer
from tests.conftest import record, take_in
from usage import upload_chunks
from usage.corrections import Actor
from usage.definitions import archive_usage_event, create_usage_event, publish_schema
from usage.models import IngestBatch, RejectedRecord, Upload, UsageEvent, UsageRecord
from usage.quarantine import replay_rejected
from usage.upload_files import FileRefused, FileTooLarge, errors_path_of, path_of, read_errors
from usage.upload_reading import Reading, UploadRefused
from usage.uploads import (
    NotNow,
    check_upload,
    discard_upload,
    ingest_upload,
    map_upload,
    remove_old_files,
    same_file_as,
    stage_upload,
    start_check,
    start_upload,
)

HEADER = "customer_id,timestamp,id,cpu_usage_hours,region\n"
TIME = "2025-06-17T14:03:12Z"
NEVER_CLOSED = "a row of CSV was expected: a quotation mark is opened and never closed"
A_TIME = "expected RFC 3339 such as '2025-06-17T14:03:12Z', or 'YYYY-MM-DD HH:MM:SS', got '17.06.2025'"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, settings: Settings) -> Path:
    settings.UPLOAD_DIR = tmp_path / "uploads"
    return tmp_path / "uploads"


def stage(usage_event: UsageEvent, text: str | bytes, *, file_format: str = "csv", **options: Any) -> Upload:
    content = text.encode() if isinstance(text, str) else text
    return stage_upload(usage_event, [content], file_name="june.csv", file_format=file_format, **options)


def bring_in(usage_event: UsageEvent, text: str | bytes, **options: Any) -> Upload:
    upload = stage(usage_event, text, **options)
    start_upload(upload.pk)
    assert ingest_upload(upload.pk) is False
    upload.refresh_from_db()
    return upload


def tried(usage_event: UsageEvent, text: str | bytes, **options: Any) -> dict[str, Any]:
    upload = stage(usage_event, text, **options)
    start_check(upload.pk)
    assert check_upload(upload.pk)
    upload.refresh_from_db()
    assert upload.status == "checked"
    return dict(upload.check_result)


def counts(upload: Upload) -> tuple[int, ...]:
    return upload.rows_read, upload.accepted, upload.duplicates, upload.conflicts, upload.rejected


def error_file(upload: Upload) -> list[list[str]]:
    text = b"".join(read_errors(upload.stored_name, upload.errors_bytes)).decode()
    return list(csv.reader(io.StringIO(text)))


# --- staging ----------------------------------------------------------------------------------------------------------


def test_a_staged_file_is_kept_for_us_alone_under_a_name_of_ours(compute: UsageEvent, folder: Path) -> None:
    text = HEADER + f"a,{TIME},,1,eu\n"
    upload = stage(compute, text)

    assert (folder.stat().st_mode & 0o777, path_of(upload.stored_name).stat().st_mode & 0o777) == (0o700, 0o600)
    assert path_of(upload.stored_name).read_text() == text
    assert "june" not in upload.stored_name
    assert (upload.size, upload.sha256) == (len(text), hashlib.sha256(text.encode()).hexdigest())
    assert (upload.status, upload.file_name, upload.delimiter) == ("staged", "june.csv", ",")
    assert upload.mapping == {
        "customer_id": "customer_id",
        "timestamp": "timestamp",
        "id": "id",
        "cpu_usage_hours": "data.cpu_usage_hours",
        "region": "data.region",
    }
    assert not UsageRecord.objects.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a header and at least one row were expected, the file is empty"),
        (b"\xef\xbb\xbf", "a header and at least one row were expected, the file is empty"),
        (b"\n\n", "a header and at least one row were expected, the file is empty"),
        (HEADER.encode(), "at least one row was expected, the file holds none"),
        (b"a,b,a\n1,2,3\n", "line 1: columns with different names were expected, got 'a' twice"),
        (b'"a,b\n1,2\n', f"line 1: a header was expected: {NEVER_CLOSED}"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_at_all_is_refused(
    compute: UsageEvent, folder: Path, content: bytes, message: str
) -> None:
    with pytest.raises(UploadRefused) as refused:
        stage(compute, content)
    assert (refused.value.field, str(refused.value)) == ("file", message)
    assert not Upload.objects.exists()
    assert list(folder.iterdir()) == []


def test_what_is_not_utf8_is_refused_with_its_byte_and_line(compute: UsageEvent, folder: Path) -> None:
    content = HEADER.encode() + f"a,{TIME},,1,eu\n".encode() + b"M\xfcller,"
    pieces = [content[index : index + 7] for index in range(0, len(content), 7)]
    with pytest.raises(FileRefused) as refused:
        stage_upload(compute, pieces, file_name="x", file_format="csv")
    where = len(content) - 6
    assert str(refused.value) == (f"UTF-8 was expected, byte {where} of the file (line 3) is 0xfc; save it as UTF-8")
    with pytest.raises(FileRefused, match="byte 5 of the file"):
        stage_upload(compute, [b"abcde\xc3"], file_name="x", file_format="csv")
    assert list(folder.iterdir()) == []


def test_a_character_may_lie_between_two_pieces(compute: UsageEvent) -> None:
    content = (HEADER + f"Müller,{TIME},,1,eu\n").encode()
    upload = stage_upload(compute, [content[i : i + 1] for i in range(len(content))], file_name="x", file_format="csv")
    assert upload.size == len(content)


def test_a_file_over_the_limit_is_refused_while_it_comes(compute: UsageEvent, folder: Path, settings: Settings) -> None:
    row = (HEADER + f"a,{TIME},,1,eu\n").encode()
    settings.UPLOAD_MAX_BYTES = len(row)
    assert stage(compute, row).size == len(row)

    def endless() -> Any:
        while True:
            yield row

    with pytest.raises(FileTooLarge, match=f"a file of at most {len(row)} bytes is taken"):
        stage_upload(compute, endless(), file_name="x", file_format="csv")
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize(
    ("reading", "field"),
    [
        (Reading(delimiter="|"), "delimiter"),
        (Reading(decimal="x"), "decimal"),
        (Reading(thousands="."), "thousands"),
        (Reading(timezone="Europe/Nowhere"), "timezone"),
        (Reading(mapping={"customer_id": "customer_id"}), "mapping"),
        (Reading(mapping={**dict.fromkeys(HEADER.strip().split(",")), "customer_id": "customer_id"}), "mapping"),
        (Reading(mapping={**dict.fromkeys(HEADER.strip().split(",")), "foo": None}), "mapping"),
        (Reading(mapping={**dict.fromkeys(HEADER.strip().split(","), "customer_id")}), "mapping"),
        (Reading(mapping={**dict.fromkeys(HEADER.strip().split(",")), "id": "data.nothing"}), "mapping"),
        (Reading(mapping={**dict.fromkeys(HEADER.strip().split(",")), "id": 5}), "mapping"),
    ],
)
def test_a_reading_that_cannot_be_names_its_field(compute: UsageEvent, reading: Reading, field: str) -> None:
    with pytest.raises(UploadRefused) as refused:
        stage(compute, HEADER + f"a,{TIME},,1,eu\n", reading=reading)
    assert refused.value.field == field
    assert not Upload.objects.exists()


def test_a_column_that_nobody_knows_must_be_decided_on(compute: UsageEvent) -> None:
    upload = stage(compute, f"customer_id,timestamp,note\na,{TIME},hi\n")
    for act in (start_check, start_upload):
        with pytest.raises(UploadRefused, match="got none for 'note'"):
            act(upload.pk)
    upload = map_upload(upload.pk, Reading(mapping={**upload.mapping, "note": None}))
    start_upload(upload.pk)
    ingest_upload(upload.pk)
    assert UsageRecord.objects.get().data == {}


# --- ingestion --------------------------------------------------------------------------------------------------------


def test_rows_become_records_with_every_digit(compute: UsageEvent) -> None:
    upload = bring_in(
        compute,
        HEADER
        + f"a,{TIME},one,12345678901234567890.123456789,eu\r\n"
        + 'b,2025-06-17 14:03:12.5,,0.10,"x, ""y""\nz"\n'
        + f"c,{TIME},,,\n",
    )

    assert (upload.status, counts(upload)) == ("done", (3, 3, 0, 0, 0))
    assert (upload.bytes_done, upload.errors_bytes) == (upload.size, 0)
    stored = UsageRecord.objects.order_by("id").select_related("customer")
    prefix = f"upload:{upload.sha256[:16]}:"
    assert [(row.customer.external_id, row.idempotency_key, row.data) for row in stored] == [
        ("a", "one", {"cpu_usage_hours": Decimal("12345678901234567890.123456789"), "region": "eu"}),
        ("b", prefix + "3", {"cpu_usage_hours": Decimal("0.10"), "region": 'x, "y"\nz'}),
        ("c", prefix + "5", {}),
    ]
    assert stored[1].timestamp.isoformat() == "2025-06-17T14:03:12.500000+00:00"
    batch = IngestBatch.objects.get()
    assert (batch.source, batch.upload_id, batch.accepted) == ("upload", upload.pk, 3)


def test_decimal_comma_semicolon_and_zone(compute: UsageEvent) -> None:
    upload = bring_in(
        compute,
        "\ufeffKunde;Zeit;cpu_usage_hours\nM\u00fcller;2025-06-17 14:03:12;1.234,50\nb;2025-01-17T14:03:12Z;0,1\n",
        reading=Reading(
            decimal=",",
            thousands=".",
            timezone="Europe/Berlin",
            mapping={"Kunde": "customer_id", "Zeit": "timestamp", "cpu_usage_hours": "data.cpu_usage_hours"},
        ),
    )
    stored = UsageRecord.objects.order_by("id").select_related("customer")
    assert upload.delimiter == ";"
    assert [(row.customer.external_id, row.timestamp.isoformat(), row.data) for row in stored] == [
        ("Müller", "2025-06-17T12:03:12+00:00", {"cpu_usage_hours": Decimal("1234.50")}),
        ("b", "2025-01-17T14:03:12+00:00", {"cpu_usage_hours": Decimal("0.1")}),
    ]


BAD_ROWS = (
    HEADER
    + f"a,{TIME},,1,eu\n"
    + f"a,{TIME},,1\n"
    + f"a,{TIME},,1,eu,x\n"
    + f"a,{TIME},,lots,eu\n"
    + f",{TIME},,1,eu\n"
    + "a,17.06.2025,,1,eu\n"
    + f"a,{TIME},,1,\0\n"
    + f'"a,{TIME},,1,eu\n'
    + f"a,{TIME},same,1,eu\n"
    + f"a,{TIME},same,2,eu\n"
    + f"a,{TIME},known,2,eu\n"
    + f"a,{TIME},,1e99,eu\n"
    + f"b,{TIME},,2,eu\n"
)
ERRORS = [
    (3, "malformed", "", "5 cells were expected, as the header has, got too few: 4"),
    (4, "malformed", "", "5 cells were expected, as the header has, got too many: 6"),
    (5, "schema", "cpu_usage_hours", "'lots' is not of type 'number'"),
    (6, "customer_id", "customer_id", "a string of 1 to 255 characters was expected, got 0 characters"),
    (7, "timestamp", "timestamp", A_TIME),
    (8, "null_character", "", r"text without null characters was expected; they are shown as \0"),
    (9, "malformed", "", NEVER_CLOSED),
    (11, "duplicate_in_batch", "id", "line 10 of this file has the same id and other content"),
    (12, "conflict", "id", "this id is known with other content"),
    (13, "number", "", "a number of at most 64 digits, within 1e±64, was expected, got 1e99"),
]  # fmt: skip


def test_each_refused_row_is_told_by_line_and_kept(compute: UsageEvent) -> None:
    take_in(compute, record("a", TIME, 1, id="known"))
    upload = bring_in(compute, BAD_ROWS)

    assert counts(upload) == (13, 3, 0, 1, 9)
    header, *rows = error_file(upload)
    assert header == ["line", "code", "column", "message", "row"]
    assert [(int(row[0]), *row[1:4]) for row in rows] == ERRORS
    assert rows[0][4] == f"a,{TIME},,1"
    assert rows[5][4] == rf"a,{TIME},,1,\0"
    kept = {entry.code: entry.payload for entry in RejectedRecord.objects.all()}
    assert RejectedRecord.objects.count() == 10
    assert kept["schema"] == (
        f'{{"customer_id":"a","timestamp":"{TIME}","data":{{"cpu_usage_hours":"lots","region":"eu"}},'
        f'"id":"upload:{upload.sha256[:16]}:5"}}'
    )
    assert set(RejectedRecord.objects.values_list("batch__upload", flat=True)) == {upload.pk}


def test_the_dry_run_tells_the_same_and_stores_nothing(compute: UsageEvent) -> None:
    take_in(compute, record("a", TIME, 1, id="known"))
    found = tried(compute, BAD_ROWS)

    errors = found.pop("errors")
    assert found == {
        "rows": 13, "new": 3, "duplicates": 0, "conflicts": 1, "rejected": 8, "repeated": 1, "new_customers": 1,
        "errors_truncated": False,
    }  # fmt: skip
    told = [tuple(error.values()) for error in errors]
    assert told == [error for error in ERRORS if error[1] != "duplicate_in_batch"]
    assert UsageRecord.objects.count() == IngestBatch.objects.count() == Customer.objects.count() == 1
    assert not RejectedRecord.objects.exists()


def test_the_dry_run_lists_the_first_hundred_errors(compute: UsageEvent) -> None:
    found = tried(compute, HEADER + f"a,{TIME},,x,eu\n" * 100)
    assert (found["rejected"], len(found["errors"]), found["errors_truncated"]) == (100, 100, False)
    found = tried(compute, HEADER + f"a,{TIME},,x,eu\n" * 101)
    assert (found["rejected"], len(found["errors"]), found["errors_truncated"]) == (101, 100, True)
    assert found["errors"][-1]["line"] == 101


def test_unknown_customers_are_refused_where_the_policy_says_so(compute: UsageEvent) -> None:
    take_in(compute, record("known"))
    UsageEvent.objects.filter(pk=compute.pk).update(unknown_customer="quarantine")
    compute.refresh_from_db()
    text = HEADER + f"known,{TIME},,1,eu\nnew,{TIME},,1,eu\n"

    found = tried(compute, text)
    assert [(error["line"], error["code"], error["column"]) for error in found["errors"]] == [
        (3, "unknown_customer", "customer_id")
    ]
    assert counts(bring_in(compute, text)) == (2, 1, 0, 0, 1)


def test_the_same_file_twice_is_all_duplicates_and_told_beforehand(compute: UsageEvent) -> None:
    text = HEADER + f"a,{TIME},,1,eu\na,{TIME},,1,eu\na,{TIME},x,1,eu\n"
    first = bring_in(compute, text)
    assert same_file_as(first) is None

    second = stage(compute, text)
    assert same_file_as(second) == first
    assert tried(compute, text)["duplicates"] == 3
    start_upload(second.pk)
    ingest_upload(second.pk)
    second.refresh_from_db()
    assert counts(second) == (3, 0, 3, 0, 0)
    assert UsageRecord.objects.count() == 3


def test_a_row_that_was_mended_in_quarantine_is_known_when_the_file_comes_again(compute: UsageEvent) -> None:
    text = HEADER + f"a,{TIME},,one,eu\n"
    first = bring_in(compute, text)
    entry = RejectedRecord.objects.get()
    mended = {entry.pk: entry.payload.replace('"one"', "1")}
    replay_rejected(compute.pk, [entry.pk], actor=Actor(None, "o"), payloads=mended)

    publish_schema(compute, {"type": "object"})
    compute.refresh_from_db()
    again = bring_in(compute, text, reading=Reading(mapping=first.mapping))
    assert counts(again) == (1, 0, 0, 1, 0)
    assert UsageRecord.objects.count() == 1


def test_lines_of_ndjson_are_records_as_in_the_api(compute: UsageEvent) -> None:
    lines = [
        f'{{"customer_id":"a","timestamp":"{TIME}","data":{{"cpu_usage_hours":0.10}},"id":"x"}}',
        "",
        f'{{"customer_id":"a","timestamp":"{TIME}","data":{{"cpu_usage_hours":1e-7}}}}\r',
        f'{{"customer_id":"a","timestamp":"{TIME}","data":{{}},"id":null}}',
        "nonsense",
        f'{{"customer_id":"a\0","timestamp":"{TIME}","data":{{}}}}',
        "[" * 100_000,
        f'{{"customer_id":"a","timestamp":"{TIME}","data":{{"cpu_usage_hours":"1"}}}}',
    ]
    upload = bring_in(compute, "\ufeff" + "\n".join(lines), file_format="ndjson")

    prefix = f"upload:{upload.sha256[:16]}:"
    assert list(UsageRecord.objects.order_by("id").values_list("idempotency_key", "data")) == [
        ("x", {"cpu_usage_hours": Decimal("0.10")}),
        (prefix + "3", {"cpu_usage_hours": Decimal("1E-7")}),
        (prefix + "4", {}),
    ]
    assert counts(upload) == (7, 3, 0, 0, 4)
    assert [row[:3] for row in error_file(upload)[1:]] == [
        ["5", "malformed", ""],
        ["6", "null_character", ""],
        ["7", "malformed", ""],
        ["8", "schema", "/data/cpu_usage_hours"],
    ]


def test_a_line_over_the_limit_is_refused_alone(compute: UsageEvent) -> None:
    limit = 1024 * 1024
    fits = f"a,{TIME},,1,"
    text = (
        HEADER + fits + "x" * (limit - len(fits)) + "\n" + fits + "x" * (limit - len(fits) + 1) + f"\nb,{TIME},,2,eu\n"
    )
    upload = bring_in(compute, text)

    assert counts(upload) == (3, 2, 0, 0, 1)
    ((line, code, column, message, row),) = error_file(upload)[1:]
    assert (line, code, column, message) == ("3", "malformed", "", f"a row of at most {limit} bytes was expected")
    assert len(row) == 10_000
    assert sorted(len(record.data["region"]) for record in UsageRecord.objects.all()) == [2, limit - len(fits)]


# --- stopping and going on --------------------------------------------------------------------------------------------


def test_an_archived_usage_event_stops_it_and_it_goes_on_where_it_was(
    compute: UsageEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_chunks, "CHUNK_ROWS", 2)
    upload = stage(compute, HEADER + "".join(f"a,{TIME},,{n},eu\n" for n in range(5)))
    start_upload(upload.pk)
    assert ingest_upload(upload.pk, seconds=0) is True
    archive_usage_event(compute, archived=True)
    assert ingest_upload(upload.pk) is False
    upload.refresh_from_db()
    assert (upload.status, upload.stopped_because, counts(upload)) == (
        "failed", "the usage event was archived", (2, 2, 0, 0, 0),
    )  # fmt: skip

    compute.refresh_from_db()
    archive_usage_event(compute, archived=False)
    start_upload(upload.pk)
    ingest_upload(upload.pk)
    upload.refresh_from_db()
    assert (upload.status, upload.stopped_because, counts(upload)) == ("done", "", (5, 5, 0, 0, 0))
    assert UsageRecord.objects.count() == 5


def test_a_revoked_key_stops_its_upload(compute: UsageEvent) -> None:
    key, _ = issue_api_key(compute.organisation, "k", ["ingest"])
    upload = stage(compute, HEADER + f"a,{TIME},,1,eu\n", api_key_id=key.pk)
    start_upload(upload.pk)
    key.revoked_at = now()
    key.save()
    ingest_upload(upload.pk)
    upload.refresh_from_db()
    assert (upload.status, upload.rows_read) == ("failed", 0)
    assert "API key" in upload.stopped_because
    assert not UsageRecord.objects.exists()


def test_a_file_that_is_not_there_is_told(compute: UsageEvent) -> None:
    upload = stage(compute, HEADER + f"a,{TIME},,1,eu\n")
    start_upload(upload.pk)
    path_of(upload.stored_name).unlink()
    assert ingest_upload(upload.pk) is False
    upload.refresh_from_db()
    assert upload.stopped_because == "the staged file cannot be read; web and worker must share the folder UPLOAD_DIR"


def test_each_deed_has_its_time(compute: UsageEvent) -> None:
    upload = stage(compute, HEADER + f"a,{TIME},,1,eu\n")
    assert check_upload(upload.pk) is False
    assert ingest_upload(upload.pk) is False
    start_upload(upload.pk)
    for act in (start_check, start_upload, discard_upload):
        with pytest.raises(NotNow):
            act(upload.pk)
    with pytest.raises(NotNow):
        map_upload(upload.pk, Reading(decimal=","))
    ingest_upload(upload.pk)
    with pytest.raises(NotNow):
        start_upload(upload.pk)
    assert UsageRecord.objects.count() == 1


def test_discarding_removes_the_file(compute: UsageEvent, folder: Path) -> None:
    upload = stage(compute, HEADER + f"a,{TIME},,1,eu\n")
    discard_upload(upload.pk)
    upload.refresh_from_db()
    assert (upload.status, list(folder.iterdir())) == ("discarded", [])
    with pytest.raises(NotNow):
        start_upload(upload.pk)


def test_an_archived_usage_event_takes_no_file(compute: UsageEvent) -> None:
    archive_usage_event(compute, archived=True)
    with pytest.raises(UploadRefused) as refused:
        stage(compute, HEADER + f"a,{TIME},,1,eu\n")
    assert refused.value.field == "usage_event"


def test_files_go_some_days_after_the_end(compute: UsageEvent, folder: Path, settings: Settings) -> None:
    settings.UPLOAD_KEEP_DAYS = 7
    text = HEADER + f"a,{TIME},,x,eu\n"
    old, recent = bring_in(compute, text), bring_in(compute, text)
    forgotten, waiting = stage(compute, text), stage(compute, text)
    long_ago = now() - timedelta(days=8)
    Upload.objects.filter(pk__in=[old.pk, forgotten.pk, recent.pk]).update(created_at=long_ago)
    Upload.objects.filter(pk=old.pk).update(finished_at=long_ago)

    assert remove_old_files() == 2
    assert remove_old_files() == 0
    assert not path_of(old.stored_name).exists()
    assert not errors_path_of(old.stored_name).exists()
    assert errors_path_of(recent.stored_name).exists()
    assert path_of(waiting.stored_name).exists()
    statuses = dict(Upload.objects.values_list("pk", "status"))
    assert statuses == {old.pk: "done", recent.pk: "done", forgotten.pk: "discarded", waiting.pk: "staged"}


def test_all_types_of_the_schema(compute: UsageEvent) -> None:
    schema = {
        "type": "object",
        "properties": {
            "n": {"type": "integer"},
            "ok": {"type": "boolean"},
            "tags": {"type": "array"},
            "more": {"$ref": "#/$defs/o"},
            "size": {"enum": ["1", "2"]},
            "note": {"type": ["string", "null"]},
        },
        "required": ["note"],
        "$defs": {"o": {"type": ["object", "null"]}},
    }
    typed = create_usage_event(compute.organisation, name="T", slug="t", schema=schema)
    upload = bring_in(
        typed,
        "customer_id,timestamp,n,ok,tags,more,size,note,free\n"
        f'a,{TIME},007,YES,"[1, 2.50]","{{""a"": 1}}",1,,007\n'
        f"a,{TIME},5,0,,,2,x,12\n"
        f"a,{TIME},1.5,maybe,,,2,x,true\n",
        reading=Reading(
            mapping={
                "customer_id": "customer_id", "timestamp": "timestamp", "n": "data.n", "ok": "data.ok",
                "tags": "data.tags", "more": "data.more", "size": "data.size", "note": "data.note", "free": "data.free",
            }
        ),
    )  # fmt: skip
    assert list(UsageRecord.objects.order_by("id").values_list("data", flat=True)) == [
        {"n": 7, "ok": True, "tags": [1, Decimal("2.50")], "more": {"a": 1}, "size": "1", "note": None, "free": "007"},
        {"n": 5, "ok": False, "size": "2", "note": "x", "free": 12},
    ]
    assert [row[:3] for row in error_file(upload)[1:]] == [["4", "schema", "n"]]


@pytest.mark.parametrize(
    ("text", "trouble"), [("2025-03-30 02:30:00", "does not exist"), ("2025-10-26T02:30:00", "happens twice")]
)
def test_an_hour_that_the_zone_skips_or_repeats_is_refused_for_good(
    compute: UsageEvent, text: str, trouble: str
) -> None:
    upload = bring_in(compute, f"customer_id,timestamp\na,{text}\n", reading=Reading(timezone="Europe/Berlin"))
    ((_, code, column, message, _),) = error_file(upload)[1:]
    assert (code, column) == ("timestamp", "timestamp")
    assert trouble in message
    entry = RejectedRecord.objects.get()
    replayed = replay_rejected(compute.pk, [entry.pk], actor=Actor(None, "o"))
    assert [problem.code for problem in replayed.refused] == ["timestamp"]
