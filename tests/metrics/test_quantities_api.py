"""Quantities over HTTP by dimension, of definitions that are not stored, and of two versions side by side."""

from decimal import Decimal
from typing import Any

import pytest
from django.test import Client

from customers.exactjson import dumps
from customers.models import Customer, Organisation
from metrics.definitions import activate_metric, revise_metric, save_metric
from metrics.materialization import fold
from metrics.models import Metric, MetricAggregate
from metrics.questions import TookTooLong
from metrics.sql_text import SqlError
from tests.conftest import Post, active_metric, record, take_in
from usage.definitions import create_usage_event
from usage.models import UsageEvent

JULY = "2025-07-01T00:00:00+00:00"
JUNE = {"start": "2025-06-01", "end": "2025-07-01"}
PREVIEW, DIFF = "/api/metrics/preview/", "/api/metrics/usage/diff/"
QUANTITIES = "/api/metrics/usage/quantities/"
SUM = {"aggregation": "sum", "property": "value"}
SCHEMA = {
    "type": "object",
    "properties": {"value": {"type": "number"}, "region": {}, "tier-1": {}, "text": {"type": "string"}},
}
SQL = """SELECT customer_id, sum(value) AS quantity FROM stream
WHERE timestamp >= {{start_date}} AND timestamp < {{end_date}} GROUP BY customer_id"""


@pytest.fixture
def stream(organisation: Organisation) -> UsageEvent:
    return create_usage_event(organisation, name="Stream", slug="stream", schema=SCHEMA)


@pytest.fixture
def get(client: Client, headers: dict[str, str]) -> Any:
    return lambda path, query=None: client.get(path, query or {}, headers=headers)


def sent(customer: str = "a", /, day: int = 1, **data: Any) -> dict[str, Any]:
    return {"customer_id": customer, "timestamp": f"2025-06-{day:02}T10:00:00Z", "data": data}


def rows(answer: Any) -> list[tuple[Any, ...]]:
    assert answer.status_code == 200, answer.content
    return [
        (row["customer_id"], row["dimensions"], row["quantity"], row["record_count"])
        for row in answer.json()["quantities"]
    ]


def errors_of(answer: Any) -> list[tuple[str, str]]:
    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json"), answer.content
    return [(error["field"], error["message"]) for error in answer.json()["errors"]]


@pytest.fixture
def by_region(stream: UsageEvent) -> Metric:
    """A sum by region and tier, of records that are half folded."""
    metric = active_metric(stream, code="usage", **SUM, group_by=["region", "tier-1"])
    take_in(stream, sent(value=1, region="eu"), sent(value=2, region="us"), sent("b", value=4, region="eu"))
    fold(stream.pk)
    tiered = sent()
    tiered["data"] = {"value": 32, "region": 1, "tier-1": "x,y"}
    take_in(stream, sent(value=8), sent(value=16, region=None), tiered)
    return metric


def test_quantities_come_by_the_dimensions_that_are_asked_for(by_region: Metric, get: Any) -> None:
    by_name = lambda row: (row[0], str(row[1]))  # noqa: E731

    assert rows(get(QUANTITIES, JUNE)) == [("a", {}, "59", 5), ("b", {}, "4", 1)]
    assert sorted(rows(get(QUANTITIES, {**JUNE, "group_by": "region"})), key=by_name) == [
        ("a", {"region": "eu"}, "1", 1),
        ("a", {"region": "us"}, "2", 1),
        ("a", {"region": 1}, "32", 1),
        ("a", {"region": None}, "24", 2),
        ("b", {"region": "eu"}, "4", 1),
    ]
    both = get(QUANTITIES, {**JUNE, "group_by": ["tier-1", "region", "tier-1"], "customer_id": "a"})
    assert [list(row[1]) for row in rows(both)] == [["tier-1", "region"]] * 4
    assert ("a", {"tier-1": "x,y", "region": 1}, "32", 1) in rows(both)


def test_a_dimension_is_narrowed_to_the_values_that_are_named(by_region: Metric, get: Any) -> None:
    for asked, expected in (
        ({"filter.region": "eu"}, [("a", "1"), ("b", "4")]),
        ({"filter.region": ["eu", "us"]}, [("a", "3"), ("b", "4")]),
        ({"filter.region": "1"}, [("a", "32")]),
        ({"filter.region": "eu", "filter.tier-1": "x,y"}, []),
        ({"filter.tier-1": "x,y"}, [("a", "32")]),
        ({"filter.region": ""}, []),
        ({"filter.region": "nowhere"}, []),
    ):
        assert [(row[0], row[2]) for row in rows(get(QUANTITIES, {**JUNE, **asked}))] == expected, asked
    narrowed = get(QUANTITIES, {**JUNE, "filter.region": "eu", "group_by": "region", "page_size": 1})
    assert rows(narrowed) == [("a", {"region": "eu"}, "1", 1)]
    following = narrowed.json()["next"]
    assert rows(get(following)) == [("b", {"region": "eu"}, "4", 1)]


def test_a_dimension_that_the_metric_lacks_is_refused_with_its_own(by_region: Metric, get: Any) -> None:
    expected = "a property that the metric groups by was expected ('region', 'tier-1'), got "
    for asked, error in (
        ({"group_by": "value"}, ("group_by", f"{expected}'value'")),
        ({"group_by": ["region", "text"]}, ("group_by", f"{expected}'text'")),
        ({"group_by": "region,tier-1"}, ("group_by", f"{expected}'region,tier-1'")),
        ({"group_by": ["region", ""]}, ("group_by.1", "This field may not be blank.")),
        ({"filter.value": "1"}, ("filter.value", f"{expected}'value'")),
        ({"filter.": "1"}, ("filter.", f"{expected}''")),
        ({"filter.region": "a\0b"}, ("filter.region.0", "Null characters are not allowed.")),
        (
            {"filter.region": ["x"] * 101},
            ("filter.region", "Ensure this field has no more than 100 elements."),
        ),
    ):
        assert errors_of(get(QUANTITIES, {**JUNE, **asked})) == [error], asked


@pytest.mark.parametrize("path", [QUANTITIES, DIFF, PREVIEW])
def test_what_takes_too_long_and_what_fails_is_told(
    stream: UsageEvent, get: Any, post: Post, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    revise_metric(active_metric(stream, code="usage", **SUM), {"group_by": ["region"]})
    definition = {"metric": {"usage_event": "stream", **SUM}, **JUNE}

    def failing(error: Exception) -> Any:
        def fail(*_: Any) -> None:
            raise error

        for name in ("quantities", "preview", "compare"):
            monkeypatch.setattr(f"metrics.views.quantities.{name}", fail)
        return post(path, definition) if path == PREVIEW else get(path, JUNE)

    late = "this takes longer than 20 s to calculate; ask for a shorter period or for fewer customers"
    assert errors_of(failing(TookTooLong(20))) == [("end", late)]
    failed = failing(SqlError("division by zero", 2, 5))
    told = failed.json()
    assert (failed.status_code, failed["Content-Type"]) == (422, "application/problem+json")
    assert told["detail"] == "The metric's SQL failed: line 2, column 5: division by zero"
    assert (told["status"], told["line"], told["column"]) == (422, 2, 5)


# --- previews --------------------------------------------------------------------------------------------------------


def test_a_preview_answers_what_a_definition_would_give_and_stores_nothing(
    stream: UsageEvent, organisation: Organisation, post: Post
) -> None:
    take_in(stream, sent(value=1, region="eu"), sent(value=Decimal("2.50"), region="us"), sent("b", 2, value=4))
    Customer.objects.create(organisation=organisation, external_id="idle")
    definition = {
        "usage_event": "stream",
        "aggregation": "sum",
        "expression": "value * 2",
        "filters": {"all": [{"property": "value", "operator": "lt", "value": 4}]},
        "group_by": ["region"],
        "rounding": {"mode": "half_up", "digits": 0},
    }
    body = {"metric": definition, "start": "2025-06-01", "end": "2025-07-01", "customer_id": ["a", "idle"]}

    answer = post(PREVIEW, body)

    assert rows(answer) == [("a", {}, "7", 2), ("idle", {}, "0", 0)]
    told = answer.json()
    assert told["as_of"].endswith("Z")
    assert {name: told[name] for name in ("metric", "version", "start", "end", "timezone", "next")} == {
        "metric": None,
        "version": None,
        "start": "2025-06-01T00:00:00Z",
        "end": "2025-07-01T00:00:00Z",
        "timezone": "UTC",
        "next": None,
    }
    grouped = post(PREVIEW, {**body, "group_by": ["region"], "filter": {"region": ["us", "as"]}})
    assert rows(grouped) == [("a", {"region": "us"}, "5", 1)]
    daily = {**body, "metric": {**definition, "filters": None}, "customer_id": [], "window": "day"}
    zone = post(PREVIEW, {**daily, "timezone": "Asia/Kolkata"}).json()
    assert [(row["customer_id"], row["start"]) for row in zone["quantities"]] == [
        ("a", "2025-05-31T18:30:00Z"),
        ("b", "2025-06-01T18:30:00Z"),
    ]
    named = {**body, "metric": {**definition, "code": "mine", "name": "Mine", "unit": "h"}}
    assert post(PREVIEW, named).json()["metric"] == "mine"
    assert not Metric.objects.exists()
    assert not MetricAggregate.objects.exists()


def test_the_pages_of_a_preview_follow_its_cursor(stream: UsageEvent, post: Post) -> None:
    take_in(stream, *(sent(f"c{number}", value=number) for number in range(5)))
    body = {"metric": {"usage_event": "stream", "aggregation": "count"}, **JUNE, "page_size": 2}

    pages: list[list[str]] = []
    cursor: int | None = 0
    while cursor is not None:
        answer = post(PREVIEW, {**body, "cursor": cursor})
        pages.append([row[0] for row in rows(answer)])
        cursor = answer.json()["next"]

    assert pages == [["c0", "c1"], ["c2", "c3"], ["c4"]]


def test_the_preview_of_a_metric_of_sql(stream: UsageEvent, post: Post) -> None:
    take_in(stream, sent(value=1), sent(day=2, value=2))
    definition = {"sql": SQL, "window": "day"}

    answer = post(PREVIEW, {"metric": definition, **JUNE})

    assert [(row[0], row[2]) for row in rows(answer)] == [("a", "3")]
    wrong = post(PREVIEW, {"metric": {**definition, "sql": "DROP TABLE stream"}, **JUNE})
    assert [field for field, _ in errors_of(wrong)] == ["metric.sql"]
    divided = SQL.replace("sum(value)", "sum(value) / (count(*) - 2)")
    failed = post(PREVIEW, {"metric": {"sql": divided, "window": "month"}, **JUNE})
    assert failed.status_code == 422
    assert failed.json()["detail"].endswith("division by zero")
    hourly = post(PREVIEW, {"metric": definition, **JUNE, "window": "hour"})
    assert [field for field, _ in errors_of(hourly)] == ["end"]


def test_every_part_of_a_preview_is_checked(stream: UsageEvent, post: Post) -> None:
    other = Organisation.objects.create(name="Other")
    create_usage_event(other, name="T", slug="theirs", schema=SCHEMA)
    Customer.objects.create(organisation=other, external_id="cus_theirs")
    body = {"metric": {"usage_event": "stream", **SUM}, **JUNE}
    for change, error in (
        ({"metric": None}, ("metric", "This field may not be null.")),
        ({"metric": {}}, ("metric.usage_event", "a usage event was expected, got none")),
        ({"metric": {"usage_event": "theirs", **SUM}},
         ("metric.usage_event", "Object with slug=theirs does not exist.")),
        ({"metric": {"usage_event": "stream", **SUM, "property": "text"}},
         ("metric.property",
          "a number of the usage event's schema was expected ('value', 'region', 'tier-1'), got 'text'")),
        ({"metric": {"usage_event": "stream", **SUM, "version": 1}}, ("metric.version", "this field is not known")),
        ({"metric": {"usage_event": "stream", **SUM, "code": "a b"}},
         ("metric.code", "Use letters, digits, underscores and dashes only.")),
        ({"metric": {"usage_event": "stream", **SUM, "rounding": {"mode": "up", "digits": -1}}},
         ("metric.rounding.digits", "a whole number from 0 to 30 was expected, got -1")),
        ({"start": None}, ("start", "This field may not be null.")),
        ({"start": 20250601}, ("start", "a string was expected, got 20250601")),
        ({"start": "2025-07-01"},
         ("end", f"the end must be after the start, got {JULY} to {JULY}")),
        ({"window": "year"}, ("window", '"year" is not a valid choice.')),
        ({"timezone": "Mars"}, ("timezone", "'Mars' is not an IANA time zone such as 'Europe/Berlin'")),
        ({"customer_id": "a"}, ("customer_id", 'Expected a list of items but got type "str".')),
        ({"customer_id": [5]}, ("customer_id.0", "a string was expected, got 5")),
        ({"customer_id": ["cus_theirs"]}, ("customer_id", "There is no customer 'cus_theirs'.")),
        ({"group_by": ["region"]},
         ("group_by", "a property that the metric groups by was expected (none), got 'region'")),
        ({"filter": {"region": ["eu"]}},
         ("filter.region", "a property that the metric groups by was expected (none), got 'region'")),
        ({"filter": {"region": "eu"}}, ("filter.region", 'Expected a list of items but got type "str".')),
        ({"filter": {"region": []}}, ("filter.region", "This list may not be empty.")),
        ({"filter": []}, ("filter", 'Expected a dictionary of items but got type "list".')),
        ({"filter.region": "eu"}, ("filter.region", "this field is not known")),
        ({"page_size": 501}, ("page_size", "Ensure this value is less than or equal to 500.")),
        ({"cursor": -1}, ("cursor", "Ensure this value is greater than or equal to 0.")),
        ({"x": 1}, ("x", "this field is not known")),
    ):  # fmt: skip
        assert errors_of(post(PREVIEW, {**body, **change})) == [error], change
    for wrong in ("null", "[]", '"x"', "5"):
        assert post(PREVIEW, wrong).status_code == 400
    assert not Metric.objects.exists()


# --- two versions ----------------------------------------------------------------------------------------------------


def test_a_new_version_is_compared_with_the_one_in_force(
    stream: UsageEvent, organisation: Organisation, get: Any
) -> None:
    first = active_metric(stream, code="usage", **SUM)
    take_in(stream, sent(value=1, region="eu"), sent(value=Decimal("2.5"), region="us"), sent("b", value=4))
    Customer.objects.create(organisation=organisation, external_id="idle")
    only_eu = {"all": [{"property": "region", "operator": "eq", "value": "eu"}]}
    second = revise_metric(first, {"filters": only_eu})

    answer = get(DIFF, JUNE)

    assert answer.status_code == 200
    told = answer.json()
    assert told.pop("as_of").endswith("Z")
    period = {"start": "2025-06-01T00:00:00Z", "end": "2025-07-01T00:00:00Z"}
    assert told == {
        "metric": "usage",
        "old_version": 1,
        "new_version": 2,
        **period,
        "timezone": "UTC",
        "quantities": [
            {"customer_id": "a", **period, "old": "3.5", "new": "1", "difference": "-2.5"},
            {"customer_id": "b", **period, "old": "4", "new": "0", "difference": "-4"},
        ],
        "changed": 2,
        "complete": True,
    }
    named = get(DIFF, {**JUNE, "customer_id": ["idle", "a"], "window": "day", "timezone": "Asia/Kolkata"}).json()
    assert [(row["customer_id"], row["start"], row["old"]) for row in named["quantities"]] == [
        ("a", "2025-05-31T18:30:00Z", "3.5")
    ]
    activate_metric(second.pk)
    assert get(DIFF, JUNE).json()["new_version"] == 2


def test_a_comparison_needs_an_active_version_and_one_in_preparation(stream: UsageEvent, get: Any) -> None:
    metric = Metric(organisation=stream.organisation, usage_event=stream, code="usage", name="U", aggregation="count")
    drafted = save_metric(metric)
    for path, status, detail in (
        ("/api/metrics/nowhere/diff/", 404, "There is no metric 'nowhere'."),
        (DIFF, 409, "the metric is not active yet, its status is 'draft'"),
    ):
        answer = get(path, JUNE)
        assert (answer.status_code, answer.json()["detail"]) == (status, detail)
    Metric.objects.filter(pk=drafted.pk).update(status="active")
    alone = get(DIFF, JUNE)
    assert alone.status_code == 409
    assert alone.json()["detail"] == "version 1 is the newest: there is none to compare it with"
    revise_metric(Metric.objects.get(), {"group_by": ["region"]})
    for asked, field in (
        ({"start": ""}, "start"),
        ({"end": "2025-06-01"}, "end"),
        ({"customer_id": "nobody"}, "customer_id"),
        ({"group_by": "region"}, "group_by"),
        ({"page_size": "1"}, "page_size"),
        ({"cursor": "1"}, "cursor"),
        ({"filter.region": "1"}, "filter.region"),
    ):
        assert [told for told, _ in errors_of(get(DIFF, {**JUNE, **asked}))] == [field]


def test_the_body_of_a_preview_keeps_every_digit(stream: UsageEvent, post: Post) -> None:
    take_in(stream, record() | {"data": {"value": Decimal("0.1")}})
    limit = '{"all":[{"property":"value","operator":"lte","value":0.10000000000000000000000000000000000001}]}'
    body = dumps({"metric": {"usage_event": "stream", **SUM, "filters": None}, **JUNE})

    assert [row[2] for row in rows(post(PREVIEW, body.replace('"filters":null', f'"filters":{limit}')))] == ["0.1"]
    less = limit.replace("0.10000000000000000000000000000000000001", "0.09999999999999999999999999999999999999")
    assert rows(post(PREVIEW, body.replace('"filters":null', f'"filters":{less}'))) == []
