"""The HTTP edge of usage records: list, read, correct, void, restore, export."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.http import StreamingHttpResponse
from rest_framework import viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param

from customers.api import Conflict, read_fields, read_query
from customers.authentication import caller
from customers.models import ApiKey
from usage.corrections import Actor, CorrectionError, StaleRevision, correct_record, restore_records, void_records
from usage.exports import MEDIA_TYPES, export_records
from usage.record_filters import Place
from usage.record_queries import find_record, list_records
from usage.record_serializers import (
    CorrectionSerializer,
    ExportQuerySerializer,
    ReasonSerializer,
    RecordListQuerySerializer,
    RecordSerializer,
)
from usage.record_sql import RecordRow
from usage.record_wire import wire_record


class UsageRecordViewSet(viewsets.GenericViewSet[Any]):
    """/api/usage-records/: the facts, and what may be done about wrong ones."""

    serializer_class = RecordSerializer
    pagination_class = None
    lookup_value_regex = "[0-9]{1,18}"

    def list(self, request: Request) -> Response:
        """List records, newest first."""
        asked = read_query(request, RecordListQuerySerializer, organisation_id=caller(request).organisation_id)
        page = list_records(asked["filter"], place=asked.get("cursor"), page_size=asked["page_size"])
        links = {"next": _link(request, page.next), "previous": _link(request, page.previous)}
        return Response({**links, "results": [wire_record(row) for row in page.rows]})

    def retrieve(self, request: Request, pk: str) -> Response:
        """Read a record."""
        return Response(wire_record(_own(request, pk)))

    def partial_update(self, request: Request, pk: str) -> Response:
        """Correct what a record says; its history keeps what it said before."""
        record = _own(request, pk)
        change = read_fields(request, CorrectionSerializer)
        with refusals_answered():
            correct_record(record.id, **change, actor=api_actor(request))
        return Response(wire_record(_own(request, pk)))

    @action(detail=True, methods=["post"])
    def void(self, request: Request, pk: str) -> Response:
        """Annul a record, so that no quantity counts it."""
        return _act(request, pk, void_records)

    @action(detail=True, methods=["post"])
    def restore(self, request: Request, pk: str) -> Response:
        """Bring a voided record back into every quantity."""
        return _act(request, pk, restore_records)

    @action(detail=False)
    def export(self, request: Request) -> StreamingHttpResponse:
        """Stream every record asked for, oldest first, as of one moment."""
        asked = read_query(request, ExportQuerySerializer, organisation_id=caller(request).organisation_id)
        kind = asked["format"]
        chunks = export_records(asked["filter"], kind, asked.get("usage_event"))
        name = f'attachment; filename="usage-records.{kind}"'
        headers = {"Content-Disposition": name, "X-Content-Type-Options": "nosniff"}
        return StreamingHttpResponse(chunks, content_type=MEDIA_TYPES[kind], headers=headers)


def api_actor(request: Request) -> Actor:
    """Return the calling key as actor: no person, but a name for the history."""
    return Actor(None, f"API key {ApiKey.objects.get(pk=caller(request).api_key_id).name}")


@contextmanager
def refusals_answered() -> Iterator[None]:
    """What an act refuses, in the API's words: a stale revision is 409, everything else names its field."""
    try:
        yield
    except StaleRevision as refusal:
        raise Conflict(str(refusal)) from refusal
    except CorrectionError as refusal:
        raise ValidationError({refusal.field or "non_field_errors": str(refusal)}) from refusal


def _act(request: Request, pk: str, act: Any) -> Response:
    record = _own(request, pk)
    seen = read_fields(request, ReasonSerializer)
    with refusals_answered():
        act(record.usage_event_id, [record.id], **seen, actor=api_actor(request))
    return Response(wire_record(_own(request, pk)))


def _own(request: Request, pk: str) -> RecordRow:
    record = find_record(caller(request).organisation_id, int(pk))
    if record is None:
        raise NotFound("There is no such record.")
    return record


def _link(request: Request, place: Place | None) -> str | None:
    if place is None:
        return None
    return replace_query_param(request.build_absolute_uri(), "cursor", place.text())
