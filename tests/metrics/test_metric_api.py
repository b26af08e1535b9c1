"""The HTTP edge of metrics' definitions: written, read, revised, put in force."""

from decimal import Decimal
from typing import Any

import pytest
from django.test import Client

from customers.exactjson import dumps
from customers.keys import issue_api_key
from customers.models import Organisation, Scope
from metrics.definitions import activate_metric
from metrics.materialization import build
from metrics.models import Metric
from tests.conftest import Post, record, take_in
from tests.test_nasty_requests import VALUES, check, placed
from usage.definitions import create_usage_event
from usage.models import UsageEvent

DEFINITION = {
    "code": "cpu_hours",
    "name": "CPU hours",
    "unit": "h",
    "usage_event": "compute_hours",
    "aggregation": "sum",
    "property": "cpu_usage_hours",
}
SHOWN = {**DEFINITION, "version": 1, "status": "draft"}
METRICS, METRIC = "/api/metrics/", "/api/metrics/cpu_hours/"
JUNE = {"start": "2025-06-01", "end": "2025-07-01"}
COUNT = {"name": "N", "unit": "", "usage_event": "compute_hours", "aggregation": "count"}
SQL = """SELECT customer_id, count(*) AS quantity FROM compute_hours
WHERE timestamp >= {{start_date}} AND timestamp < {{end_date}} GROUP BY customer_id"""


@pytest.fixture
def get(client: Client, headers: dict[str, str]) -> Any:
    return lambda path, query=None: client.get(path, query or {}, headers=headers)


@pytest.fixture
def patch(client: Client, headers: dict[str, str]) -> Any:
    return lambda path, body: client.patch(path, dumps(body), content_type="application/json", headers=headers)


def errors_of(answer: Any) -> list[tuple[str, str]]:
    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")
    return [(error["field"], error["message"]) for error in answer.json()["errors"]]


def make_active(code: str = "cpu_hours") -> Metric:
    metric = Metric.objects.get(code=code, status="draft")
    activate_metric(metric.pk)
    if metric.usage_event is not None:
        assert build(metric.pk)
    metric.refresh_from_db()
    return metric


def test_a_metric_is_created_read_and_listed(compute: UsageEvent, post: Post, get: Any) -> None:
    created = post(METRICS, DEFINITION)

    assert (created.status_code, created.json()) == (201, SHOWN)
    assert get(METRIC).json() == SHOWN
    assert get(METRICS).json() == {"next": None, "previous": None, "results": [SHOWN]}
    count = post(METRICS, {"code": "n", "name": "N", "usage_event": "compute_hours", "aggregation": "count"})
    assert (count.status_code, count.json()) == (201, {"code": "n", "version": 1, **COUNT, "status": "draft"})
    assert [item["code"] for item in get(METRICS).json()["results"]] == ["n", "cpu_hours"]


FILTERS = {
    "all": [
        {"property": "region", "operator": "in", "value": ["eu", "us"]},
        {"any": [{"property": "cpu_usage_hours", "operator": "gte", "value": Decimal("0.10")}]},
    ]
}
# What is sent, and what comes back where that differs.
WHOLE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"aggregation": "sum", "expression": "cpu_usage_hours * 2", "group_by": ["region"]}, {}),
    ({"aggregation": "avg", "property": "cpu_usage_hours", "rounding": {"mode": "half_even", "digits": 0}}, {}),
    ({"aggregation": "percentile", "property": "cpu_usage_hours", "percentile": "99.90"}, {}),
    ({"aggregation": "percentile", "property": "cpu_usage_hours", "percentile": 95}, {"percentile": "95"}),
    ({"aggregation": "percentile", "property": "cpu_usage_hours", "percentile": Decimal("0.5")}, {"percentile": "0.5"}),
    ({"aggregation": "percentile", "property": "cpu_usage_hours", "percentile": "1e2"}, {"percentile": "100"}),
    ({"aggregation": "percentile", "property": "cpu_usage_hours", "percentile": "-0.0"}, {"percentile": "0"}),
    ({"aggregation": "unique_count", "property": "region", "filters": FILTERS}, {}),
]


def test_every_part_of_a_formula_goes_in_and_comes_out(compute: UsageEvent, post: Post, get: Any) -> None:
    base = {"name": "N", "unit": "", "usage_event": "compute_hours"}
    for number, (sent, differs) in enumerate(WHOLE):
        answer = post(METRICS, {"code": f"m{number}", **base, **sent})

        expected = {"code": f"m{number}", "version": 1, **base, **sent, **differs, "status": "draft"}
        assert (answer.status_code, answer.json()) == (201, _json(expected))
        assert get(f"{METRICS}m{number}/").json() == _json(expected)
    assert b'"value":0.10' in get(f"{METRICS}m7/").content
    # What is null is none.
    nothing = {"property": None, "expression": None, "percentile": None, "filters": None, "group_by": None}
    body = {"code": "n", **COUNT, **nothing, "rounding": None, "sql": None, "window": None}
    assert post(METRICS, body).json() == {"code": "n", "version": 1, **COUNT, "status": "draft"}


def _json(value: Any) -> Any:
    """As `json` reads it: a Decimal is a float there."""
    if isinstance(value, dict):
        return {name: _json(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_json(inner) for inner in value]
    return float(value) if isinstance(value, Decimal) else value


def test_a_metric_of_sql(compute: UsageEvent, post: Post, patch: Any, get: Any) -> None:
    body = {"code": "n", "name": "N", "unit": "", "sql": SQL, "window": "day"}

    created = post(METRICS, body)

    assert (created.status_code, created.json()) == (201, {**body, "version": 1, "status": "draft"})
    activated = post(f"{METRICS}n/activate/", "")
    assert (activated.status_code, activated.json()["status"]) == (202, "active")
    take_in(compute, record(), record())
    answer = get(f"{METRICS}n/quantities/", JUNE).json()
    assert [row["quantity"] for row in answer["quantities"]] == ["2"]
    second = patch(f"{METRICS}n/", {"window": "month"}).json()
    assert second == {**body, "window": "month", "version": 2, "status": "draft"}
    for change, field, message in (
        ({"sql": "DROP TABLE x"}, "sql", "line 1, column 1: "),
        ({"sql": "SELECT customer_id, 1 AS quantity\nFROM nowhere"}, "sql", "line 2, column 6: "),
        ({"window": None}, "window", "'day' or 'month' was expected, got none"),
        ({"window": "week"}, "window", '"week" is not a valid choice.'),
        ({"aggregation": "count"}, "aggregation", "a metric of SQL takes none; its SELECT says all"),
        ({"usage_event": "compute_hours"}, "usage_event", "a metric of SQL takes none; its SELECT says all"),
        ({"rounding": {"mode": "up", "digits": 1}}, "rounding.mode", "a metric of SQL takes none"),
    ):
        told_field, told = errors_of(post(METRICS, {**body, "code": "o", **change}))[0]
        assert (told_field, told[: len(message)]) == (field, message), change
    assert Metric.objects.count() == 2


def test_a_definition_with_a_mistake_is_refused_at_the_field(compute: UsageEvent, post: Post) -> None:
    other = Organisation.objects.create(name="Other")
    create_usage_event(other, name="T", slug="theirs", schema={"type": "object"})
    not_there = "Object with slug={} does not exist."
    number = "a number of the usage event's schema was expected ('cpu_usage_hours', 'cpu_usage_hours_per_month'), got "
    for change, errors in (
        ({"usage_event": "theirs"}, [("usage_event", not_there.format("theirs"))]),
        ({"usage_event": "nowhere"}, [("usage_event", not_there.format("nowhere"))]),
        ({"usage_event": "a\0b"}, [("usage_event", not_there.format("a\0b"))]),
        ({"usage_event": ["compute_hours"]}, [("usage_event", "Invalid value.")]),
        ({"usage_event": {}}, [("usage_event", "Invalid value.")]),
        ({"usage_event": 1}, [("usage_event", "Invalid value.")]),
        ({"usage_event": None}, [("usage_event", "a usage event was expected, got none")]),
        ({"aggregation": "median"}, [("aggregation", '"median" is not a valid choice.')]),
        ({"aggregation": []}, [("aggregation", '"[]" is not a valid choice.')]),
        ({"property": "region"}, [("property", number + "'region'")]),
        ({"property": ""}, [("property", number + "none")]),
        ({"property": None}, [("property", number + "none")]),
        ({"property": 5}, [("property", "a string was expected, got 5")]),
        ({"property": "a\0b"}, [("property", "Null characters are not allowed.")]),
        ({"property": " cpu_usage_hours"}, [("property", number + "' cpu_usage_hours'")]),
        ({"aggregation": "count"}, [("property", "a count takes no property; it counts records")]),
        ({"expression": "1 + "}, [("expression", "either a property or an expression was expected, got both")]),
        ({"expression": "x" * 501}, [("expression", "Ensure this field has no more than 500 characters.")]),
        ({"code": "a b"}, [("code", "Use letters, digits, underscores and dashes only.")]),
        ({"code": "a/b"}, [("code", "Use letters, digits, underscores and dashes only.")]),
        ({"code": 5}, [("code", "a string was expected, got 5")]),
        ({"code": "preview"}, [("code", "another code was expected, 'preview' is an address of the API")]),
        ({"name": ""}, [("name", "This field may not be blank.")]),
        ({"unit": "u" * 51}, [("unit", "Ensure this field has no more than 50 characters.")]),
        ({"status": "active"}, [("status", "this field is read-only")]),
        ({"version": 2}, [("version", "this field is read-only")]),
        ({"progress": 1}, [("progress", "this field is read-only")]),
        ({"sql_window": "day"}, [("sql_window", "this field is not known")]),
        ({"percentile": 95}, [("percentile", "this goes with the aggregation percentile only")]),
        ({"percentile": "x"}, [("percentile", 'a number was expected, got "x"')]),
        ({"percentile": "1_0"}, [("percentile", 'a number was expected, got "1_0"')]),
        ({"percentile": "\u0665"}, [("percentile", 'a number was expected, got "\u0665"')]),
        ({"percentile": "NaN"}, [("percentile", 'a number was expected, got "NaN"')]),
        ({"percentile": True}, [("percentile", "a number was expected, got true")]),
        ({"percentile": []}, [("percentile", "a number was expected, got []")]),
        ({"group_by": "region"}, [("group_by", 'Expected a list of items but got type "str".')]),
        ({"group_by": ["region", 5]}, [("group_by.1", "a string was expected, got 5")]),
        ({"group_by": ["region"] * 2}, [("group_by", "each property was expected once, got 'region', 'region'")]),
        ({"rounding": "up"}, [("rounding", "Invalid data. Expected a dictionary, but got str.")]),
        ({"rounding": {"mode": "up"}}, [("rounding.digits", "This field is required.")]),
        ({"rounding": {"mode": "up", "digits": "2"}}, [("rounding.digits", 'a whole number was expected, got "2"')]),
        ({"rounding": {"mode": "up", "digits": 31}},
         [("rounding.digits", "a whole number from 0 to 30 was expected, got 31")]),
        ({"rounding": {"mode": "x", "digits": 2}}, [("rounding.mode", '"x" is not a valid choice.')]),
        ({"rounding": {"mode": "up", "digits": 2, "x": 1}}, [("rounding.x", "this field is not known")]),
    ):  # fmt: skip
        assert errors_of(post(METRICS, {**DEFINITION, **change})) == errors, change
    wrong: list[Any] = [
        [],
        "x",
        5,
        {"none": []},
        {"any": []},
        {"all": [{"property": "x", "operator": "eq", "value": 1}]},
    ]
    for filters in wrong:
        assert [field for field, _ in errors_of(post(METRICS, {**DEFINITION, "filters": filters}))] == ["filters"]
    missing = [field for field, _ in errors_of(post(METRICS, {}))]
    assert missing == ["usage_event", "aggregation", "code", "name"]
    assert [field for field, _ in errors_of(post(METRICS, {"sql": SQL}))] == ["code", "name"]
    for body in ([], "x", 5, [DEFINITION]):
        assert post(METRICS, body).status_code == 400
    assert not Metric.objects.exists()


def test_a_code_that_is_taken_is_refused(compute: UsageEvent, post: Post) -> None:
    post(METRICS, DEFINITION)

    assert errors_of(post(METRICS, DEFINITION)) == [("", "A metric with this code exists already.")]
    assert Metric.objects.count() == 1


def test_activation_is_answered_at_once_and_quantities_when_it_is_built(
    compute: UsageEvent, post: Post, get: Any
) -> None:
    take_in(compute, record(hours=5))
    post(METRICS, DEFINITION)
    draft = get(f"{METRIC}quantities/", JUNE)

    activated = post(f"{METRIC}activate/", "")

    assert (activated.status_code, activated.json()) == (202, {**SHOWN, "status": "building", "progress": 0})
    again, building = post(f"{METRIC}activate/", ""), get(f"{METRIC}quantities/", JUNE)
    for answer, detail in (
        (draft, "the metric is not active yet, its status is 'draft'"),
        (building, "the metric is not active yet, its status is 'building'"),
        (again, "only a draft can be activated, this metric's status is 'building'"),
    ):
        assert answer.status_code == 409
        assert answer.json() == {"type": "about:blank", "title": "Conflict", "status": 409, "detail": detail}
    assert get(METRICS).json()["results"] == [{**SHOWN, "status": "building", "progress": 0}]
    assert build(Metric.objects.get().pk)
    assert get(METRIC).json() == {**SHOWN, "status": "active"}
    answer = get(f"{METRIC}quantities/", JUNE).json()
    assert [(row["quantity"], row["record_count"]) for row in answer["quantities"]] == [("5", 1)]


def test_a_patch_of_a_draft_changes_it(compute: UsageEvent, post: Post, patch: Any) -> None:
    post(METRICS, {**DEFINITION, "filters": FILTERS, "group_by": ["region"], "rounding": {"mode": "up", "digits": 1}})

    changed = patch(METRIC, {"property": None, "expression": "2 * cpu_usage_hours", "filters": {}, "rounding": None})

    shown = {name: value for name, value in SHOWN.items() if name != "property"}
    expected = {**shown, "expression": "2 * cpu_usage_hours", "group_by": ["region"]}
    assert (changed.status_code, changed.json()) == (200, expected)
    assert patch(METRIC, {}).json() == expected
    assert patch(METRIC, {"group_by": []}).json() == {**shown, "expression": "2 * cpu_usage_hours"}
    for body, field in (
        ({"property": "cpu_usage_hours"}, "expression"),
        ({"version": 2}, "version"),
        ({"aggregation": "count"}, "expression"),
        ({"x": 1}, "x"),
        ({"usage_event": None}, "usage_event"),
    ):
        assert [told for told, _ in errors_of(patch(METRIC, body))] == [field]
    renamed = patch(METRIC, {"code": "hours"})
    assert (renamed.status_code, renamed.json()["code"]) == (200, "hours")
    assert patch(METRIC, {}).status_code == 404
    assert Metric.objects.count() == 1


def test_a_patch_of_a_published_formula_makes_a_new_version(
    compute: UsageEvent, post: Post, patch: Any, get: Any
) -> None:
    post(METRICS, DEFINITION)
    make_active()

    assert patch(METRIC, {"name": "Hours", "property": "cpu_usage_hours"}).json() == {
        **SHOWN, "name": "Hours", "status": "active"
    }  # fmt: skip
    second = patch(METRIC, {"filters": FILTERS})

    drafted = {**SHOWN, "name": "Hours", "version": 2, "filters": _json(FILTERS)}
    assert (second.status_code, second.json()) == (200, drafted)
    assert get(METRIC).json() == get(METRIC, {"version": 2}).json() == drafted
    first = {**SHOWN, "name": "Hours", "status": "active"}
    assert get(METRIC, {"version": 1}).json() == first
    assert get(f"{METRIC}versions/").json() == {"next": None, "previous": None, "results": [drafted, first]}
    assert get(METRICS).json()["results"] == [drafted]
    # A version is named where another than the newest is meant; the draft takes in a formula all the same.
    assert patch(f"{METRIC}?version=1", {"unit": "hours"}).json() == {**first, "unit": "hours"}
    assert patch(f"{METRIC}?version=1", {"group_by": ["region"]}).json() == {**drafted, "group_by": ["region"]}

    assert post(f"{METRIC}activate/", "").json()["version"] == 2
    building = patch(METRIC, {"group_by": []})
    refusal = "version 2 is being built; the formula can be changed again when it is active"
    assert errors_of(building) == [("", refusal)]
    assert build(Metric.objects.get(version=2).pk)
    statuses = [(item["version"], item["status"]) for item in get(f"{METRIC}versions/").json()["results"]]
    assert statuses == [(2, "active"), (1, "retired")]


def test_versions_come_in_pages(compute: UsageEvent, post: Post, patch: Any, get: Any) -> None:
    post(METRICS, DEFINITION)
    for digits in range(4):
        make_active()
        patch(METRIC, {"rounding": {"mode": "up", "digits": digits}})

    pages, url = [], f"{METRIC}versions/?page_size=2"
    while url:
        answer = get(url).json()
        pages.append([item["version"] for item in answer["results"]])
        url = answer["next"]

    assert pages == [[5, 4], [3, 2], [1]]


def test_parameters_that_are_not_known_are_refused(compute: UsageEvent, post: Post, patch: Any, get: Any) -> None:
    post(METRICS, DEFINITION)
    unknown = "this parameter is not known; known are "

    for answer, error in (
        (get(METRICS, {"code": "x"}), ("code", f"{unknown}cursor, page_size")),
        (get(METRICS, {"page_size": "501"}), ("page_size", "Ensure this value is less than or equal to 500.")),
        (get(f"{METRIC}versions/", {"version": "1"}), ("version", f"{unknown}cursor, page_size")),
        (get(METRIC, {"versio": "1"}), ("versio", f"{unknown}version")),
        (get(METRIC, {"version": "x"}), ("version", "A valid integer is required.")),
        (get(METRIC, {"version": "0"}), ("version", "Ensure this value is greater than or equal to 1.")),
        (get(METRIC, {"version": str(2**31)}),
         ("version", "Ensure this value is less than or equal to 2147483647.")),
        (patch(f"{METRIC}?v=1", {"name": "X"}), ("v", f"{unknown}version")),
    ):  # fmt: skip
        assert errors_of(answer) == [error]
    assert get(METRIC, {"version": "2"}).status_code == 404
    assert get(f"{METRICS}nowhere/versions/").status_code == 404
    assert Metric.objects.get().name == "CPU hours"


def test_reading_takes_the_scope_read_and_writing_manage(
    compute: UsageEvent, client: Client, organisation: Organisation, post: Post
) -> None:
    post(METRICS, DEFINITION)
    for scope, expected in ((Scope.READ, (200, 403)), (Scope.MANAGE, (403, 200)), (Scope.INGEST, (403, 403))):
        _, secret = issue_api_key(organisation, "k", [scope])
        headers = {"organisation": str(organisation.key), "x-api-key": secret}
        body: Any = {"content_type": "application/json", "headers": headers}
        for path in (METRICS, METRIC, f"{METRIC}versions/"):
            assert client.get(path, headers=headers).status_code == expected[0]
        assert client.patch(METRIC, "{}", **body).status_code == expected[1]
        preview = {"metric": {"usage_event": "compute_hours", "aggregation": "count"}, **JUNE}
        assert client.post(f"{METRICS}preview/", preview, **body).status_code == expected[0]
        if expected[1] == 403:
            assert client.post(f"{METRIC}activate/", "", **body).status_code == 403
            assert client.post(METRICS, DEFINITION, **body).status_code == 403
    assert [metric.status for metric in Metric.objects.all()] == ["draft"]


NASTY = [value for value in VALUES if len(value) < 5_000][::5]


def test_nasty_values_in_every_part_of_a_formula(compute: UsageEvent, client: Client, headers: dict[str, str]) -> None:
    condition = '{"property":"region","operator":"eq","value":NASTY}'
    formula = {
        "usage_event": '"compute_hours"',
        "aggregation": '"percentile"',
        "expression": '"cpu_usage_hours"',
        "percentile": "95",
        "filters": '{"all":[]}',
        "group_by": '["region"]',
        "rounding": '{"mode":"up","digits":1}',
    }
    inside = [("group_by", "[NASTY]"), ("rounding", '{"mode":"up","digits":NASTY}'), ("filters", '{"any":NASTY}')]
    inside += [("filters", f'{{"any":[{text}]}}') for text in ("NASTY", condition, condition.replace('"eq"', '"gt"'))]

    for value in NASTY:
        metrics = [*placed(formula, value), *placed({"sql": '"SELECT 1"', "window": '"day"'}, value)]
        for name, text in inside:
            parts = {**formula, name: text.replace("NASTY", value)}
            metrics.append("{" + ",".join(f'"{part}":{written}' for part, written in parts.items()) + "}")
        for metric in metrics:
            # The period is empty, so that nothing is calculated of what is in order.
            body = f'{{"start":"2025-06-01","end":"2025-06-01","metric":{metric}}}'
            answer = client.generic("POST", f"{METRICS}preview/", body, "application/json", headers=headers)
            check(answer, body[:300])
            assert answer.status_code == 400, body[:300]
    assert not Metric.objects.exists()
