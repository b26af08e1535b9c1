"""Definitions of metrics: drafted, checked against the schema, published once."""

from typing import Any

import pytest
from django.core.exceptions import ValidationError

from customers.models import Organisation
from metrics.definitions import NotADraft, activate_metric, save_metric
from metrics.materialization import build
from metrics.models import Metric, MetricAggregate
from tests.conftest import record, take_in
from tests.threads import run_together
from usage.definitions import create_usage_event, publish_schema
from usage.models import UsageEvent

SCHEMA = {
    "type": "object",
    "properties": {
        "number": {"type": "number"},
        "integer": {"type": "integer"},
        "optional": {"type": ["number", "null"]},
        "anything": {},
        "true": True,
        "text": {"type": "string"},
        "flag": {"type": ["boolean", "null"]},
    },
}


@pytest.fixture
def stream(organisation: Organisation) -> UsageEvent:
    return create_usage_event(organisation, name="Stream", slug="stream", schema=SCHEMA)


def draft(usage_event: UsageEvent, **definition: Any) -> Metric:
    given = {"code": "m", "name": "M", "aggregation": "count", "organisation": usage_event.organisation, **definition}
    return Metric(usage_event=usage_event, **given)


def refusal(metric: Metric) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as caught:
        save_metric(metric)
    return caught.value.message_dict


def test_a_new_metric_is_a_draft_of_version_1(stream: UsageEvent) -> None:
    saved = save_metric(draft(stream, aggregation="sum", property="number", unit="GB"))

    stored = Metric.objects.get()
    assert stored.pk == saved.pk
    assert (stored.code, stored.version, stored.status, stored.unit) == ("m", 1, "draft", "GB")
    assert (stored.aggregation, stored.property, stored.usage_event) == ("sum", "number", stream)
    assert (stored.built_customer_id, stored.built_window_start, stored.activated_at) == (None, None, None)


def test_a_sum_takes_what_the_schema_lets_be_a_number(stream: UsageEvent) -> None:
    for property_name in ("number", "integer", "optional", "anything", "true"):
        save_metric(draft(stream, code=property_name, aggregation="sum", property=property_name))

    expected = "a number of the usage event's schema was expected ('number', 'integer', 'optional', 'anything', 'true')"
    for property_name, came in {"text": "'text'", "flag": "'flag'", "Number": "'Number'", "": "none"}.items():
        metric = draft(stream, aggregation="sum", property=property_name)
        assert refusal(metric) == {"property": [f"{expected}, got {came}"]}
    assert Metric.objects.count() == 5


def test_a_schema_without_numbers_has_nothing_to_sum_up(organisation: Organisation) -> None:
    bare = create_usage_event(organisation, name="B", slug="b", schema={"type": "object"})

    assert refusal(draft(bare, aggregation="sum", property="x")) == {
        "property": ["a number of the usage event's schema was expected (none is there), got 'x'"]
    }


def test_each_mistake_is_told_at_its_field(stream: UsageEvent) -> None:
    other = Organisation.objects.create(name="Other")
    for given, field in (
        ({"property": "number"}, "property"),
        ({"aggregation": "median"}, "aggregation"),
        ({"aggregation": ""}, "aggregation"),
        ({"code": "a b"}, "code"),
        ({"code": ""}, "code"),
        ({"code": "c" * 101}, "code"),
        ({"code": "m\n"}, "code"),
        ({"name": ""}, "name"),
        ({"unit": "u" * 51}, "unit"),
        ({"organisation": other}, "usage_event"),
    ):
        assert list(refusal(draft(stream, **given))) == [field], given
    assert not Metric.objects.exists()


def test_a_code_is_taken_once_in_an_organisation(stream: UsageEvent) -> None:
    save_metric(draft(stream))
    other = create_usage_event(Organisation.objects.create(name="Other"), name="S", slug="stream", schema=SCHEMA)
    save_metric(draft(other))

    assert refusal(draft(stream)) == {"__all__": ["A metric with this code exists already."]}
    assert Metric.objects.count() == 2


def test_of_many_who_take_a_code_at_once_one_succeeds_and_the_others_are_told(stream: UsageEvent) -> None:
    outcomes: list[str] = []

    def save() -> None:
        try:
            save_metric(draft(stream))
            outcomes.append("saved")
        except ValidationError as error:
            outcomes.append(error.messages[0])

    run_together(*[save] * 6)

    assert sorted(outcomes) == ["A metric with this code exists already."] * 5 + ["saved"]
    assert Metric.objects.count() == 1


def test_a_draft_may_change_and_is_checked_again(stream: UsageEvent) -> None:
    metric = save_metric(draft(stream))
    metric.aggregation, metric.property = "sum", "number"
    save_metric(metric)
    metric.property = "text"

    assert list(refusal(metric)) == ["property"]

    assert (Metric.objects.get().aggregation, Metric.objects.get().property) == ("sum", "number")


@pytest.mark.parametrize("published", ["building", "active"])
def test_a_published_formula_never_changes(stream: UsageEvent, published: str) -> None:
    other = create_usage_event(stream.organisation, name="O", slug="o", schema=SCHEMA)
    metric = save_metric(draft(stream, aggregation="sum", property="number"))
    activate_metric(metric.pk)
    assert published == "building" or build(metric.pk)
    before = Metric.objects.values().get()

    for field, value in (
        ("code", "other"),
        ("version", 2),
        ("usage_event_id", other.pk),
        ("property", "integer"),
        ("status", "draft"),
    ):
        metric.refresh_from_db()
        setattr(metric, field, value)
        assert refusal(metric) == {field: [f"a published formula never changes; this metric is {published}"]}
    assert Metric.objects.values().get() == before

    metric.refresh_from_db()
    metric.name, metric.unit = "Renamed", "h"
    save_metric(metric)
    assert Metric.objects.values().get() == {**before, "name": "Renamed", "unit": "h"}


def test_a_form_that_was_open_during_the_activation_cannot_undo_it(stream: UsageEvent) -> None:
    metric = save_metric(draft(stream))
    seen_as_draft = Metric.objects.get()
    activate_metric(metric.pk)
    seen_as_draft.name = "Renamed"

    assert list(refusal(seen_as_draft)) == ["status"]

    assert (Metric.objects.get().status, Metric.objects.get().name) == ("building", "M")


def test_only_a_draft_is_activated_and_only_once(stream: UsageEvent) -> None:
    metric = save_metric(draft(stream))
    outcomes: list[str] = []

    def activate() -> None:
        try:
            outcomes.append(activate_metric(metric.pk).status)
        except NotADraft as error:
            outcomes.append(str(error))

    run_together(*[activate] * 4)

    refused = "only a draft can be activated, this metric's status is 'building'"
    assert sorted(outcomes) == ["building", *[refused] * 3]
    assert build(metric.pk)
    with pytest.raises(NotADraft) as caught:
        activate_metric(metric.pk)
    assert caught.value.status == "active"
    with pytest.raises(Metric.DoesNotExist):
        activate_metric(metric.pk + 1)


def test_a_metric_outlives_the_schema_that_it_was_checked_against(stream: UsageEvent) -> None:
    metric = save_metric(draft(stream, aggregation="sum", property="number"))
    take_in(stream, record() | {"data": {"number": 2}})
    schema = {"type": "object", "properties": {"number": {"type": "string"}}}
    publish_schema(stream, schema, accept_violations=True)
    take_in(stream, record() | {"data": {"number": "2"}})

    activate_metric(metric.pk)
    assert build(metric.pk)

    aggregate = MetricAggregate.objects.get()
    assert (aggregate.record_count, aggregate.value_count, aggregate.sum) == (2, 1, 2)
