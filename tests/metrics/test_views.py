"""The HTTP edge of quantities: periods, customers, pages, and every parameter."""

from decimal import Decimal
from typing import Any
from urllib.parse import quote

import pytest
from django.test import Client

from customers.models import Customer, Organisation
from metrics.definitions import save_metric
from metrics.models import Metric
from tests.conftest import Post, active_metric, record, take_in
from usage.definitions import create_usage_event
from usage.models import UsageEvent

QUANTITIES = "/api/metrics/cpu_hours/quantities/"
JUNE = {"start": "2025-06-01", "end": "2025-07-01"}


@pytest.fixture
def get(client: Client, headers: dict[str, str]) -> Any:
    return lambda path, query=None: client.get(path, query or {}, headers=headers)


def errors_of(answer: Any) -> list[tuple[str, str]]:
    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")
    assert answer.json()["title"] == "Bad Request"
    return [(error["field"], error["message"]) for error in answer.json()["errors"]]


def rows(answer: Any) -> list[tuple[str, str, str, str, int]]:
    assert answer.status_code == 200, answer.content
    names = "customer_id", "start", "end", "quantity", "record_count"
    assert all(set(row) == {*names, "dimensions"} for row in answer.json()["quantities"])
    return [tuple(row[name] for name in names) for row in answer.json()["quantities"]]


def test_a_quantity_is_a_string_with_every_digit(compute: UsageEvent, cpu_hours: Metric, get: Any) -> None:
    take_in(compute, record(hours=Decimal("0.10")), record(hours=Decimal("12345678901234567890.123456789")))

    answer = get(QUANTITIES, {**JUNE, "timezone": "UTC"})

    told = answer.json()
    as_of = told.pop("as_of")
    assert as_of.endswith("Z")
    assert told == {
        "metric": "cpu_hours",
        "version": 1,
        "start": "2025-06-01T00:00:00Z",
        "end": "2025-07-01T00:00:00Z",
        "timezone": "UTC",
        "quantities": [
            {
                "customer_id": "cus_1",
                "start": "2025-06-01T00:00:00Z",
                "end": "2025-07-01T00:00:00Z",
                "dimensions": {},
                "quantity": "12345678901234567890.223456789",
                "record_count": 2,
            }
        ],
        "next": None,
    }


def test_dates_mean_midnight_in_the_zone_and_windows_are_its_days(
    compute: UsageEvent, cpu_hours: Metric, get: Any
) -> None:
    take_in(
        compute, record(timestamp="2025-06-16T18:29:59Z", hours=1), record(timestamp="2025-06-16T18:30:00Z", hours=2)
    )
    Organisation.objects.update(timezone="Asia/Kolkata")

    answer = get(QUANTITIES, {"start": "2025-06-16", "end": "2025-06-18", "window": "day"})

    assert answer.json()["timezone"] == "Asia/Kolkata"
    assert rows(answer) == [
        ("cus_1", "2025-06-15T18:30:00Z", "2025-06-16T18:30:00Z", "1", 1),
        ("cus_1", "2025-06-16T18:30:00Z", "2025-06-17T18:30:00Z", "2", 1),
    ]
    utc = get(QUANTITIES, {"start": "2025-06-16", "end": "2025-06-18", "window": "day", "timezone": "UTC"})
    assert rows(utc) == [("cus_1", "2025-06-16T00:00:00Z", "2025-06-17T00:00:00Z", "3", 2)]
    exact = get(QUANTITIES, {"start": "2025-06-16T18:30:00Z", "end": "2025-06-16T20:00:00+01:00"})
    assert rows(exact) == [("cus_1", "2025-06-16T18:30:00Z", "2025-06-16T19:00:00Z", "2", 1)]


def test_named_customers_have_a_total_each_and_unknown_ones_are_refused(
    compute: UsageEvent, cpu_hours: Metric, get: Any
) -> None:
    take_in(compute, record("b", hours=2), record(" x ", hours=3), record("a&b=é", hours=4))
    Customer.objects.create(organisation=compute.organisation, external_id="a")

    named = get(QUANTITIES, {**JUNE, "customer_id": ["b", "a", "b", " x ", "a&b=é"]})

    assert [(row[0], row[3], row[4]) for row in rows(named)] == [
        ("b", "2", 1),
        ("a", "0", 0),
        (" x ", "3", 1),
        ("a&b=é", "4", 1),
    ]
    by_day = get(QUANTITIES, {**JUNE, "customer_id": ["b", "a"], "window": "day"})
    assert [row[0] for row in rows(by_day)] == ["b"]
    unknown = get(QUANTITIES, {**JUNE, "customer_id": ["b", "nobody"]})
    assert errors_of(unknown) == [("customer_id", "There is no customer 'nobody'.")]


def test_pages_follow_next_until_every_customer_was_there(compute: UsageEvent, cpu_hours: Metric, get: Any) -> None:
    names = [f"cus {number:02}" for number in range(7)]
    take_in(compute, *(record(name, hours=number) for number, name in enumerate(names)))

    pages, url = [], f"{QUANTITIES}?start=2025-06-01&end=2025-07-01&page_size=3"
    while url:
        answer = get(url)
        pages.append([row[0] for row in rows(answer)])
        url = answer.json()["next"]

    assert pages == [names[:3], names[3:6], names[6:]]
    exactly = get(QUANTITIES, {**JUNE, "page_size": 7}).json()
    assert (len(exactly["quantities"]), exactly["next"]) == (7, None)
    assert get(QUANTITIES, {**JUNE, "cursor": 10**18}).json()["quantities"] == []


OF_METRIC = "a property that the metric groups by was expected"
WRONG = [
    ({"start": None}, "start", "This field is required."),
    ({"end": None}, "end", "This field is required."),
    ({"start": ""}, "start", "This field may not be blank."),
    ({"start": "yesterday"}, "start", "a date or an instant was expected: expected RFC 3339"),
    ({"start": "2025-02-30"}, "start", "a date or an instant was expected: day is out of range for month"),
    ({"start": "2025-6-1"}, "start", "a date or an instant was expected"),
    ({"start": "20250601"}, "start", "a date or an instant was expected"),
    ({"start": "2025-W23-1"}, "start", "a date or an instant was expected"),
    ({"start": "٢٠٢٥-٠٦-٠١"}, "start", "a date or an instant was expected"),
    (
        {"start": "0001-01-01"},
        "start",
        "a date or an instant was expected: expected a day from 2000-01-01 to 2101-01-01",
    ),
    ({"start": "0001-01-01", "timezone": "Asia/Tokyo"}, "start", "a date or an instant was expected"),
    ({"end": "9999-12-31", "timezone": "America/New_York"}, "end", "a date or an instant was expected"),
    ({"end": "2101-01-02"}, "end", "a date or an instant was expected"),
    ({"end": "9999-12-31T23:59:59-10:00"}, "end", "a date or an instant was expected"),
    ({"start": "2025-06-01\0"}, "start", "Null characters are not allowed."),
    ({"end": "2025-06-01"}, "end", "the end must be after the start"),
    ({"end": "2025-05-01"}, "end", "the end must be after the start"),
    ({"start": "2000-01-01", "end": "2101-01-01", "window": "hour"}, "end", "at most 10000 windows were expected"),
    ({"window": "year"}, "window", '"year" is not a valid choice.'),
    ({"window": ""}, "window", '"" is not a valid choice.'),
    ({"page_size": "0"}, "page_size", "Ensure this value is greater than or equal to 1."),
    ({"page_size": "501"}, "page_size", "Ensure this value is less than or equal to 500."),
    ({"page_size": "x"}, "page_size", "A valid integer is required."),
    ({"cursor": "-1"}, "cursor", "Ensure this value is greater than or equal to 0."),
    ({"cursor": "1.5"}, "cursor", "A valid integer is required."),
    ({"cursor": "9" * 2_000}, "cursor", "String value too large."),
    ({"start": ["2025-06-01", "2025-06-02"]}, "start", "this parameter was expected once, got 2 times"),
    ({"cursor": ["0", "0", "0"]}, "cursor", "this parameter was expected once, got 3 times"),
    ({"group_by": "region"}, "group_by", f"{OF_METRIC} (none), got 'region'"),
    ({"group_by": ""}, "group_by.0", "This field may not be blank."),
    (
        {"filter.region": "eu"},
        "filter.region",
        f"{OF_METRIC} (none), got 'region'",
    ),
    ({"filter.": "eu"}, "filter.", f"{OF_METRIC} (none), got ''"),
    ({"filter": "eu"}, "filter", "this parameter is not known; known are"),
    ({"customer_id": ""}, "customer_id.0", "This field may not be blank."),
    ({"customer_id": ["cus_1", "a\0b"]}, "customer_id.1", "Null characters are not allowed."),
    (
        {"customer": "cus_1"},
        "customer",
        "this parameter is not known; known are cursor, customer_id, end, filter.<property>, group_by, ",
    ),
]
ZONES = [
    *[
        "Mars/Olympus",
        "+01:00",
        "../../etc/passwd",
        "/etc/localtime",
        "Europe",
        "Europe/",
        "a" * 10_000,
        "é",
        "__init__.py",
    ],
    *[
        "zone.tab",
        "Europe/__init__.py",
        "....//",
        ".",
        "..",
        "Europe\\Berlin",
        "%s",
        "UTC\n/x",
        "tzdata.zi",
        "NUL",
        "con",
    ],
]


def test_every_parameter_is_checked(cpu_hours: Metric, get: Any) -> None:
    for change, field, message in WRONG:
        query = {name: value for name, value in {**JUNE, **change}.items() if value is not None}  # type: ignore[dict-item]
        ((told_field, told),) = errors_of(get(QUANTITIES, query))
        assert (told_field, told[: len(message)]) == (field, message), change
    for zone in ZONES:
        ((told_field, told),) = errors_of(get(QUANTITIES, {**JUNE, "timezone": zone}))
        assert told_field == "timezone", zone
        assert told.endswith("is not an IANA time zone such as 'Europe/Berlin'")


def test_the_widest_questions_are_answered(compute: UsageEvent, cpu_hours: Metric, get: Any) -> None:
    take_in(compute, record(timestamp="2000-01-01T00:00:00Z"), record(timestamp="2100-12-31T23:59:59.999999Z"))

    for zone in ("UTC", "Pacific/Kiritimati", "Etc/GMT+12"):
        for window in ("total", "week", "month"):
            asked = {"start": "2000-01-01", "end": "2101-01-01", "timezone": zone, "window": window}
            answer = get(QUANTITIES, asked)
            counted = sum(row[4] for row in rows(answer))
            assert counted == (2 if zone == "UTC" else 1), (zone, window)


def test_what_is_not_there_is_404(compute: UsageEvent, post: Post, get: Any) -> None:
    other = Organisation.objects.create(name="Other")
    theirs = create_usage_event(other, name="T", slug="theirs", schema={"type": "object"})
    active_metric(theirs, code="theirs", aggregation="count")
    save_metric(Metric(organisation=other, usage_event=theirs, code="draft", name="D", aggregation="count"))

    for code in ("theirs", "nowhere", "c" * 10_000):
        assert get(f"/api/metrics/{code}/").status_code == 404
        answer = get(f"/api/metrics/{code}/quantities/", JUNE)
        assert (answer.status_code, answer.json()["detail"]) == (404, f"There is no metric '{code}'.")
        assert get(f"/api/metrics/{code}/quantities/", {**JUNE, "customer_id": "nobody"}).status_code == 404
    for code in ("draft", "theirs", "nowhere"):
        assert post(f"/api/metrics/{code}/activate/", "").status_code == 404
    for path in ("a.b", "a%00b", "a%2Fb", quote("é"), "..", "a%0A"):
        assert get(f"/api/metrics/{path}/").status_code == 404
    assert Metric.objects.get(code="draft").status == "draft"


@pytest.mark.parametrize("path", ["/api/metrics", "/api/usage-events"])
def test_a_post_without_the_slash_is_answered_not_redirected(post: Post, path: str) -> None:
    answer = post(path, {})

    assert answer.status_code == 400
    assert {error["field"] for error in answer.json()["errors"]} >= {"name"}
