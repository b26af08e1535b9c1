"""Usage events in the admin: added, shown with what a sender needs, republished, archived; mistakes at the field."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from customers.models import Organisation
from metrics.models import Metric
from tests.conftest import COMPUTE_SCHEMA, record, take_in
from tests.people import HOSTILE, staff_of
from usage.definitions import publish_schema
from usage.ingestion import UsageEventGone
from usage.models import SchemaVersion, UsageEvent, UsageRecord
from usage.policy_fields import SpanField

ADD = "/admin/usage/usageevent/add/"
LIST = "/admin/usage/usageevent/"
POLICIES = {"unknown_customer": "create", "invalid_record": "quarantine", "max_age_number": "", "max_ahead_number": ""}


@pytest.fixture
def staff(organisation: Organisation) -> Client:
    return staff_of(organisation)


def add(client: Client, **fields: Any) -> Any:
    values = {"name": "GPU hours", "slug": "", "schema": json.dumps(COMPUTE_SCHEMA), **POLICIES}
    return client.post(ADD, {**values, **fields})


def errors(response: Any) -> dict[str, list[str]]:
    assert response.status_code == 200
    return dict(response.context["form"].errors)


def test_the_form_shows_what_every_record_has_and_starts_with_an_example(staff: Client) -> None:
    page = staff.get(ADD)
    for text in ("customer_id", "timestamp", "String", "DateTime", "Order by", "http://localhost:8000/usage/"):
        assert text in page.content.decode()
    assert json.loads(page.context["form"]["schema"].value())["type"] == "object"
    assert "organisation" not in page.context["form"].fields


def test_a_usage_event_is_added_and_its_page_says_what_to_do_next(staff: Client, organisation: Organisation) -> None:
    response = add(staff)
    usage_event = UsageEvent.objects.get()
    assert (usage_event.organisation, usage_event.name, usage_event.slug) == (organisation, "GPU hours", "gpu_hours")
    assert usage_event.schema == COMPUTE_SCHEMA
    version = SchemaVersion.objects.get()
    assert (version.version, str(version.published_by)) == (1, "olga")

    page = staff.get(response["Location"]).content.decode()
    assert "Ready: post the first record" in page
    assert "curl -X POST http://localhost:8000/usage/gpu_hours" in page
    assert str(organisation.key) in page
    assert "$API_KEY" in page
    assert "There is none yet" in page


@pytest.mark.parametrize(
    ("name", "slug"), [("GPU hours, Zürich!", "gpu_hours_zurich"), ("  API -- calls  ", "api_calls")]
)
def test_an_empty_slug_is_derived_from_the_name(staff: Client, name: str, slug: str) -> None:
    add(staff, name=name)
    assert UsageEvent.objects.get().slug == slug


def test_a_name_that_gives_no_slug_needs_one(staff: Client) -> None:
    assert errors(add(staff, name="用量")) == {"slug": ["No slug can be derived from this name: enter one."]}
    add(staff, name="用量", slug="usage-1")
    assert UsageEvent.objects.get().slug == "usage-1"


@pytest.mark.parametrize(
    "slug", ["with space", "ü", "a/b", "a.b", "a\n", "x" * 101, "x" * 100_000, "a\0b", "%2F", "../x"]
)
def test_a_slug_that_cannot_be_used_is_an_error_at_the_field(staff: Client, slug: str) -> None:
    response = add(staff, slug=slug)
    if slug == "a\n":  # a browser's line cannot end so; the end is trimmed
        assert UsageEvent.objects.get().slug == "a"
    else:
        assert list(errors(response)) == ["slug"]
        assert not UsageEvent.objects.exists()


def test_a_taken_slug_is_an_error_at_the_field(staff: Client, compute: UsageEvent) -> None:
    taken = errors(add(staff, slug="compute_hours"))
    assert taken == {"slug": ["A usage event with this API slug endpoint exists already."]}
    assert UsageEvent.objects.count() == 1


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("", "This field is required."),
        ("[]", "not an array"),
        ("5", "not a number"),
        ('"x"', "not a string"),
        ("null", "not null"),
        ('{\n  "type": oops}', "Line 2, column 11"),
        ('{"type": "objekt"}', "/type"),
        ('{"type": "object", "properties": {"a": {"type": "float"}}}', "/properties/a/type"),
        ('{"type": "object", "properties": {"a": {"pattern": "("}}}', "/properties/a/pattern"),
        ('{"type": "object", "title": "' + "x" * 1_000_000 + '"}', "100000 bytes"),
        ('{"type": "object", "title": "\\u0000"}', "null character"),
        ('{"type": "object", "title": "\0"}', "Null characters"),
        ('{"type": "object", "title": "\\ud800"}', "surrogate"),
        ('{"type": "object", "maximum": 1e999}', "64 digits"),
        ('{"type": "object", "maximum": 1e99999999999999999999}', "This is not JSON"),
        ('{"type": "object", "maximum": ' + "9" * 5_000 + "}", "not JSON"),
        ('{"type": "object", "maximum": NaN}', "NaN"),
        ('{"not":' * 100 + "{}" + "}" * 100, "64 levels"),
        ('{"not":' * 100_000 + "{}" + "}" * 100_000, "64 levels"),
        ('{"type": "object", "$ref": "http://example.com/x.json"}', "This schema cannot be used"),
    ],
)
def test_a_schema_that_cannot_be_used_is_an_error_with_its_place(staff: Client, schema: str, message: str) -> None:
    found = errors(add(staff, schema=schema))
    assert list(found) == ["schema"]
    assert message in found["schema"][0]
    assert not UsageEvent.objects.exists()


def test_nothing_that_can_be_typed_is_a_fault(staff: Client) -> None:
    for field in ("name", "slug", "schema", "organisation"):
        for value in HOSTILE:
            assert add(staff, **{field: value}).status_code in (200, 302), (field, value[:20])


def test_who_works_for_several_organisations_chooses_one(organisation: Organisation) -> None:
    second, foreign = Organisation.objects.create(name="Second"), Organisation.objects.create(name="Foreign")
    staff = staff_of(organisation, second)
    assert list(errors(add(staff))) == ["organisation"]
    assert list(errors(add(staff, organisation=foreign.pk))) == ["organisation"]
    add(staff, organisation=second.pk)
    assert UsageEvent.objects.get().organisation == second


def change(client: Client, usage_event: UsageEvent, **fields: Any) -> Any:
    usage_event.refresh_from_db()
    values = {"name": usage_event.name, "schema": json.dumps(usage_event.schema), "schema_version": 1, **POLICIES}
    return client.post(page_of(usage_event), {**values, **fields})


def page_of(usage_event: UsageEvent) -> str:
    return reverse("admin:usage_usageevent_change", args=[usage_event.pk])


def test_a_changed_schema_is_a_new_version_and_records_keep_theirs(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, record())
    wider = {**COMPUTE_SCHEMA, "additionalProperties": True}
    assert (
        change(staff, compute, name="Compute", schema=json.dumps(wider), slug="other", publish="yes").status_code == 302
    )
    compute.refresh_from_db()
    assert (compute.name, compute.slug, compute.schema_version) == ("Compute", "compute_hours", 2)
    assert [version.schema for version in SchemaVersion.objects.order_by("version")] == [COMPUTE_SCHEMA, wider]
    assert UsageRecord.objects.get().schema_version == 1
    page = staff.get(reverse("admin:usage_usageevent_change", args=[compute.pk])).content.decode()
    assert "Version 2" in page
    assert "Version 1" in page


def test_saving_without_a_change_publishes_nothing(staff: Client, compute: UsageEvent) -> None:
    page = staff.get(reverse("admin:usage_usageevent_change", args=[compute.pk]))
    assert change(staff, compute, schema=page.context["form"]["schema"].value()).status_code == 302
    assert SchemaVersion.objects.count() == 1


def test_two_people_cannot_overwrite_each_others_schema(staff: Client, compute: UsageEvent) -> None:
    change(staff, compute, schema='{"type": "object"}', publish="yes")
    refused = change(staff, compute, schema='{"type": "object", "title": "mine"}', publish="accept")
    assert "Version 2 was published while you were editing version 1" in errors(refused)["schema"][0]
    assert SchemaVersion.objects.count() == 2


@pytest.mark.parametrize("version", ["", "x", "-1", "9" * 40])
def test_a_version_that_is_none_changes_nothing(staff: Client, compute: UsageEvent, version: str) -> None:
    assert change(staff, compute, schema='{"type": "object"}', schema_version=version, publish="yes").status_code == 200
    assert SchemaVersion.objects.count() == 1


# --- what publishing would mean ---------------------------------------------------------------------------------------


def test_a_compatible_schema_is_shown_before_it_is_published(staff: Client, compute: UsageEvent) -> None:
    wider = json.dumps({**COMPUTE_SCHEMA, "additionalProperties": True})
    shown = change(staff, compute, name="Other", schema=wider)
    text = shown.content.decode()
    assert "Nothing was saved yet" in text
    assert "takes all that version 1 took" in text
    assert "Publish version 2" in text
    assert "additionalProperties: false" in text
    compute.refresh_from_db()
    assert (compute.name, compute.schema_version, SchemaVersion.objects.count()) == ("Compute hours", 1, 1)

    assert staff.post(page_of(compute), {**dict(shown.context["posted"]), "publish": "yes"}).status_code == 302
    compute.refresh_from_db()
    assert (compute.name, compute.schema_version) == ("Other", 2)
    assert compute.schema["additionalProperties"] is True


def test_what_does_not_go_with_the_schema_is_counted_and_needs_a_word(staff: Client, cpu_hours: Metric) -> None:
    compute = UsageEvent.objects.get()
    take_in(compute, record(hours=1), record(hours=2))
    narrower = json.dumps({"type": "object", "properties": {"region": {}}, "additionalProperties": False})
    shown = change(staff, compute, schema=narrower)
    text = shown.content.decode()
    assert shown.context["change"].violating_records == 2
    assert "2 stored records would be refused by it" in text
    assert "cpu_hours" in text
    assert "Publish all the same" in text

    # Without the word, nothing: "yes" is not enough for what somebody has to accept.
    posted = dict(shown.context["posted"])
    assert "Nothing was saved yet" in staff.post(page_of(compute), {**posted, "publish": "yes"}).content.decode()
    for word in ("no", "\0", "edit"):
        assert staff.post(page_of(compute), {**posted, "publish": word}).status_code == 200
    assert SchemaVersion.objects.count() == 1

    assert staff.post(page_of(compute), {**posted, "publish": "accept"}).status_code == 302
    compute.refresh_from_db()
    assert compute.schema_version == 2
    assert UsageRecord.objects.filter(schema_version=1).count() == 2


def test_back_to_the_form_keeps_what_was_typed(staff: Client, compute: UsageEvent) -> None:
    typed = '{"type": "object", "title": "typed"}'
    form = change(staff, compute, schema=typed, publish="edit").context["form"]
    assert form["schema"].value() == typed
    assert SchemaVersion.objects.count() == 1


def test_versions_are_compared(staff: Client, compute: UsageEvent) -> None:
    publish_schema(compute, {**COMPUTE_SCHEMA, "additionalProperties": True})
    publish_schema(compute, {"type": "object"})
    compare = reverse("admin:usage_usageevent_versions", args=[compute.pk])

    newest = staff.get(compare)
    assert (newest.context["earlier"].version, newest.context["later"].version) == (2, 3)
    assert ("cpu_usage_hours", "removed") in [(change.path, change.kind) for change in newest.context["changes"]]
    chosen = staff.get(compare, {"from": 1, "to": 2})
    assert [change.path for change in chosen.context["changes"]] == ["data"]
    assert "additionalProperties" in chosen.content.decode()
    assert "The two are the same" in staff.get(compare, {"from": 2, "to": 2}).content.decode()
    for value in [*HOSTILE, "", "99"]:
        assert staff.get(compare, {"from": value[:5_000], "to": "1"}).status_code == 200
    assert "removed" in staff.get(page_of(compute)).content.decode()

    stranger = staff_of(Organisation.objects.create(name="Other"), name="stranger")
    assert stranger.get(compare).status_code == 404


# --- policies ---------------------------------------------------------------------------------------------------------


def test_policies_are_set_when_adding_and_changing(staff: Client, organisation: Organisation) -> None:
    chosen = {"unknown_customer": "quarantine", "invalid_record": "refuse"}
    add(staff, **chosen, max_age_number="2", max_age_unit="days", max_ahead_number="90", max_ahead_unit="minutes")
    usage_event = UsageEvent.objects.get()
    assert (usage_event.unknown_customer, usage_event.invalid_record) == ("quarantine", "refuse")
    assert (usage_event.max_age, usage_event.max_ahead) == (timedelta(days=2), timedelta(minutes=90))

    form = staff.get(page_of(usage_event)).context["form"]
    assert form.fields["max_age"].widget.decompress(form["max_age"].value()) == [2, "days"]
    assert form.fields["max_ahead"].widget.decompress(form["max_ahead"].value()) == [90, "minutes"]

    assert change(staff, usage_event, max_ahead_number="0.5", max_ahead_unit="hours").status_code == 302
    usage_event.refresh_from_db()
    assert (usage_event.unknown_customer, usage_event.invalid_record) == ("create", "quarantine")
    assert (usage_event.max_age, usage_event.max_ahead) == (None, timedelta(minutes=30))
    assert usage_event.schema_version == 1


@pytest.mark.parametrize("span", [timedelta(0), timedelta(microseconds=1), timedelta(seconds=90), timedelta(days=9)])
def test_every_span_comes_back_as_it_was(span: timedelta) -> None:
    field = SpanField()
    number, unit = field.widget.decompress(span)
    assert field.clean([str(number), unit]) == span
    assert not field.has_changed(span, [str(number), unit])


def test_policies_that_are_none_are_told_at_their_fields(staff: Client, compute: UsageEvent) -> None:
    for field, value, name in (
        ("unknown_customer", "x", "unknown_customer"),
        ("invalid_record", "", "invalid_record"),
        ("max_age_number", "-1", "max_age"),
        ("max_age_number", "soon", "max_age"),
        ("max_age_unit", "fortnights", "max_age"),
        ("max_ahead_number", "36526", "max_ahead"),
    ):
        posted = {"max_age_unit": "days", "max_ahead_unit": "days", field: value}
        assert list(errors(change(staff, compute, **posted))) == [name], field
    for field in (
        "unknown_customer",
        "invalid_record",
        "max_age_number",
        "max_age_unit",
        "max_ahead_number",
        "max_ahead_unit",
    ):
        for value in HOSTILE:
            assert change(staff, compute, **{"max_age_number": "1", field: value}).status_code in (200, 302), field
    compute.refresh_from_db()
    assert compute.unknown_customer == "create"


def test_an_archived_usage_event_takes_no_records_until_it_is_unarchived(staff: Client, compute: UsageEvent) -> None:
    archive = reverse("admin:usage_usageevent_archive", args=[compute.pk])
    assert staff.get(archive).status_code == 403
    staff.post(archive, {"archived": "yes"})
    with pytest.raises(UsageEventGone):
        take_in(compute, record())
    staff.post(archive, {"archived": "no"})
    assert take_in(compute, record()).accepted == 1


def test_archiving_is_an_action_of_the_list_too(staff: Client, compute: UsageEvent) -> None:
    staff.post(LIST, {"action": "archive", "_selected_action": [compute.pk]})
    compute.refresh_from_db()
    assert compute.archived_at is not None
    staff.post(LIST, {"action": "unarchive", "_selected_action": [compute.pk]})
    compute.refresh_from_db()
    assert compute.archived_at is None


def test_nobody_deletes_a_usage_event(staff: Client, compute: UsageEvent) -> None:
    assert staff.post(reverse("admin:usage_usageevent_delete", args=[compute.pk]), {"post": "yes"}).status_code == 403
    staff.post(LIST, {"action": "delete_selected", "_selected_action": [compute.pk], "post": "yes"})
    assert UsageEvent.objects.count() == 1


def test_an_empty_list_says_what_a_usage_event_is(staff: Client) -> None:
    page = staff.get(LIST).content.decode()
    assert "ADD USAGE EVENT" in page
    assert "A usage event is a stream of records" in page
