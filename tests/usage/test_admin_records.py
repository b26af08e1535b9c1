"""Usage records in the admin: found by index, corrected, voided and restored with a reason, never added or deleted."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from customers import admin_lists
from customers.models import Customer, Organisation
from tests.conftest import record, take_in
from tests.people import HOSTILE, staff_of
from usage.corrections import Actor, correct_record
from usage.definitions import create_usage_event
from usage.models import RecordRevision, UsageEvent, UsageRecord

LIST = "/admin/usage/usagerecord/"
TYPED = {
    "type": "object",
    "properties": {
        "amount": {"type": "number"},
        "count": {"type": "integer"},
        "flag": {"type": "boolean"},
        "label": {"type": "string"},
        "region": {"enum": ["eu", "us", 1, None]},
        "nested": {"type": "object"},
        "either": {"type": ["string", "number"]},
    },
}
FULL = {
    "amount": Decimal("0.10000000000000000000000000001"),
    "count": 7,
    "flag": False,
    "label": "",
    "region": "eu",
    "nested": {"a": [1, Decimal("2.50")]},
    "either": "x",
    "unknown": None,
}


@pytest.fixture
def staff(organisation: Organisation) -> Client:
    return staff_of(organisation)


@pytest.fixture
def typed(organisation: Organisation) -> UsageEvent:
    return create_usage_event(organisation, name="Typed", slug="typed", schema=TYPED)


def page_of(stored: UsageRecord) -> str:
    return reverse("admin:usage_usagerecord_change", args=[stored.pk])


def filled_in(client: Client, stored: UsageRecord) -> dict[str, str]:
    """What a browser would post from the record's page if nothing was typed."""
    form = client.get(page_of(stored)).context["form"]
    values: dict[str, str] = {}
    for field in form:
        value = field.value()
        if isinstance(value, list) or (value is None and field.name.startswith("property")):
            text, unset = field.field.widget.decompress(value) if not isinstance(value, list) else value
            values[f"{field.name}_text"] = text
            if unset:
                values[f"{field.name}_unset"] = "on"
        else:
            values[field.name] = "" if value is None else str(value)
    return values


def only_record() -> UsageRecord:
    return UsageRecord.objects.select_related("customer").get()


def shown(response: Any) -> list[int]:
    assert response.status_code == 200
    return [stored.pk for stored in response.context["cl"].result_list]


# --- the list --------------------------------------------------------------------------------------------------------


@pytest.fixture
def three(compute: UsageEvent, typed: UsageEvent) -> list[int]:
    """Three records: oldest usage stored last."""
    take_in(compute, record("a", "2025-06-02T00:00:00Z", id="first"), record("b", "2025-06-03T00:00:00.000001Z"))
    take_in(typed, {"customer_id": "a", "timestamp": "2025-06-01T00:00:00Z", "data": {}})
    return list(UsageRecord.objects.order_by("timestamp").values_list("pk", flat=True))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [2, 1, 0]),
        ("usage_event={compute}", [2, 1]),
        ("usage_event={compute}&customer_id=b", [2]),
        ("customer_id=a", [1, 0]),
        ("customer_id=+a+", [1, 0]),
        ("customer_id=nobody", []),
        ("after=2025-06-02", [2, 1]),
        ("after=2025-06-02T00:00&before=2025-06-03T00:00:00", [1]),
        ("before=2025-06-03T00:00:00.000001", [1, 0]),
        ("before=2025-06-03T00:00:00.000002Z", [2, 1, 0]),
        ("record_id=first", [1]),
        ("record_id={newest}", [2]),
        ("batch={batch}", [0]),
        ("usage_event=&customer_id=&after=&before=&record_id=&batch=", [2, 1, 0]),
    ],
)
def test_the_list_shows_the_newest_usage_first_and_filters(
    staff: Client, three: list[int], compute: UsageEvent, query: str, expected: list[int]
) -> None:
    batch = UsageRecord.objects.get(pk=three[0]).batch_id
    asked = query.format(compute=compute.pk, newest=three[2], batch=batch)
    assert shown(staff.get(f"{LIST}?{asked}")) == [three[index] for index in expected]


def test_no_filter_can_be_asked_what_is_a_fault(staff: Client, three: list[int]) -> None:
    values = [*HOSTILE, "2025-13-01", "0001-01-01", "9999-12-31", "yesterday", "2025-06-17T25:00"]
    for name in ("usage_event", "customer_id", "after", "before", "record_id", "batch", "p", "o", "all"):
        for value in values:
            assert staff.get(LIST, {name: value[:5_000]}, follow=True).status_code == 200, (name, value[:20])


def test_no_other_lookup_comes_in_by_the_address_bar(staff: Client, three: list[int]) -> None:
    for name in (
        "data__x",
        "timestamp__gte",
        "id__in",
        "idempotency_key__regex",
        "customer__name",
        "usage_event__slug",
    ):
        assert staff.get(LIST, {name: "("}).status_code == 400, name


def test_a_bad_time_is_an_error_at_its_field_and_lists_nothing(staff: Client, three: list[int]) -> None:
    response = staff.get(f"{LIST}?after=yesterday")
    assert shown(response) == []
    assert "A date or time was expected" in response.content.decode()


def test_records_are_counted_up_to_a_bound_only(
    staff: Client, three: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_lists, "COUNTED", 2)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        page = staff.get(LIST).content.decode()
    counts = [query["sql"] for query in queries if "COUNT" in query["sql"] and "usage_usagerecord" in query["sql"]]
    assert counts
    assert all("LIMIT 3" in count for count in counts)
    assert "more than 2 usage records" in re.sub(r"\s+", " ", page)


def test_the_list_asks_as_often_for_fifty_records_as_for_three(
    staff: Client, three: list[int], compute: UsageEvent
) -> None:
    with CaptureQueriesContext(connection) as few:
        staff.get(LIST)
    moment = datetime(2025, 7, 1, tzinfo=UTC)
    take_in(compute, *(record(f"c{i}", (moment + timedelta(hours=i)).isoformat()) for i in range(60)))
    with CaptureQueriesContext(connection) as many:
        assert len(shown(staff.get(LIST))) == 50
    assert len(many) == len(few) <= 14


def test_pages_follow_each_other_without_gap(staff: Client, compute: UsageEvent, typed: UsageEvent) -> None:
    moment = datetime(2025, 7, 1, tzinfo=UTC)
    for usage_event, offset in ((compute, 0), (typed, 30)):
        lines = [
            {"customer_id": "a", "timestamp": (moment + timedelta(minutes=60 * i + offset)).isoformat(), "data": {}}
            for i in range(60)
        ]
        take_in(usage_event, *lines)
    pages = [pk for page in (1, 2, 3) for pk in shown(staff.get(f"{LIST}?p={page}"))]
    assert pages == list(UsageRecord.objects.order_by("-timestamp", "-id").values_list("pk", flat=True))


def test_records_are_neither_added_nor_deleted_here(staff: Client, three: list[int]) -> None:
    assert staff.get(f"{LIST}add/").status_code == 403
    assert staff.post(f"{LIST}{three[0]}/delete/", {"post": "yes"}).status_code == 403
    staff.post(LIST, {"action": "delete_selected", "_selected_action": three, "post": "yes"})
    assert UsageRecord.objects.count() == 3


def test_an_id_that_is_none_leads_nowhere(staff: Client, three: list[int]) -> None:
    for identity in ("abc", "9" * 30, "-1", "0", "1.5", "%00", "9" * 5_000, "1_0"):
        for page in ("change", "void", "restore", "history", "delete"):
            assert staff.get(f"{LIST}{identity}/{page}/").status_code in (302, 403, 404), (identity[:20], page)


# --- correcting ------------------------------------------------------------------------------------------------------


def test_every_property_has_the_field_of_its_type(staff: Client, typed: UsageEvent) -> None:
    take_in(typed, {"customer_id": "a", "timestamp": "2025-06-01T00:00:00.000001Z", "data": FULL})
    form = staff.get(page_of(only_record())).context["form"]
    kinds = {field.label: type(field.field).__name__ for field in form.property_fields()}
    assert kinds == {
        "amount": "NumberField",
        "count": "NumberField",
        "flag": "ChoiceOrUnsetField",
        "label": "TextOrUnsetField",
        "region": "ChoiceOrUnsetField",
        "Other data (JSON)": "JSONTextField",
    }
    values = {field.label: field.value() for field in form.property_fields()}
    assert values["amount"] == "0.10000000000000000000000000001"
    assert (values["count"], values["flag"], values["region"], values["label"]) == ("7", "false", '"eu"', "")
    assert form["timestamp"].value() == "2025-06-01T00:00:00.000001Z"


def test_posting_what_was_shown_changes_nothing_and_says_so(staff: Client, typed: UsageEvent) -> None:
    take_in(typed, {"customer_id": "a", "timestamp": "2025-06-01T00:00:00.000001Z", "data": FULL})
    values = filled_in(staff, only_record())
    response = staff.post(page_of(only_record()), {**values, "reason": "nothing"})
    assert "Nothing was changed" in response.content.decode()
    stored = only_record()
    assert (stored.revision, stored.data) == (1, FULL)
    assert not RecordRevision.objects.exists()


def by_label(client: Client, stored: UsageRecord) -> dict[str, str]:
    form = client.get(page_of(stored)).context["form"]
    return {str(field.label): field.name for field in form}


def test_a_correction_keeps_every_digit_and_tells_not_set_from_empty(
    staff: Client, typed: UsageEvent, organisation: Organisation
) -> None:
    Customer.objects.create(organisation=organisation, external_id="b")
    take_in(typed, {"customer_id": "a", "timestamp": "2025-06-01T00:00:00Z", "data": FULL})
    stored, names = only_record(), by_label(staff, only_record())
    values = filled_in(staff, stored) | {
        "customer_id": "b",
        "timestamp": "2025-06-01T00:00:00.123456Z",
        names["amount"]: "98765432109876543210.0123456789",
        names["count"]: "",
        names["flag"]: "true",
        f"{names['label']}_text": "",
        f"{names['label']}_unset": "on",
        names["region"]: "1",
        "rest": '{"nested": {"a": [1.000]}, "unknown": 0.1}',
        "reason": "  the meter was wrong  ",
    }
    assert staff.post(page_of(stored), values).status_code == 302
    stored = only_record()
    assert stored.customer.external_id == "b"
    assert stored.timestamp == datetime(2025, 6, 1, 0, 0, 0, 123456, UTC)
    assert stored.data == {
        "amount": Decimal("98765432109876543210.0123456789"),
        "flag": True,
        "region": 1,
        "nested": {"a": [Decimal("1.000")]},
        "unknown": Decimal("0.1"),
    }
    revision = RecordRevision.objects.get()
    assert (revision.revision, revision.action, revision.reason) == (1, "correct", "the meter was wrong")
    assert (revision.actor_name, revision.data, revision.sender_customer_id) == ("Olga Ops", FULL, "a")

    page = staff.get(page_of(stored)).content.decode()
    for text in ("Olga Ops", "the meter was wrong", "<del>7</del>", "<ins>not set</ins>", "<del>&quot;&quot;</del>"):
        assert text in page


@pytest.fixture
def one(compute: UsageEvent) -> UsageRecord:
    take_in(compute, record("cus_1", hours=5))
    return only_record()


@pytest.mark.parametrize(
    ("label", "value", "message"),
    [
        ("customer_id", "", "required"),
        ("customer_id", "cus_2", "There is no customer of this id"),
        ("customer_id", "x" * 100_000, "at most 255"),
        ("customer_id", "a\0b", "Null characters"),
        ("timestamp", "", "required"),
        ("timestamp", "yesterday", "Expected RFC 3339"),
        ("timestamp", "0001-01-01T00:00:00Z", "2000 to 2100"),
        ("timestamp", "9999-12-31T23:59:59Z", "2000 to 2100"),
        ("timestamp", "2025-02-30T00:00:00Z", "does not exist"),
        ("timestamp", "x" * 100_000, "Expected RFC 3339"),
        ("timestamp", "\0", "Null characters"),
        ("cpu_usage_hours", "five", "A number was expected"),
        ("cpu_usage_hours", "1e999", "64 digits"),
        ("cpu_usage_hours", "1e-999999999", "64 digits"),
        ("cpu_usage_hours", "9" * 65, "64 digits"),
        ("cpu_usage_hours", "9" * 100_000, "A number was expected"),
        ("cpu_usage_hours", "NaN", "A number was expected"),
        ("cpu_usage_hours", "1,5", "A number was expected"),
        ("cpu_usage_hours", "\N{ARABIC-INDIC DIGIT FIVE}", "A number was expected"),
        ("cpu_usage_hours", "\0", "Null characters"),
        ("Reason", "", "required"),
        ("Reason", "   ", "required"),
        ("Reason", "x" * 2_001, "at most 2000"),
        ("Reason", "a\0b", "Null characters"),
    ],
)
def test_a_mistake_is_told_at_its_field_and_changes_nothing(
    staff: Client, one: UsageRecord, label: str, value: str, message: str
) -> None:
    names = by_label(staff, one)
    response = staff.post(page_of(one), filled_in(staff, one) | {"reason": "because", names[label]: value})
    assert response.status_code == 200
    found = response.context["form"].errors
    assert list(found) == [names[label]]
    assert message in found[names[label]][0]
    one.refresh_from_db()
    assert (one.revision, one.data) == (1, {"cpu_usage_hours": 5})
    assert not RecordRevision.objects.exists()


def test_nothing_that_can_be_posted_is_a_fault(staff: Client, one: UsageRecord) -> None:
    shown_values = filled_in(staff, one) | {"reason": "because"}
    for field in ("revision", "rest", "property_0", "property_2_text", "property_2_unset"):
        for value in HOSTILE:
            one.refresh_from_db()
            posted = shown_values | {"revision": str(one.revision), field: value}
            assert staff.post(page_of(one), posted).status_code in (200, 302), (field, value[:20])
            assert staff.post(page_of(one), {field: value}).status_code == 200, (field, value[:20])


def test_what_the_schema_refuses_is_told_at_the_property(staff: Client, organisation: Organisation) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "number", "maximum": 10}}, "required": ["n"]}
    strict = create_usage_event(organisation, name="S", slug="s", schema=schema)
    take_in(strict, {"customer_id": "a", "timestamp": "2025-06-01T00:00:00Z", "data": {"n": 5}})
    for text, message in (("11", "11 is greater than the maximum of 10"), ("", "'n' is required, but is missing")):
        values = filled_in(staff, only_record()) | {"reason": "because", "property_0": text}
        assert staff.post(page_of(only_record()), values).context["form"].errors == {"property_0": [message]}
    values = filled_in(staff, only_record()) | {"reason": "because", "rest": '{"n": 1}'}
    assert "“n” has a field of its own" in str(
        staff.post(page_of(only_record()), values).context["form"].errors["rest"]
    )


@pytest.mark.parametrize(
    "rest", ['{"a": }', "[]", '{"a": "\\u0000"}', '{"a": "\\ud800"}', '{"a":' * 99 + "1" + "}" * 99]
)
def test_other_data_that_cannot_be_kept_is_told_at_its_field(staff: Client, typed: UsageEvent, rest: str) -> None:
    take_in(typed, {"customer_id": "a", "timestamp": "2025-06-01T00:00:00Z", "data": {}})
    values = filled_in(staff, only_record()) | {"reason": "because", "rest": rest}
    assert list(staff.post(page_of(only_record()), values).context["form"].errors) == ["rest"]


def test_after_somebody_elses_change_the_newer_values_are_shown(staff: Client, one: UsageRecord) -> None:
    mine = filled_in(staff, one) | {"reason": "mine", "property_0": "7"}
    other = Actor(None, "Ottilie")
    correct_record(one.pk, data={"cpu_usage_hours": 6}, revision=1, reason="theirs", actor=other)
    response = staff.post(page_of(one), mine)
    page = response.content.decode()
    assert "Somebody else changed this record" in page
    assert "Ottilie" in page
    assert response.context["form"]["property_0"].value() == "6"
    assert response.context["form"]["revision"].value() == 2
    assert response.context["form"].entered == [("cpu_usage_hours", "7")]
    one.refresh_from_db()
    assert one.data == {"cpu_usage_hours": 6}

    again = filled_in(staff, one) | {"reason": "mine", "property_0": "7"}
    assert staff.post(page_of(one), again).status_code == 302


# --- voiding and restoring -------------------------------------------------------------------------------------------


def test_a_record_is_voided_and_restored_from_its_page(staff: Client, one: UsageRecord) -> None:
    void, restore = (reverse(f"admin:usage_usagerecord_{deed}", args=[one.pk]) for deed in ("void", "restore"))
    assert "1 record will no longer count" in staff.get(void).content.decode()
    assert staff.post(void, {"reason": ""}).context["form"].errors == {"reason": ["This field is required."]}
    assert only_record().voided_at is None

    assert staff.post(void, {"reason": "sent twice"})["Location"] == page_of(one)
    assert only_record().voided_at is not None
    page = staff.get(page_of(one)).content.decode()
    assert "This record is void" in page
    assert "sent twice" in page
    assert "are void already" in staff.get(void).content.decode()

    refused = staff.post(page_of(one), {"customer_id": "cus_1", "reason": "x", "revision": "2"})
    assert refused.status_code == 200
    staff.post(restore, {"reason": "it was not"})
    assert (only_record().voided_at, only_record().revision) == (None, 3)


def test_a_selection_is_voided_after_a_page_that_shows_it(staff: Client, three: list[int]) -> None:
    chosen = {"action": "void", "_selected_action": three}
    page = staff.post(LIST, chosen).content.decode()
    assert "3 records will no longer count" in page
    assert UsageRecord.objects.filter(voided_at=None).count() == 3
    for text in HOSTILE[:3]:
        assert staff.post(LIST, {**chosen, "reason": text}).status_code == 200
    assert staff.post(LIST, {**chosen, "reason": "a test run"}).status_code == 302
    assert not UsageRecord.objects.filter(voided_at=None).exists()
    assert RecordRevision.objects.filter(reason="a test run", action="void").count() == 3

    staff.post(LIST, {"action": "restore", "_selected_action": three[:2], "reason": "no test run"})
    assert UsageRecord.objects.filter(voided_at=None).count() == 2


def test_a_selection_that_is_none_is_refused(staff: Client, three: list[int]) -> None:
    for action in ("void", "restore", "bogus", "\0"):
        for identity in ("abc", "9" * 40, "\0", "-1", ""):
            posted = {"action": action, "_selected_action": identity, "reason": "because"}
            assert staff.post(LIST, posted).status_code in (200, 302), (action, identity)
    assert UsageRecord.objects.filter(voided_at=None).count() == 3
