"""Changing a schema: what is compatible goes at once, the rest only if every stored record fits, or it is accepted."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from customers.exactjson import dumps
from metrics.models import Metric
from tests.conftest import COMPUTE_SCHEMA, active_metric, record, take_in
from usage import definitions, schema_changes, storage
from usage.corrections import Actor, correct_record, restore_records, void_records
from usage.definitions import change_usage_event, define, publish_schema
from usage.models import SchemaVersion, UsageEvent, UsageRecord
from usage.schema_changes import SchemaChangeRefused, check_schema_change
from usage.schema_widening import changed_properties, narrowings

ACTOR = Actor(None, "someone")
NUMBER = {"type": "number"}


def of(properties: Any, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, **more}


CLOSED = {"additionalProperties": False}


# --- what the schemas alone tell -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (of({}, **CLOSED), of({"a": NUMBER}, **CLOSED)),
        (of({}, **CLOSED), of({"a": NUMBER})),
        (of({"a": {"type": "integer"}}), of({"a": NUMBER})),
        (of({"a": NUMBER}), of({"a": {"type": ["string", "number"]}})),
        (of({"a": NUMBER}), of({"a": {}})),
        (of({"a": NUMBER}), of({})),
        (of({"a": False}), of({"a": NUMBER})),
        (of({"a": {"enum": [1, "x"]}}), of({"a": {"enum": ["x", 1.0, 2]}})),
        (of({"a": {"minimum": 1, "maxLength": 3}}), of({"a": {"minimum": 0, "maxLength": 4}})),
        (of({"a": {"minimum": 1, "pattern": "x", "not": {}}}), of({"a": {}})),
        (of({}, required=["a", "b"]), of({}, required=["b"])),
        (of({"a": {"items": {"type": "integer"}}}), of({"a": {"items": NUMBER}})),
        (of({"a": {"anyOf": [NUMBER]}}), of({"a": {"anyOf": [{"type": "null"}, NUMBER]}})),
        (of({"a": {"allOf": [NUMBER, {"minimum": 1}]}}), of({"a": {"allOf": [{"minimum": 1}]}})),
        (of({"a": NUMBER}), of({"a": {**NUMBER, "title": "A", "format": "uuid"}}, description="d")),
        (of({"a": {"$ref": "#/$defs/x"}}, **{"$defs": {"x": {}}}), of({"b": True, "a": {}}, **{"$defs": {"x": {}}})),
        (of({"a": {"if": {}, "then": NUMBER}}), of({"a": {"if": {}, "then": NUMBER, "title": "t"}})),
    ],
)
def test_a_schema_that_takes_all_that_the_old_one_took_is_compatible(old: Any, new: Any) -> None:
    assert narrowings(old, new) == []


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (of({}), of({"a": NUMBER}), "/properties/a/type: was null"),
        (of({"a": NUMBER}), of({"a": {"type": "integer"}}), '/properties/a/type: was "number"'),
        (of({"a": {}}), of({"a": False}), "/properties/a: nothing is taken here any more"),
        (of({"a": NUMBER}, **CLOSED), of({}, **CLOSED), "/properties/a: nothing is taken here any more"),
        (of({}), of({}, **CLOSED), "/additionalProperties: nothing is taken here any more"),
        (of({}), of({}, required=["a", "b"]), "/required: a, b was not required"),
        (of({"a": {"minimum": 1}}), of({"a": {"minimum": 2}}), "/properties/a/minimum: was 1"),
        (of({"a": {}}), of({"a": {"maximum": 2}}), "/properties/a/maximum: was null"),
        (
            of({"a": {"enum": [1, 2]}}),
            of({"a": {"enum": [1]}}),
            "/properties/a/enum: does not take every value of before",
        ),
        (
            of({"a": {"enum": [1]}}),
            of({"a": {"enum": [True]}}),
            "/properties/a/enum: does not take every value of before",
        ),
        (of({"a": {"pattern": "x"}}), of({"a": {"pattern": "y"}}), "/properties/a/pattern: is not the same"),
        (of({"a": {}}), of({"a": {"not": NUMBER}}), "/properties/a/not: was not there"),
        (of({"a": {}}), of({"a": {"uniqueItems": True}}), "/properties/a/uniqueItems: was not asked for"),
        (of({"a/b": {}}), of({"a/b": {"items": NUMBER}}), "/properties/a~1b/items/type: was null"),
    ],
)
def test_a_schema_that_may_refuse_more_says_where(old: Any, new: Any, reason: str) -> None:
    assert narrowings(old, new) == [reason]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (of({"a": {"contains": NUMBER, "minContains": 0}}), of({"a": {"contains": NUMBER}})),
        (of({}, patternProperties={"^a": NUMBER}, **CLOSED), of({"ab": {"type": "string"}}, **CLOSED)),
        (
            of({"a": {"$ref": "#/$defs/x"}}, **{"$defs": {"x": {}}}),
            of({"a": {"$ref": "#/$defs/x"}}, **{"$defs": {"x": NUMBER}}),
        ),
        (
            of({"a": NUMBER, "b": {"not": {"$ref": "#/properties/a"}}}),
            of({"a": {}, "b": {"not": {"$ref": "#/properties/a"}}}),
        ),
    ],
)
def test_in_doubt_the_records_are_asked(old: Any, new: Any) -> None:
    (reason,) = narrowings(old, new)
    assert "it cannot be told from the schemas alone" in reason


def test_properties_that_are_removed_or_retyped() -> None:
    old = of({"gone": {}, "narrow": NUMBER, "wide": {"type": "integer"}, "same": NUMBER, "any": NUMBER})
    new = of({"narrow": {"type": "integer"}, "wide": NUMBER, "same": {**NUMBER, "minimum": 1}, "any": {}, "new": {}})

    assert changed_properties(old, new) == {"gone", "narrow"}


# --- against what is stored ------------------------------------------------------------------------------------------

STRICTER = of({"cpu_usage_hours": {"type": "number", "minimum": 2}, "region": {"type": "string"}}, **CLOSED)


def test_the_report_counts_the_records_that_are_not_void(compute: UsageEvent) -> None:
    take_in(compute, *(record(hours=hours, id=str(hours)) for hours in (1, 1.5, 2, 0)))
    void_records(compute.pk, [UsageRecord.objects.get(idempotency_key="0").pk], reason="r", actor=ACTOR)
    active_metric(compute, code="monthly", aggregation="sum", property="cpu_usage_hours_per_month")

    change = check_schema_change(compute, STRICTER)

    ids = list(UsageRecord.objects.filter(idempotency_key__in=["1", "1.5"]).order_by("id").values_list("pk", flat=True))
    assert (change.compatible, change.violating_records, change.sampled_ids, change.metrics) == (
        False,
        2,
        ids,
        ["monthly"],
    )
    assert change.reasons == [
        "/properties/cpu_usage_hours/minimum: was null",
        "/properties/cpu_usage_hours_per_month: nothing is taken here any more",
    ]


def test_a_change_that_stored_records_do_not_fit_is_refused_or_accepted(compute: UsageEvent) -> None:
    take_in(compute, record(hours=1))

    with pytest.raises(SchemaChangeRefused, match=r"^1 stored records do not fit this schema. It was not published$"):
        publish_schema(compute, STRICTER)
    compute.refresh_from_db()
    assert (compute.schema_version, SchemaVersion.objects.count()) == (1, 1)

    assert publish_schema(compute, STRICTER, accept_violations=True).schema_version == 2


def test_a_change_that_all_stored_records_fit_is_published(compute: UsageEvent) -> None:
    take_in(compute, *(record(hours=2, id=str(number)) for number in range(5)))

    assert publish_schema(compute, STRICTER).schema == STRICTER


def test_a_compatible_change_looks_at_no_record(compute: UsageEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("records were looked at")

    monkeypatch.setattr(schema_changes, "_violations", never)
    properties: Any = COMPUTE_SCHEMA["properties"]
    wider = {**COMPUTE_SCHEMA, "properties": {**properties, "new": NUMBER}}

    assert publish_schema(compute, wider).schema_version == 2
    assert publish_schema(compute, wider).schema_version == 2


def test_a_property_that_a_metric_uses_is_not_taken_away_unnoticed(compute: UsageEvent) -> None:
    metric = active_metric(compute, code="hours", aggregation="sum", property="cpu_usage_hours")
    without = of({"region": {"type": "string"}})

    with pytest.raises(SchemaChangeRefused, match=r"^properties that it removes or retypes are used by hours. It was"):
        publish_schema(compute, without)

    Metric.objects.filter(pk=metric.pk).update(status=Metric.Status.RETIRED)
    assert publish_schema(compute, without).schema_version == 2


# --- and while others store ------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere() -> Iterator[ThreadPoolExecutor]:
    """A thread with a database connection of its own."""
    with ThreadPoolExecutor(1) as pool:
        yield pool
        pool.submit(lambda: connection.close()).result()


def test_what_is_stored_during_the_check_is_checked_too(
    compute: UsageEvent, elsewhere: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_in(compute, record(hours=2, id="a"))
    check = definitions.check_schema_change

    def slow(*arguments: Any) -> Any:
        change = check(*arguments)
        elsewhere.submit(take_in, compute, record(hours=1, id="b")).result()
        return change

    monkeypatch.setattr(definitions, "check_schema_change", slow)

    with pytest.raises(SchemaChangeRefused) as refused:
        publish_schema(compute, STRICTER)

    stored = UsageRecord.objects.get(idempotency_key="b")
    assert (refused.value.change.violating_records, refused.value.change.sampled_ids) == (1, [stored.pk])
    assert UsageEvent.objects.get().schema_version == 1


@pytest.mark.parametrize("act", ["correct", "restore"])
def test_what_is_corrected_during_the_check_is_checked_too(
    compute: UsageEvent, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    take_in(compute, record(hours=2, id="a"), record(hours=1, id="b"))
    first, second = UsageRecord.objects.order_by("id")
    void_records(compute.pk, [second.pk], reason="r", actor=ACTOR)
    check = definitions.check_schema_change

    def slow(*arguments: Any) -> Any:
        change = check(*arguments)
        if act == "correct":
            correct_record(first.pk, data={"cpu_usage_hours": 1}, revision=1, reason="r", actor=ACTOR)
        else:
            restore_records(compute.pk, [second.pk], reason="r", actor=ACTOR)
        return change

    monkeypatch.setattr(definitions, "check_schema_change", slow)

    with pytest.raises(SchemaChangeRefused) as refused:
        publish_schema(compute, STRICTER)

    assert refused.value.change.sampled_ids == [first.pk if act == "correct" else second.pk]


@pytest.mark.parametrize("count", [1, 250])
def test_a_batch_that_waited_for_a_publication_is_checked_by_the_new_schema(
    compute: UsageEvent, elsewhere: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Its own statement was begun before the publication was committed, so it cannot have seen it."""
    take_in(compute, record(hours=2, id="a"))
    since, began = definitions.check_since, threading.Event()
    waiting: list[Any] = []
    opened, at_once = storage._open, storage._store_at_once

    def noted(*arguments: Any, **options: Any) -> Any:
        began.set()
        return opened(*arguments, **options)

    def noted_at_once(*arguments: Any) -> Any:
        began.set()
        return at_once(*arguments)

    def alone(*arguments: Any) -> None:
        since(*arguments)
        monkeypatch.setattr(storage, "_open", noted)
        monkeypatch.setattr(storage, "_store_at_once", noted_at_once)
        waiting.append(elsewhere.submit(take_in, compute, *(record(hours=1, id=f"b{n}") for n in range(count))))
        assert began.wait(20)
        until_somebody_waits_for_the_schema()

    monkeypatch.setattr(definitions, "check_since", alone)

    published = publish_schema(compute, STRICTER)
    result = waiting[0].result(timeout=20)

    assert (published.schema_version, result.accepted, result.rejected) == (2, 0, count)
    assert {problem.code for problem in result.problems} == {"schema"}
    assert check_schema_change(UsageEvent.objects.get(), STRICTER).violating_records == 0


def until_somebody_waits_for_the_schema() -> None:
    with connection.cursor() as cursor:
        for _ in range(2_000):
            cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            if cursor.fetchone() != (0,):
                return
            cursor.execute("SELECT pg_sleep(0.01)")
    raise AssertionError("nobody waits")


# --- PATCH /api/usage-events/<slug>/ ---------------------------------------------------------------------------------

URL = "/api/usage-events/compute_hours/"


def patch(client: Client, headers: dict[str, str], **change: Any) -> Any:
    return client.patch(URL, dumps(change), content_type="application/json", headers=headers)


def test_a_usage_event_is_changed_over_http(client: Client, compute: UsageEvent, headers: dict[str, str]) -> None:
    change = {
        "name": "New",
        "unknown_customer": "quarantine",
        "invalid_record": "refuse",
        "max_age_seconds": 86_400,
        "max_ahead_seconds": 0,
    }

    answer = patch(client, headers, **change)

    shown = {**change, "slug": "compute_hours", "schema": COMPUTE_SCHEMA, "schema_version": 1, "archived": False}
    assert (answer.status_code, answer.json()) == (200, shown)
    assert client.get(URL, headers=headers).json() == shown
    assert patch(client, headers, max_age_seconds=None).json()["max_age_seconds"] is None
    definition = define(UsageEvent.objects.select_related("organisation").get())
    assert (definition.creates_customers, definition.keeps_rejected, definition.max_age) == (False, False, None)


def test_archiving_over_http_ends_and_resumes_at_once(
    client: Client, compute: UsageEvent, headers: dict[str, str]
) -> None:
    def posted() -> int:
        body = dumps(record())
        return client.post("/usage/compute_hours", body, content_type="application/json", headers=headers).status_code

    assert posted() == 201
    assert patch(client, headers, archived=True).json()["archived"] is True
    assert posted() == 410
    assert patch(client, headers, archived=False).json()["archived"] is False
    assert posted() == 201


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"slug": "other"}, "slug", "the slug is fixed, because senders post to it"),
        ({"schema_version": 2}, "schema_version", "this field is read-only"),
        ({"nme": "N"}, "nme", "this field is not known"),
        ({"name": ""}, "name", "This field may not be blank."),
        ({"unknown_customer": "drop"}, "unknown_customer", '"drop" is not a valid choice.'),
        (
            {"max_age_seconds": -1},
            "max_age_seconds",
            "null or a whole number from 0 to 3162240000 was expected, got -1",
        ),
        (
            {"max_age_seconds": True},
            "max_age_seconds",
            "null or a whole number from 0 to 3162240000 was expected, got true",
        ),
        (
            {"max_ahead_seconds": "5"},
            "max_ahead_seconds",
            'null or a whole number from 0 to 3162240000 was expected, got "5"',
        ),
        (
            {"schema": {"type": "array"}},
            "schema",
            "at /type: \"object\" was expected, because data is an object, got 'array'",
        ),
        ({"accept_violations": True}, "accept_violations", "this goes with the schema of a PATCH only"),
    ],
)
def test_a_change_that_cannot_be_is_refused_whole(
    client: Client, compute: UsageEvent, headers: dict[str, str], change: Any, field: str, message: str
) -> None:
    before = UsageEvent.objects.values().get()

    answer = patch(client, headers, **{"archived": True, **change})

    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")
    assert answer.json()["errors"] == [{"field": field, "message": message}]
    assert UsageEvent.objects.values().get() == before


def test_a_schema_that_does_not_fit_is_409_with_the_report(
    client: Client, compute: UsageEvent, headers: dict[str, str]
) -> None:
    take_in(compute, record(hours=1))
    before = UsageEvent.objects.values().get()

    answer = patch(client, headers, name="New", schema=STRICTER)

    assert (answer.status_code, answer["Content-Type"]) == (409, "application/problem+json")
    assert answer.json()["change"] == {
        "compatible": False,
        "reasons": [
            "/properties/cpu_usage_hours/minimum: was null",
            "/properties/cpu_usage_hours_per_month: nothing is taken here any more",
        ],
        "violating_records": 1,
        "sampled_records": [str(UsageRecord.objects.get().pk)],
        "metrics": [],
    }
    assert UsageEvent.objects.values().get() == before

    accepted = patch(client, headers, name="New", schema=STRICTER, accept_violations=True)
    assert (accepted.status_code, accepted.json()["schema_version"], accepted.json()["name"]) == (200, 2, "New")


def test_policies_can_be_given_when_a_usage_event_is_created(
    client: Client, compute: UsageEvent, headers: dict[str, str]
) -> None:
    given = {
        "name": "N",
        "slug": "n",
        "schema": {"type": "object"},
        "max_age_seconds": 5,
        "unknown_customer": "quarantine",
    }

    answer = client.post("/api/usage-events/", dumps(given), content_type="application/json", headers=headers)

    assert answer.status_code == 201
    assert answer.json() == {
        **given,
        "schema_version": 1,
        "invalid_record": "quarantine",
        "max_ahead_seconds": None,
        "archived": False,
    }


def test_changing_nothing_changes_nothing(compute: UsageEvent) -> None:
    before = UsageEvent.objects.values().get()

    change_usage_event(compute, {"name": compute.name, "archived": False}, schema=compute.schema)

    assert UsageEvent.objects.values().get() == before
