"""Definitions of usage events: created once, published in versions, remembered but never believed."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.utils.timezone import now

from customers.keys import issue_api_key
from customers.models import ApiKey, Customer, Organisation, Scope
from tests.conftest import COMPUTE_SCHEMA, record, submission
from tests.threads import run_together
from usage.bodies import Submission
from usage.definitions import create_usage_event, define, find_definition, load_definition, publish_schema
from usage.ingestion import Source, SourceRefused, ingest
from usage.models import IngestBatch, SchemaVersion, UsageEvent, UsageRecord

ANY = {"type": "object"}
FORM = Source(IngestBatch.Source.FORM)


@pytest.fixture
def acme(db: None) -> Organisation:
    return Organisation.objects.create(name="Acme")


def test_a_usage_event_begins_with_version_1(acme: Organisation) -> None:
    schema = {"type": "object", "properties": {"z": {}, "a": {"minimum": 1}}}

    created = create_usage_event(acme, name="Compute", slug="Compute-hours_2", schema=schema)

    stored = UsageEvent.objects.get()
    assert (stored.pk, stored.organisation, stored.name, stored.slug) == (
        created.pk,
        acme,
        "Compute",
        "Compute-hours_2",
    )
    assert (stored.schema, stored.schema_version, stored.archived_at) == (schema, 1, None)
    assert list(stored.schema["properties"]) == ["z", "a"]
    assert list(SchemaVersion.objects.values_list("usage_event", "version", "schema")) == [(created.pk, 1, schema)]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"slug": ""}, "slug"),
        ({"slug": "with space"}, "slug"),
        ({"slug": "a/b"}, "slug"),
        ({"slug": "a.b"}, "slug"),
        ({"slug": "ümlaut"}, "slug"),
        ({"slug": "slug\n"}, "slug"),
        ({"slug": "a\0b"}, "slug"),
        ({"slug": "s" * 101}, "slug"),
        ({"name": ""}, "name"),
        ({"name": "n" * 201}, "name"),
    ],
)
def test_a_name_or_slug_that_cannot_be_used_is_refused_at_the_field(
    acme: Organisation, given: dict[str, str], field: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        create_usage_event(acme, **{"name": "N", "slug": "s", "schema": ANY, **given})  # type: ignore[arg-type]

    assert list(caught.value.message_dict) == [field]
    assert not UsageEvent.objects.exists()
    assert not SchemaVersion.objects.exists()


def test_a_schema_that_cannot_serve_creates_nothing(acme: Organisation) -> None:
    with pytest.raises(ValueError, match="at /type"):
        create_usage_event(acme, name="N", slug="s", schema={"type": "array"})

    assert not UsageEvent.objects.exists()


def test_a_slug_is_taken_once_in_an_organisation(acme: Organisation) -> None:
    other = Organisation.objects.create(name="Other")
    create_usage_event(acme, name="N", slug="s", schema=ANY)
    create_usage_event(other, name="N", slug="s", schema=ANY)
    create_usage_event(acme, name="N", slug="S", schema=ANY)

    with pytest.raises(ValidationError, match="A usage event with this API slug endpoint exists already"):
        create_usage_event(acme, name="N", slug="s", schema=ANY)

    assert sorted(UsageEvent.objects.values_list("organisation__name", "slug")) == [
        ("Acme", "S"),
        ("Acme", "s"),
        ("Other", "s"),
    ]


def test_of_many_who_create_the_same_at_once_one_succeeds_and_the_others_are_told(organisation: Organisation) -> None:
    outcomes: list[str] = []

    def create() -> None:
        try:
            create_usage_event(organisation, name="N", slug="s", schema=ANY)
            outcomes.append("created")
        except ValidationError as error:
            outcomes.append(error.messages[0])

    run_together(*[create] * 6)

    assert sorted(outcomes) == ["A usage event with this API slug endpoint exists already."] * 5 + ["created"]
    assert UsageEvent.objects.count() == SchemaVersion.objects.count() == 1


def test_publishing_makes_a_version_and_an_unchanged_schema_none(acme: Organisation) -> None:
    usage_event = create_usage_event(acme, name="N", slug="s", schema=ANY)

    assert publish_schema(usage_event, {"type": "object"}).schema_version == 1
    assert publish_schema(usage_event, {"type": "object", "title": "2"}).schema_version == 2
    assert publish_schema(usage_event, ANY).schema_version == 3
    with pytest.raises(ValueError, match="at /type"):
        publish_schema(usage_event, {"type": "string"})

    usage_event.refresh_from_db()
    assert (usage_event.schema_version, usage_event.schema) == (3, ANY)
    assert [(row.version, row.schema) for row in SchemaVersion.objects.order_by("version")] == [
        (1, ANY),
        (2, {"type": "object", "title": "2"}),
        (3, ANY),
    ]


def test_publishers_at_once_get_a_version_each(organisation: Organisation) -> None:
    usage_event = create_usage_event(organisation, name="N", slug="s", schema=ANY)

    def publisher(title: str) -> Callable[[], None]:
        def publish() -> None:
            publish_schema(usage_event, {"type": "object", "title": title})

        return publish

    run_together(*(publisher(str(number)) for number in range(6)))

    assert list(SchemaVersion.objects.order_by("version").values_list("version", flat=True)) == [1, 2, 3, 4, 5, 6, 7]
    usage_event.refresh_from_db()
    assert usage_event.schema == SchemaVersion.objects.get(version=7).schema


def test_what_is_not_there_is_not_remembered(acme: Organisation) -> None:
    assert find_definition(acme.pk, "s") is None
    create_usage_event(acme, name="N", slug="s", schema=ANY)

    found = find_definition(acme.pk, "s")

    assert found is not None
    assert found.slug == "s"
    assert find_definition(acme.pk, "s") is found
    assert find_definition(acme.pk + 1, "s") is None


def test_an_archived_definition_is_found_but_not_remembered(acme: Organisation) -> None:
    usage_event = create_usage_event(acme, name="N", slug="s", schema=ANY)
    UsageEvent.objects.update(archived_at=now())
    assert find_definition(acme.pk, "s").archived  # type: ignore[union-attr]
    UsageEvent.objects.update(archived_at=None)

    assert not find_definition(acme.pk, "s").archived  # type: ignore[union-attr]
    assert load_definition(acme.pk, "s") == find_definition(acme.pk, "s")
    assert define(usage_event).usage_event_id == usage_event.pk


def body(**more: Any) -> Submission:
    return submission(record(**more))


def test_a_process_that_remembers_the_old_schema_answers_by_the_new_one(compute: UsageEvent) -> None:
    believed = define(compute)
    publish_schema(compute, {"type": "object", "properties": {"gb": {"type": "number"}}, "additionalProperties": False})

    result = ingest(believed, body(id="a"), source=FORM)

    assert (result.accepted, [problem.code for problem in result.problems]) == (0, ["schema"])
    assert not UsageRecord.objects.exists()
    receipt = IngestBatch.objects.get()
    assert (receipt.accepted, receipt.rejected) == (0, 1)

    publish_schema(compute, COMPUTE_SCHEMA)
    assert ingest(believed, body(id="a"), source=FORM).accepted == 1
    assert UsageRecord.objects.get().schema_version == 3


def test_a_definition_that_never_settles_is_held_still(compute: UsageEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    believed = define(compute)
    publish_schema(compute, {"type": "object", "required": ["gb"]})
    monkeypatch.setattr("usage.ingestion._reload", lambda *_: believed)

    result = ingest(believed, body(), source=FORM)

    assert [(problem.code, problem.message) for problem in result.problems] == [
        ("schema", "'gb' is required, but is missing")
    ]
    assert IngestBatch.objects.count() == 1


@pytest.mark.parametrize(
    "loss", [{"revoked_at": now()}, {"expires_at": now()}, {"scopes": ["read", "manage"]}, {"scopes": []}]
)
def test_a_key_that_lost_its_right_stores_nothing(compute: UsageEvent, loss: dict[str, Any]) -> None:
    key, _ = issue_api_key(compute.organisation, "k", [Scope.INGEST])
    source = Source(IngestBatch.Source.API, key.pk)
    ingest(define(compute), body(id="a"), source=source)
    ApiKey.objects.update(**loss)

    for text in (body(id="b"), body(id="a"), submission(1)):
        with pytest.raises(SourceRefused):
            ingest(define(compute), text, source=source)

    assert UsageRecord.objects.count() == IngestBatch.objects.count() == 1
    assert Customer.objects.count() == 1
