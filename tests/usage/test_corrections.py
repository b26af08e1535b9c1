"""Corrections: the before-image, the marks, who may not, and that a refusal leaves no trace."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction

from customers.models import Customer
from tests.conftest import record, take_in
from tests.threads import run_together
from usage.corrections import (
    Actor,
    CorrectionError,
    StaleRevision,
    actor_of,
    correct_record,
    restore_records,
    void_records,
)
from usage.definitions import create_usage_event, publish_schema
from usage.models import ChangedWindow, RecordRevision, UsageEvent, UsageRecord

ACTOR = Actor(7, "Ada Lovelace")
HOUR = datetime(2025, 6, 17, 14, tzinfo=UTC)


@pytest.fixture
def stored(compute: UsageEvent) -> UsageRecord:
    take_in(compute, record(id="a", hours=Decimal("1.50")))
    return UsageRecord.objects.get()


def correct(stored: UsageRecord, **change: Any) -> UsageRecord:
    return correct_record(stored.pk, **{"revision": 1, "reason": "typo", "actor": ACTOR, **change})


def marks() -> list[tuple[str, datetime]]:
    rows = ChangedWindow.objects.order_by("id").values_list("customer_id", "window_start")
    names = dict(Customer.objects.values_list("id", "external_id"))
    return [(names[customer_id], hour) for customer_id, hour in rows]


def everything() -> list[Any]:
    return [
        list(model.objects.order_by("pk").values()) for model in (UsageRecord, RecordRevision, ChangedWindow, Customer)
    ]


@pytest.fixture
def no_trace(stored: UsageRecord) -> Callable[[], None]:
    """Call it after a refusal: nothing may be different from what was there when the test began."""
    before = everything()

    def check() -> None:
        assert everything() == before

    return check


def test_data_is_changed_and_the_before_image_kept(stored: UsageRecord) -> None:
    answer = correct(stored, data={"cpu_usage_hours": Decimal("2.25")}, reason="  wrong meter ")

    after = UsageRecord.objects.get()
    assert (after.data, after.revision) == ({"cpu_usage_hours": Decimal("2.25")}, 2)
    assert (answer.data, answer.revision) == (after.data, 2)
    kept = ("customer_id", "timestamp", "idempotency_key", "batch_id", "received_at", "schema_version", "voided_at")
    assert [getattr(after, name) for name in kept] == [getattr(stored, name) for name in kept]
    revision = RecordRevision.objects.get()
    assert (revision.record_id, revision.usage_event_id, revision.revision) == (stored.pk, stored.usage_event_id, 1)
    assert (revision.action, revision.reason) == ("correct", "wrong meter")
    assert (revision.actor_id, revision.actor_name) == (7, "Ada Lovelace")
    assert (revision.customer_id, revision.sender_customer_id) == (stored.customer_id, "cus_1")
    assert (revision.timestamp, revision.data, revision.voided_at) == (stored.timestamp, stored.data, None)
    assert revision.created_at >= stored.received_at
    assert set(marks()) == {("cus_1", HOUR)}


@pytest.mark.parametrize(
    ("moment", "hour"),
    [
        (datetime(2025, 6, 17, 15, 0, tzinfo=UTC), HOUR + timedelta(hours=1)),
        (datetime(2025, 6, 17, 13, 59, 59, 999_999, tzinfo=UTC), HOUR - timedelta(hours=1)),
        (datetime(2025, 6, 17, 14, 59, 59, 999_999, tzinfo=UTC), HOUR),
        (datetime.fromisoformat("2025-06-18T02:30:00+05:30"), HOUR + timedelta(hours=7)),
    ],
)
def test_the_old_and_the_new_hour_are_marked(stored: UsageRecord, moment: datetime, hour: datetime) -> None:
    correct(stored, timestamp=moment)

    assert UsageRecord.objects.get().timestamp == moment
    assert set(marks()) == {("cus_1", HOUR), ("cus_1", hour)}


def test_the_old_and_the_new_customer_are_marked(stored: UsageRecord) -> None:
    correct(stored, customer_id="cus_2", timestamp=HOUR + timedelta(days=1))

    assert UsageRecord.objects.get().customer.external_id == "cus_2"
    assert not Customer.objects.get(external_id="cus_2").confirmed
    assert set(marks()) == {("cus_1", HOUR), ("cus_2", HOUR + timedelta(days=1))}
    assert RecordRevision.objects.get().sender_customer_id == "cus_1"


def test_a_known_customer_is_not_created_again(stored: UsageRecord) -> None:
    known = Customer.objects.create(organisation=stored.usage_event.organisation, external_id="cus_2", name="Known")

    correct(stored, customer_id="cus_2")

    assert UsageRecord.objects.get().customer_id == known.pk
    assert Customer.objects.count() == 2


def test_revisions_count_up_and_each_is_kept(stored: UsageRecord) -> None:
    for revision, hours in ((1, 2), (2, 3)):
        correct(stored, data={"cpu_usage_hours": hours}, revision=revision)
    void_records(stored.usage_event_id, [stored.pk], reason="r", actor=ACTOR)

    assert UsageRecord.objects.get().revision == 4
    assert list(RecordRevision.objects.order_by("revision").values_list("revision", "action", "data")) == [
        (1, "correct", {"cpu_usage_hours": Decimal("1.50")}),
        (2, "correct", {"cpu_usage_hours": 2}),
        (3, "void", {"cpu_usage_hours": 3}),
    ]


def test_a_correction_is_checked_by_the_schema_in_force(stored: UsageRecord) -> None:
    usage_event = stored.usage_event
    schema = {"type": "object", "properties": {"gb": {"type": "number"}}, "required": ["gb"]}
    publish_schema(usage_event, schema, accept_violations=True)

    with pytest.raises(CorrectionError, match="'gb' is required, but is missing"):
        correct(stored, data={"cpu_usage_hours": 2})
    correct(stored, timestamp=HOUR)
    assert UsageRecord.objects.get().schema_version == 1
    correct(stored, data={"gb": 2}, revision=2)

    after = UsageRecord.objects.get()
    assert (after.schema_version, after.data) == (2, {"gb": 2})


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"data": {"cpu_usage_hours": "5"}}, "data", "/data/cpu_usage_hours: '5' is not of type 'number'"),
        ({"data": {"other": 5}}, "data", "'other' is not in the schema"),
        ({"data": []}, "data", "[] is not of type 'object'"),
        ({"data": {"region": "\0"}}, "data", "text without the character"),
        ({"data": {"region": "\ud800"}}, "data", "surrogate"),
        ({"data": {"cpu_usage_hours": 10**64}}, "data", "at most 64 digits"),
        ({"data": {"cpu_usage_hours": Decimal("1e65")}}, "data", "at most 64 digits"),
        ({"timestamp": datetime(1999, 12, 31, tzinfo=UTC)}, "timestamp", "expected a year from 2000 to 2100"),
        ({"timestamp": datetime(2101, 1, 1, tzinfo=UTC)}, "timestamp", "expected a year from 2000 to 2100"),
        ({"timestamp": datetime(2025, 6, 17)}, "timestamp", "a moment with a zone"),
        ({"customer_id": ""}, "customer_id", "a string of 1 to 255 characters"),
        ({"customer_id": "c" * 256}, "customer_id", "a string of 1 to 255 characters"),
        ({"customer_id": "a\0b"}, "customer_id", "null characters"),
        ({"customer_id": "\ud800"}, "customer_id", "surrogate"),
        ({"customer_id": "cus_new", "data": {"cpu_usage_hours": "5"}}, "data", "is not of type 'number'"),
        ({}, "", "nothing was changed"),
        ({"data": {"cpu_usage_hours": Decimal("1.5")}, "customer_id": "cus_1"}, "", "nothing was changed"),
        ({"timestamp": datetime.fromisoformat("2025-06-17T16:03:12+02:00")}, "", "nothing was changed"),
        ({"data": {}, "reason": ""}, "reason", "a reason of 1 to 2000 characters is required"),
        ({"data": {}, "reason": " \n\t "}, "reason", "a reason of 1 to 2000 characters is required"),
        ({"data": {}, "reason": "r" * 2001}, "reason", "a reason of 1 to 2000 characters is required"),
        ({"data": {}, "reason": "a\0b"}, "reason", "null characters"),
        ({"data": {}, "reason": "\ud800"}, "reason", "surrogate"),
    ],
)
def test_a_refusal_names_the_field_and_leaves_no_trace(
    stored: UsageRecord, no_trace: Callable[[], None], change: dict[str, Any], field: str, message: str
) -> None:
    with pytest.raises(CorrectionError) as caught:
        correct(stored, **change)

    assert caught.value.field == field
    assert message in str(caught.value)
    no_trace()


def test_a_stale_revision_is_refused(stored: UsageRecord) -> None:
    correct(stored, data={"cpu_usage_hours": 2})
    before = everything()

    for revision in (1, 3, 0, -1):
        with pytest.raises(StaleRevision, match=f"revision {revision} was read, it is at 2") as caught:
            correct(stored, data={"cpu_usage_hours": 3}, revision=revision)
        assert caught.value.field == "revision"

    assert everything() == before


def test_a_record_that_is_not_there_does_not_exist(stored: UsageRecord, no_trace: Callable[[], None]) -> None:
    with pytest.raises(UsageRecord.DoesNotExist):
        correct_record(stored.pk + 1, data={}, revision=1, reason="r", actor=ACTOR)

    no_trace()


def test_a_fault_in_the_middle_leaves_no_trace(
    stored: UsageRecord, no_trace: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("usage.correction_sql.correct_record", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        correct(stored, customer_id="cus_2", data={})

    no_trace()


def test_a_refused_correction_teaches_the_process_no_customer_that_is_not_there(
    stored: UsageRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("usage.correction_sql.correct_record", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            correct(stored, customer_id="cus_2")
    assert not Customer.objects.filter(external_id="cus_2").exists()

    take_in(stored.usage_event, record("cus_2"))

    assert UsageRecord.objects.latest("id").customer.external_id == "cus_2"


def test_void_and_restore_keep_everything_else(stored: UsageRecord) -> None:
    before = UsageRecord.objects.values().get()

    assert void_records(stored.usage_event_id, [stored.pk], reason="test data", actor=ACTOR) == 1
    voided = UsageRecord.objects.values().get()
    assert voided == {**before, "revision": 2, "voided_at": voided["voided_at"]}
    assert voided["voided_at"] is not None
    assert set(marks()) == {("cus_1", HOUR)}

    assert restore_records(stored.usage_event_id, [stored.pk], reason="was real", actor=ACTOR) == 1
    assert UsageRecord.objects.values().get() == {**before, "revision": 3}
    assert list(RecordRevision.objects.order_by("id").values_list("action", "reason", "revision", "voided_at")) == [
        ("void", "test data", 1, None),
        ("restore", "was real", 2, voided["voided_at"]),
    ]
    assert len(marks()) == 2


def test_only_what_changes_is_counted_and_revised(compute: UsageEvent) -> None:
    take_in(compute, record(id="a"), record(id="b"), record("cus_2", "2025-06-18T00:00:00Z", id="c"))
    a, b, c = UsageRecord.objects.order_by("id").values_list("id", flat=True)

    assert void_records(compute.pk, [a], reason="r", actor=ACTOR) == 1
    assert void_records(compute.pk, [c, b, a, a, 10**18], reason="r", actor=ACTOR) == 2
    assert void_records(compute.pk, [a, b, c], reason="r", actor=ACTOR) == 0
    assert void_records(compute.pk, [], reason="r", actor=ACTOR) == 0
    assert restore_records(compute.pk, [b], reason="r", actor=ACTOR) == 1
    assert restore_records(compute.pk, [b], reason="r", actor=ACTOR) == 0

    assert list(RecordRevision.objects.order_by("record_id", "id").values_list("record_id", "action")) == [
        (a, "void"),
        (b, "void"),
        (b, "restore"),
        (c, "void"),
    ]
    assert sorted(set(marks())) == [("cus_1", HOUR), ("cus_2", datetime(2025, 6, 18, tzinfo=UTC))]


def test_records_of_another_usage_event_are_left_alone(stored: UsageRecord, no_trace: Callable[[], None]) -> None:
    other = create_usage_event(stored.usage_event.organisation, name="O", slug="o", schema={"type": "object"})

    assert void_records(other.pk, [stored.pk], reason="r", actor=ACTOR) == 0

    no_trace()


@pytest.mark.parametrize("act", [void_records, restore_records])
@pytest.mark.parametrize("reason", ["", "  ", "r" * 2001, "a\0b", "\ud800"])
def test_void_and_restore_need_a_reason_too(
    stored: UsageRecord, no_trace: Callable[[], None], act: Callable[..., int], reason: str
) -> None:
    with pytest.raises(CorrectionError) as caught:
        act(stored.usage_event_id, [stored.pk], reason=reason, actor=ACTOR)

    assert caught.value.field == "reason"
    no_trace()


def test_a_void_record_is_not_corrected_before_it_is_restored(stored: UsageRecord) -> None:
    void_records(stored.usage_event_id, [stored.pk], reason="r", actor=ACTOR)
    before = everything()

    with pytest.raises(CorrectionError, match="the record is void; restore it before correcting it"):
        correct(stored, data={}, revision=2)

    assert everything() == before


def test_a_voided_or_corrected_record_keeps_its_identity(stored: UsageRecord) -> None:
    correct(stored, data={"cpu_usage_hours": 9}, customer_id="cus_2")
    void_records(stored.usage_event_id, [stored.pk], reason="r", actor=ACTOR)

    as_first_sent = take_in(stored.usage_event, record(id="a", hours=Decimal("1.5")))
    as_corrected = take_in(stored.usage_event, record("cus_2", id="a", hours=9))

    assert (as_first_sent.duplicates, as_first_sent.conflicts) == (1, 0)
    assert (as_corrected.duplicates, as_corrected.conflicts) == (0, 1)
    assert UsageRecord.objects.count() == 1


def test_of_two_correctors_at_once_one_is_stale(stored: UsageRecord) -> None:
    outcomes: list[str] = []

    def corrector(hours: int) -> Callable[[], None]:
        def run() -> None:
            try:
                correct(stored, data={"cpu_usage_hours": hours})
                outcomes.append(f"set {hours}")
            except StaleRevision:
                outcomes.append("stale")

        return run

    run_together(*(corrector(hours) for hours in (10, 20, 30, 40)))

    won = [outcome for outcome in outcomes if outcome != "stale"]
    assert len(outcomes) == 4
    assert won == [f"set {UsageRecord.objects.get().data['cpu_usage_hours']}"]
    assert UsageRecord.objects.get().revision == 2
    assert RecordRevision.objects.count() == 1


def test_people_who_void_overlapping_selections_never_deadlock_and_count_each_record_once(compute: UsageEvent) -> None:
    take_in(compute, *(record(id=f"k{i}") for i in range(60)))
    ids = list(UsageRecord.objects.order_by("id").values_list("id", flat=True))
    counts: list[int] = []

    def voider(selection: list[int]) -> Callable[[], None]:
        return lambda: counts.append(void_records(compute.pk, selection, reason="r", actor=ACTOR))

    run_together(voider(ids[:40]), voider(ids[20:][::-1]), voider(ids[::-1]), voider(ids[10:50]))

    assert sum(counts) == 60
    assert RecordRevision.objects.count() == 60
    assert set(UsageRecord.objects.values_list("revision", flat=True)) == {2}


def test_an_act_inside_a_transaction_that_rolls_back_never_happened(
    stored: UsageRecord, no_trace: Callable[[], None]
) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        correct(stored, customer_id="cus_2", data={})
        raise ZeroDivisionError

    no_trace()
    assert not connection.in_atomic_block


@pytest.mark.django_db
def test_an_actor_is_called_by_the_full_name_where_there_is_one() -> None:
    ada = User.objects.create(username="ada", first_name="Ada", last_name="Lovelace")
    bob = User.objects.create(username="bob")

    assert actor_of(ada) == Actor(ada.pk, "Ada Lovelace")
    assert actor_of(bob) == Actor(bob.pk, "bob")
