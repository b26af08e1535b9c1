"""The HTTP edge of the quarantine: list, read, replay and discard rejected records, one by one or in bulk."""

from typing import Any

from django.db.models import QuerySet
from rest_framework import mixins, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from customers.api import Conflict, Pages, read_fields, read_query
from customers.authentication import caller
from customers.exactjson import dumps
from usage.ingestion import UsageEventGone
from usage.models import RejectedRecord, UsageEvent
from usage.quarantine import MAX_AT_ONCE, NotOpen, Replayed, causes, discard_rejected, replay_rejected
from usage.rejected_serializers import (
    BulkDiscardSerializer,
    BulkReplaySerializer,
    DiscardSerializer,
    RejectedQuerySerializer,
    RejectedRecordSerializer,
    ReplaySerializer,
    wire_replayed,
    wire_selection,
)
from usage.views.ingest import Gone
from usage.views.records import api_actor, refusals_answered

NOT_THERE = "There is no such rejected record."


class RejectedRecordViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[RejectedRecord]):
    """/api/rejected-records/: what was refused, and what becomes of it."""

    serializer_class = RejectedRecordSerializer
    pagination_class = Pages
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[RejectedRecord]:
        own = RejectedRecord.objects.filter(usage_event__organisation_id=caller(self.request).organisation_id)
        return own.select_related("usage_event", "batch", "closing_batch")

    def list(self, request: Request, *args: Any, **options: Any) -> Response:
        """List rejected records, newest first, or count the open ones by cause."""
        asked = read_query(request, RejectedQuerySerializer)
        if "summary" in asked:
            return Response({"results": _summary(request, asked)})
        return super().list(request)

    def filter_queryset(self, queryset: Any) -> Any:
        return queryset.filter(**_conditions(self.request)) if self.action == "list" else queryset

    @action(detail=True, methods=["post"])
    def replay(self, request: Request, pk: str) -> Response:
        """Send an entry through ingestion again."""
        entry, asked = self.get_object(), read_fields(request, ReplaySerializer)
        payloads = {entry.pk: dumps(asked["record"])} if "record" in asked else {}
        return _replay(request, entry.usage_event_id, [entry.pk], payloads, asked["dry_run"])

    @action(detail=True, methods=["post"])
    def discard(self, request: Request, pk: str) -> Response:
        """Close an entry for good."""
        entry, asked = self.get_object(), read_fields(request, DiscardSerializer)
        return _discard(request, entry.usage_event_id, [entry.pk], asked["reason"])


class RejectedRecordsViewSet(viewsets.ViewSet):
    """/api/rejected-records/replay/ and …/discard/: many at once."""

    def replay(self, request: Request) -> Response:
        """Replay many entries of one usage event as one batch."""
        asked = read_fields(request, BulkReplaySerializer)
        usage_event_id, ids = _selected(request, asked)
        return _replay(request, usage_event_id, ids, {}, asked["dry_run"])

    def discard(self, request: Request) -> Response:
        """Discard many entries of one usage event."""
        asked = read_fields(request, BulkDiscardSerializer)
        usage_event_id, ids = _selected(request, asked)
        return _discard(request, usage_event_id, ids, asked["reason"])


def _replay(request: Request, usage_event_id: int, ids: list[int], payloads: dict[int, str], dry_run: bool) -> Response:
    if not ids:
        return Response(wire_replayed(Replayed(0, 0, [], None), ids, dry_run))
    actor = api_actor(request)
    try:
        result = replay_rejected(usage_event_id, ids, actor=actor, payloads=payloads, dry_run=dry_run)
    except (NotOpen, UsageEventGone, RejectedRecord.DoesNotExist) as refusal:
        raise _as_answer(refusal) from refusal
    return Response(wire_replayed(result, ids, dry_run))


def _discard(request: Request, usage_event_id: int, ids: list[int], reason: str) -> Response:
    try:
        with refusals_answered():
            if ids:
                discard_rejected(usage_event_id, ids, reason=reason, actor=api_actor(request))
    except (NotOpen, RejectedRecord.DoesNotExist) as refusal:
        raise _as_answer(refusal) from refusal
    return Response(wire_selection(ids))


def _as_answer(refusal: Exception) -> Exception:
    if isinstance(refusal, NotOpen):
        return Conflict(str(refusal))
    return Gone() if isinstance(refusal, UsageEventGone) else NotFound(NOT_THERE)


def _selected(request: Request, asked: dict[str, Any]) -> tuple[int, list[int]]:
    """The entries that a bulk act is about: those named, or the oldest open ones with a code."""
    usage_event = _usage_event(request, asked["usage_event"])
    if "ids" in asked:
        return usage_event.pk, sorted({int(text) for text in asked["ids"]})
    entries = RejectedRecord.objects.filter(
        usage_event=usage_event,
        status=RejectedRecord.Status.OPEN,
        code=asked["code"],
        pk__gt=int(asked.get("after", 0)),
    )
    return usage_event.pk, list(entries.order_by("pk").values_list("pk", flat=True)[:MAX_AT_ONCE])


def _conditions(request: Request) -> dict[str, Any]:
    asked = read_query(request, RejectedQuerySerializer)
    names = {"code": "code", "record_id": "idempotency_key", "batch": "batch_id"}
    conditions = {column: asked[name] for name, column in names.items() if name in asked}
    if asked["status"] != "any":
        conditions["status"] = asked["status"]
    if "usage_event" in asked:
        conditions["usage_event"] = _usage_event(request, asked["usage_event"])
    return conditions


def _summary(request: Request, asked: dict[str, Any]) -> list[dict[str, Any]]:
    slugs = dict(_own_usage_events(request).values_list("pk", "slug"))
    return [
        {
            "usage_event": slugs[cause.usage_event_id],
            "code": cause.code,
            "entries": cause.entries,
            "records": cause.records,
        }
        for cause in causes(caller(request).organisation_id)
        if asked.get("usage_event") in (None, slugs[cause.usage_event_id]) and asked.get("code") in (None, cause.code)
    ]


def _own_usage_events(request: Request) -> QuerySet[UsageEvent]:
    return UsageEvent.objects.filter(organisation_id=caller(request).organisation_id)


def _usage_event(request: Request, slug: str) -> UsageEvent:
    usage_event = _own_usage_events(request).filter(slug=slug).first()
    if usage_event is None:
        raise ValidationError({"usage_event": f"the slug of a usage event was expected, got '{slug}'"})
    return usage_event
