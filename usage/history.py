"""The history of a record: every revision with what it changed from and to, who did it, when and why."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from customers.exactjson import dumps, same_json
from usage.models import RecordRevision, UsageRecord

MAX_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Difference:
    """One field of a record before and after a change, as text."""

    field: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the history; `revision` is the number that the change gave the record."""

    revision: int
    action: str
    label: str
    reason: str
    actor_name: str
    at: datetime
    differences: list[Difference]


@dataclass(frozen=True, slots=True)
class _Image:
    customer_id: str
    timestamp: datetime
    data: dict[str, Any]
    voided: bool


def history(record: UsageRecord) -> list[Change]:
    """Return the newest changes of a record, newest first. What a change led to is what the next one found."""
    revisions = RecordRevision.objects.filter(usage_event_id=record.usage_event_id, record_id=record.pk)
    changes: list[Change] = []
    after = _Image(record.customer.external_id, record.timestamp, record.data, record.voided_at is not None)
    for revision in revisions.order_by("-revision")[:MAX_SHOWN]:
        before = _Image(revision.sender_customer_id, revision.timestamp, revision.data, revision.voided_at is not None)
        changes.append(
            Change(
                revision=revision.revision + 1,
                action=revision.action,
                label=revision.get_action_display(),
                reason=revision.reason,
                actor_name=revision.actor_name,
                at=revision.created_at,
                differences=list(_differences(before, after)),
            )
        )
        after = before
    return changes


def moment_text(moment: datetime) -> str:
    """Return an instant in UTC with every digit that it has."""
    return moment.isoformat().replace("+00:00", "Z")


def _differences(before: _Image, after: _Image) -> Any:
    if before.customer_id != after.customer_id:
        yield Difference("customer_id", before.customer_id, after.customer_id)
    if before.timestamp != after.timestamp:
        yield Difference("timestamp", moment_text(before.timestamp), moment_text(after.timestamp))
    for name in sorted(before.data.keys() | after.data.keys()):
        if name in before.data and name in after.data and same_json(before.data[name], after.data[name]):
            continue
        yield Difference(name, _text(before.data, name), _text(after.data, name))
    if before.voided != after.voided:
        yield Difference("status", "void" if before.voided else "counted", "void" if after.voided else "counted")


def _text(data: dict[str, Any], name: str) -> str:
    return dumps(data[name]) if name in data else "not set"
