"""Definitions of metrics: drafted, checked against the schema, published once."""

from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from customers.models import Customer, Organisation
from metrics.definitions import (
    NotADraft,
    activate_metric,
    metrics_using,
    overlapping,
    revise_metric,
    save_metric,
)
from metrics.materialization import build
from metrics.models import Metric, MetricAggregate
from metrics.versions import build_progress
from tests.conftest import active_metric, record, take_in
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
        "list": {"type": "array"},
        "object": {"type": ["object", "null"]},
    },
}
NUMBERS = "('number', 'integer', 'optional', 'anything', 'true')"
SCALARS = "('number', 'integer', 'optional', 'anything', 'true', 'text', 'flag')"
OF_SQL = "a metric of SQL takes none; its SELECT says all"
SUM = {"aggregation": "sum", "property": "number"}


@pytest.fixture
def stream(organisation: Organisation) -> UsageEvent:
    return create_usage_event(organisation, name="Stream", slug="stream", schema=SCHEMA)


def draft(usage_event: UsageEvent, /, **definition: Any) -> Metric:
    given = {"code": "m", "name": "M", "aggregation": "count", "organisation": usage_event.organisation, **definition}
    return Metric(**{"usage_event": usage_event, **given})


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


COMPLETE: list[dict[str, Any]] = [
    {"aggregation": "count"},
    *[{"aggregation": name, "property": "number"} for name in ("avg", "min", "max", "latest", "weighted_sum")],
    *[{"aggregation": "unique_count", "property": name} for name in ("number", "text", "flag", "anything")],
    {"aggregation": "sum", "expression": "number + 4 * coalesce(optional, 0)"},
    *[{"aggregation": "percentile", "property": "number", "percentile": Decimal(p)} for p in ("0", "99.9", "100")],
    {"aggregation": "percentile", "expression": "-number", "percentile": Decimal("0." + "1" * 20)},
    {**SUM, "filters": {"any": [{"property": "text", "operator": "eq", "value": "a"}]}},
    {"aggregation": "count", "group_by": ["text", "flag", "anything", "number", "integer"]},
    {**SUM, "rounding_mode": "half_even", "rounding_digits": 0},
    {**SUM, "rounding_mode": "up", "rounding_digits": 30},
]


def test_every_kind_of_formula_is_stored_as_it_was_given(stream: UsageEvent) -> None:
    for number, definition in enumerate(COMPLETE):
        save_metric(draft(stream, code=f"m{number}", **definition))

        stored = Metric.objects.get(code=f"m{number}")
        assert {name: getattr(stored, name) for name in definition} == definition
        assert (stored.version, stored.status) == (1, "draft")


WRONG: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"aggregation": ""}, {"aggregation": "one of count, sum, avg, min, max, latest, unique_count, percentile, "
                                          "weighted_sum was expected, got none"}),
    ({"expression": "number"}, {"expression": "a count takes no expression; it counts records"}),
    ({"property": "text"}, {"property": "a count takes no property; it counts records"}),
    ({**SUM, "expression": "number"}, {"expression": "either a property or an expression was expected, got both"}),
    ({"aggregation": "weighted_sum", "property": "text"},
     {"property": f"a number of the usage event's schema was expected {NUMBERS}, got 'text'"}),
    ({"aggregation": "unique_count", "property": "list"},
     {"property": f"a text, number or boolean of the usage event's schema was expected {SCALARS}, got 'list'"}),
    ({"aggregation": "unique_count"},
     {"property": f"a text, number or boolean of the usage event's schema was expected {SCALARS}, got none"}),
    ({"aggregation": "unique_count", "expression": "number"},
     {"expression": "a unique count takes no expression; it tells the values of a property apart"}),
    ({"aggregation": "sum", "expression": "number * text + flag - gone"},
     {"expression": f"numbers of the usage event's schema were expected {NUMBERS}, got 'text', 'flag', 'gone'"}),
    ({"aggregation": "percentile", "property": "number"},
     {"percentile": "a number from 0 to 100 was expected, got none"}),
    *[({"aggregation": "percentile", "property": "number", "percentile": given},
       {"percentile": f"a number from 0 to 100 was expected, got {came}"})
      for given, came in ((Decimal("-0.1"), "-0.1"), (Decimal("100.1"), "100.1"), (Decimal("NaN"), "'NaN'"),
                          (Decimal("Infinity"), "'Infinity'"), (True, "'True'"), (0.5, "'0.5'"), ("50", "'50'"))],
    ({"aggregation": "percentile", "property": "number", "percentile": Decimal("1e-21")},
     {"percentile": "at most 20 decimal places were expected"}),
    ({**SUM, "percentile": Decimal(50)}, {"percentile": "this goes with the aggregation percentile only"}),
    ({**SUM, "group_by": ["text", "list", "gone"]},
     {"group_by": "texts, numbers or booleans of the usage event's schema were expected "
                  f"{SCALARS}, got 'list', 'gone'"}),
    ({**SUM, "group_by": ["text", "text"]},
     {"group_by": "each property was expected once, got 'text', 'text'"}),
    ({**SUM, "group_by": ["number", "integer", "optional", "anything", "true", "text"]},
     {"group_by": "at most 5 properties were expected, got 6"}),
    *[({**SUM, "group_by": given}, {"group_by": f"a list of names of properties was expected, got {given}"})
      for given in ("text", [1], {"text": 1}, None, [["text"]])],
    ({**SUM, "rounding_mode": "half_up"}, {"rounding_digits": "digits were expected beside the mode, got none"}),
    ({**SUM, "rounding_digits": 2}, {"rounding_mode": "a mode was expected beside the digits, got none"}),
    *[({**SUM, "rounding_mode": "half_up", "rounding_digits": given},
       {"rounding_digits": f"a whole number from 0 to 30 was expected, got {given}"})
      for given in (-1, 31, True, "2", 10**9)],
    ({**SUM, "rounding_mode": "sideways", "rounding_digits": 2},
     {"rounding_mode": "Value 'sideways' is not a valid choice."}),
    ({**SUM, "property": "text", "group_by": ["list"], "rounding_digits": 2, "percentile": 1},
     {"property": f"a number of the usage event's schema was expected {NUMBERS}, got 'text'",
      "percentile": "this goes with the aggregation percentile only",
      "group_by": f"texts, numbers or booleans of the usage event's schema were expected {SCALARS}, got 'list'",
      "rounding_mode": "a mode was expected beside the digits, got none"}),
    ({"sql_window": "day"},
     {"usage_event": OF_SQL,
      "aggregation": OF_SQL,
      "sql": "a SELECT was expected, got none"}),
    ({**SUM, "usage_event": None, "sql": "SELECT 1", "filters": {"all": []}, "group_by": ["a"], "rounding_digits": 1},
     dict.fromkeys(("aggregation", "property", "filters", "group_by", "rounding_digits"), OF_SQL)
     | {"sql_window": "'day' or 'month' was expected, got none"}),
]  # fmt: skip


def test_what_contradicts_itself_or_the_schema_is_refused(stream: UsageEvent) -> None:
    for definition, mistakes in WRONG:
        told = {field: [message] for field, message in mistakes.items()}
        assert refusal(draft(stream, **definition)) == told, definition
    assert not Metric.objects.exists()


def test_the_place_of_a_mistake_in_filters_and_expressions_is_told(stream: UsageEvent) -> None:
    wrong = draft(stream, filters={"all": [{"property": "gone", "operator": "eq", "value": 1}]})
    ((message,),) = refusal(wrong).values()
    assert message.startswith("at all[0].property: ")
    assert list(refusal(draft(stream, filters=[]))) == ["filters"]
    ((message,),) = refusal(draft(stream, aggregation="sum", expression="number + )")).values()
    assert message.startswith("at character 10: ")


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_text_that_cannot_be_stored_is_refused_at_its_field(stream: UsageEvent, text: str) -> None:
    refused = ["text without null characters and without halves of surrogate pairs was expected"]
    for field in ("code", "name", "unit", "aggregation", "property", "expression", "rounding_mode", "sql"):
        assert refusal(draft(stream, **{field: text})) == {field: refused}
    for field, value in (
        ("group_by", [text]),
        ("filters", {"all": [{"property": "text", "operator": "in", "value": ["a", text]}]}),
        ("filters", {"all": [{"all": [{text: 1}]}]}),
    ):
        assert refusal(draft(stream, **{field: value})) == {field: refused}
    assert not Metric.objects.exists()


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
        ({"usage_event": None}, "usage_event"),
        ({"code": "preview"}, "code"),
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


def stored_versions(code: str = "m") -> list[tuple[int, str, str, str]]:
    versions = Metric.objects.filter(code=code).order_by("version")
    return [(metric.version, metric.status, metric.name, metric.property) for metric in versions]


def test_a_draft_is_revised_itself(stream: UsageEvent) -> None:
    metric = save_metric(draft(stream, **SUM))

    revised = revise_metric(metric, {"name": "N", "property": "integer", "group_by": ["text"], "code": "n"})

    assert (revised.pk, revised.group_by) == (metric.pk, ["text"])
    assert stored_versions("n") == [(1, "draft", "N", "integer")]
    with pytest.raises(ValidationError) as caught:
        revise_metric(revised, {"property": "text"})
    assert list(caught.value.message_dict) == ["property"]
    with pytest.raises(ValidationError) as caught:
        revise_metric(metric, {"name": "O"})
    assert caught.value.message_dict == {"code": ["the metric's present code was expected, got 'm'"]}
    assert stored_versions("n") == [(1, "draft", "N", "integer")]


def test_of_a_published_metric_the_name_changes_in_place_and_the_formula_in_a_new_version(stream: UsageEvent) -> None:
    filters = {"all": [{"property": "number", "operator": "gt", "value": 1}]}
    metric = active_metric(stream, code="m", **SUM, filters=filters, rounding_mode="up", rounding_digits=2)

    same = {"name": "N", "unit": "u", **SUM, "usage_event": stream, "code": "m", "rounding_digits": 2}
    same["filters"] = {"all": [{"property": "number", "operator": "gt", "value": Decimal("1.0")}]}
    assert revise_metric(metric, same).pk == metric.pk
    assert stored_versions() == [(1, "active", "N", "number")]

    second = revise_metric(metric, {"property": "integer", "name": "O"})

    assert stored_versions() == [(1, "active", "N", "number"), (2, "draft", "O", "integer")]
    formula = (second.unit, second.filters, second.rounding_mode, second.rounding_digits)
    assert formula == ("u", filters, "up", 2)
    assert (second.built_customer_id, second.activated_at) == (None, None)
    assert second.created_at > metric.created_at

    # The draft takes in what else changes, whichever version it is told of.
    assert revise_metric(metric, {"unit": "v", "group_by": ["text"]}).pk == second.pk
    assert revise_metric(second, {"property": "optional"}).pk == second.pk
    second.refresh_from_db()
    assert (second.property, second.group_by, second.unit) == ("optional", ["text"], "v")
    assert stored_versions() == [(1, "active", "N", "number"), (2, "draft", "O", "optional")]


def test_a_refused_revision_leaves_nothing(stream: UsageEvent) -> None:
    metric = active_metric(stream, code="m", **SUM)
    before = list(Metric.objects.values())
    for changes, mistakes in (
        ({"property": "text"}, ["property"]),
        ({"aggregation": "median"}, ["aggregation"]),
        ({"name": "", "property": "integer"}, ["name"]),
        ({"name": "N", "filters": {"any": []}}, ["filters"]),
        ({"code": "n"}, ["code"]),
        ({"usage_event": None}, ["usage_event"]),
    ):
        with pytest.raises(ValidationError) as caught:
            revise_metric(metric, changes)
        assert list(caught.value.message_dict) == mistakes
    with pytest.raises(TypeError, match="status is no field"):
        revise_metric(metric, {"status": "active", "property": "integer"})
    assert list(Metric.objects.values()) == before


def test_while_a_version_is_built_no_other_formula_is_drafted(stream: UsageEvent) -> None:
    first = active_metric(stream, code="m", **SUM)
    second = revise_metric(first, {"property": "integer"})
    activate_metric(second.pk)

    for metric in (first, second):
        with pytest.raises(ValidationError) as caught:
            revise_metric(metric, {"property": "optional"})
        assert caught.value.message_dict == {
            "__all__": ["version 2 is being built; the formula can be changed again when it is active"]
        }
        revise_metric(metric, {"name": f"N{metric.version}"})
    assert stored_versions() == [(1, "active", "N1", "number"), (2, "building", "N2", "integer")]
    assert build(second.pk)
    assert stored_versions() == [(1, "retired", "N1", "number"), (2, "active", "N2", "integer")]

    assert revise_metric(first, {"property": "optional"}).version == 3
    assert stored_versions()[2] == (3, "draft", "N1", "optional")


def test_the_code_of_a_later_version_stays(stream: UsageEvent) -> None:
    save_metric(draft(stream, code="taken"))
    second = revise_metric(active_metric(stream, code="m", **SUM), {"property": "integer"})

    for code in ("n", "taken"):
        with pytest.raises(ValidationError) as caught:
            revise_metric(second, {"code": code})
        assert caught.value.message_dict == {"code": ["the code 'm' stays; earlier versions carry it"]}
    with pytest.raises(ValidationError) as caught:
        revise_metric(save_metric(draft(stream, code="new")), {"code": "taken"})
    assert caught.value.messages == ["A metric with this code exists already."]
    assert sorted(Metric.objects.values_list("code", "version")) == [("m", 1), ("m", 2), ("new", 1), ("taken", 1)]


def test_of_many_who_revise_at_once_all_end_in_one_draft(stream: UsageEvent) -> None:
    metric = active_metric(stream, code="m", **SUM)
    versions: list[int] = []

    def revise(changes: dict[str, Any]) -> Any:
        return lambda: versions.append(revise_metric(Metric.objects.get(pk=metric.pk), changes).version)

    run_together(
        *(revise({"group_by": ["text"]}), revise({"rounding_mode": "up", "rounding_digits": 1})),
        *(revise({"property": "integer"}), revise({"filters": {"all": []}}), revise({"name": "N"})),
    )

    assert sorted(versions) == [1, 2, 2, 2, 2]
    drafted = Metric.objects.get(version=2)
    assert (drafted.group_by, drafted.rounding_mode, drafted.property) == (["text"], "up", "integer")
    assert Metric.objects.get(version=1).name == "N"


def test_revisions_while_versions_are_activated_and_built_neither_deadlock_nor_break_a_rule(stream: UsageEvent) -> None:
    metric = active_metric(stream, code="m", **SUM)
    take_in(stream, record() | {"data": {"number": 2}})
    refusals: set[str] = set()

    def revise() -> None:
        for digits in range(12):
            try:
                revise_metric(metric, {"rounding_mode": "up", "rounding_digits": digits})
            except ValidationError as error:
                refusals.update(error.messages)

    def activate() -> None:
        for _ in range(12):
            for newest in Metric.objects.newest().filter(code="m"):
                with suppress(NotADraft):
                    activate_metric(newest.pk)
                build(newest.pk)

    run_together(revise, activate, revise, activate)

    statuses = [status for _, status, _, _ in stored_versions()]
    assert statuses.count("active") == 1
    assert set(statuses[:-2]) <= {"retired"}
    assert all("is being built" in text or "published formula" in text for text in refusals), refusals


def test_a_change_of_schema_is_told_who_uses_a_property(stream: UsageEvent) -> None:
    other = create_usage_event(stream.organisation, name="O", slug="other", schema=SCHEMA)
    numbers = {"all": [{"any": [{"property": "flag", "operator": "exists", "value": True}]}]}
    save_metric(draft(stream, code="by_value", **SUM))
    save_metric(draft(stream, code="by_part", aggregation="max", expression='2 * "integer" + number'))
    save_metric(draft(stream, code="by_filter", filters=numbers))
    save_metric(draft(stream, code="by_group", group_by=["text"]))
    save_metric(draft(other, code="elsewhere", **SUM))
    Metric.objects.create(
        organisation=stream.organisation, code="gone", name="G", usage_event=stream, **SUM, status="retired"
    )
    active = active_metric(stream, code="versions", aggregation="sum", property="optional")
    revise_metric(active, {"property": "integer"})

    for properties, codes in (
        ({"number"}, ["by_part", "by_value"]),
        ({"integer"}, ["by_part", "versions"]),
        ({"optional"}, ["versions"]),
        ({"flag", "text"}, ["by_filter", "by_group"]),
        ({"anything", "a\0b"}, []),
        (set(), []),
    ):
        assert metrics_using(stream.pk, properties) == codes, properties
    assert metrics_using(other.pk, {"number"}) == ["elsewhere"]


SQL = """SELECT customer_id, sum("number") AS quantity, text AS kind
FROM stream WHERE timestamp >= {{start_date}} AND timestamp < {{end_date}}
GROUP BY customer_id, text"""


def test_a_metric_of_sql_is_active_at_once_and_retires_the_version_before(stream: UsageEvent) -> None:
    metric = save_metric(draft(stream, usage_event=None, aggregation="", sql=SQL, sql_window="day"))
    assert (metric.status, overlapping(metric)) == ("draft", [])

    first = activate_metric(metric.pk)

    assert (first.status, first.built_customer_id) == ("active", None)
    assert Metric.objects.get().activated_at == first.activated_at is not None
    with pytest.raises(NotADraft):
        activate_metric(metric.pk)
    second = revise_metric(first, {"sql_window": "month"})
    assert (second.version, second.status, second.sql) == (2, "draft", SQL)
    activate_metric(second.pk)
    assert [status for _, status, _, _ in stored_versions()] == ["retired", "active"]
    # From SQL to records: built first, and only then in force.
    third = revise_metric(second, {"sql": "", "sql_window": "", "usage_event": stream, **SUM})
    activate_metric(third.pk)
    assert [status for _, status, _, _ in stored_versions()] == ["retired", "active", "building"]
    assert build(third.pk)
    assert [status for _, status, _, _ in stored_versions()] == ["retired", "retired", "active"]


def test_sql_that_may_not_run_is_refused_at_its_place(stream: UsageEvent) -> None:
    for text in ("DROP TABLE stream", "SELECT customer_id, 1 AS quantity FROM nowhere", SQL.replace("number", "gone")):
        metric = draft(stream, usage_event=None, aggregation="", sql=text, sql_window="day")
        ((message,),) = refusal(metric).values()
        assert message.startswith("line "), text
        assert list(refusal(metric)) == ["sql"]
    assert not Metric.objects.exists()


def test_a_change_of_schema_is_told_which_sql_names_the_column(stream: UsageEvent) -> None:
    other = create_usage_event(stream.organisation, name="O", slug="other", schema=SCHEMA)
    save_metric(draft(stream, usage_event=None, aggregation="", sql=SQL, sql_window="day"))

    for usage_event, properties, codes in (
        (stream, {"number"}, ["m"]),
        (stream, {"integer", "text"}, ["m"]),
        (stream, {"integer", "flag", "start"}, []),
        (other, {"number"}, []),
    ):
        assert metrics_using(usage_event.pk, properties) == codes, properties


def test_metrics_over_the_same_records_are_told(stream: UsageEvent) -> None:
    other = create_usage_event(stream.organisation, name="O", slug="other", schema=SCHEMA)
    metric = save_metric(draft(stream, code="m"))
    first = active_metric(stream, code="a", **SUM)
    second = revise_metric(first, {"property": "integer"})
    save_metric(draft(other, code="elsewhere"))
    Metric.objects.create(
        organisation=stream.organisation, code="gone", name="G", usage_event=stream, **SUM, status="retired"
    )

    assert overlapping(metric) == [first, second]
    assert overlapping(draft(stream, code="new")) == [first, second, metric]
    assert overlapping(first) == [metric]
    assert overlapping(draft(stream, usage_event=None)) == []


def test_the_progress_of_a_build_is_the_share_of_customers_that_are_done(stream: UsageEvent) -> None:
    take_in(stream, *(record(f"cus_{number}") | {"data": {}} for number in range(4)))
    metric = save_metric(draft(stream))
    assert build_progress(metric) is None
    metric = activate_metric(metric.pk)
    assert build_progress(metric) == 0
    ids = list(Customer.objects.order_by("pk").values_list("pk", flat=True))

    for done, share in ((0, 0.0), (1, 0.25), (3, 0.75)):
        metric.built_customer_id = ids[done]
        assert build_progress(metric) == share
    metric.status = "active"
    assert build_progress(metric) is None
    alone = Organisation.objects.create(name="Alone")
    assert build_progress(Metric(organisation=alone, status="building", built_customer_id=0)) == 0
