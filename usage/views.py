"""The HTTP edge of usage: posting records, and the definitions of usage events."""

from dataclasses import asdict
from typing import Any

from django.conf import settings
from rest_framework import mixins, viewsets
from rest_framework.exceptions import APIException, NotFound, ParseError, UnsupportedMediaType
from rest_framework.request import Request
from rest_framework.response import Response

from customers.api import Pages, TooLarge, read_body
from customers.authentication import RememberedApiKeyAuthentication, caller, confirm
from customers.models import Scope
from usage.definitions import Definition, find_definition
from usage.envelopes import BodyError, TooManyRecords
from usage.ingestion import IngestResult, Source, SourceRefused, UsageEventGone, ingest
from usage.models import IngestBatch, UsageEvent
from usage.serializers import UsageEventSerializer

MAX_ERRORS = 100


class Gone(APIException):
    status_code = 410
    default_detail = "This usage event is archived; it takes no more records."


class UsageIngestViewSet(viewsets.ViewSet):
    """POST /usage/<slug>: one record, or an array of them."""

    authentication_classes = [RememberedApiKeyAuthentication]
    scope = Scope.INGEST

    def create(self, request: Request, slug: str) -> Response:
        """Ingest the body and answer for each record."""
        credential = caller(request)
        try:
            usage_event = _live(find_definition(credential.organisation_id, slug))
            result = ingest(usage_event, _body(request), source=Source(IngestBatch.Source.API, credential.api_key_id))
        except (APIException, BodyError, SourceRefused, UsageEventGone) as refusal:
            # The key was taken from memory: before anything else is said, it must be good.
            confirm(credential, self.scope)
            raise _as_answer(refusal) from refusal
        return Response(_answer(result), _status(result))


def _live(definition: Definition | None) -> Definition:
    if definition is None:
        raise NotFound("There is no such usage event.")
    if definition.archived:
        raise Gone
    return definition


def _body(request: Request) -> bytes:
    media_type = request.META.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaType(media_type, f"Content-Type application/json was expected, got '{media_type}'.")
    encoding = request.META.get("HTTP_CONTENT_ENCODING", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedMediaType(encoding, f"No Content-Encoding was expected, got '{encoding}'.")
    return read_body(request._request, settings.INGEST_MAX_BYTES)


def _as_answer(refusal: Exception) -> Exception:
    if isinstance(refusal, TooManyRecords):
        return TooLarge(str(refusal))
    if isinstance(refusal, BodyError):
        return ParseError(str(refusal))
    return refusal if isinstance(refusal, APIException) else Gone()


def _answer(result: IngestResult) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "batch": result.batch,
        "accepted": result.accepted,
        "duplicates": result.duplicates,
        "conflicts": result.conflicts,
        "rejected": result.rejected,
        "errors": [asdict(problem) for problem in result.problems[:MAX_ERRORS]],
    }
    return answer | ({"errors_truncated": True} if len(result.problems) > MAX_ERRORS else {})


def _status(result: IngestResult) -> int:
    taken, refused = result.accepted + result.duplicates, result.conflicts + result.rejected
    if taken and refused:
        return 207
    if refused:
        return 422 if result.rejected else 409
    return 201 if result.accepted else 200


class UsageEventViewSet(
    mixins.ListModelMixin, mixins.CreateModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[UsageEvent]
):
    """/api/usage-events/: the definitions of streams."""

    serializer_class = UsageEventSerializer
    pagination_class = Pages
    lookup_field = "slug"
    lookup_value_regex = "[A-Za-z0-9_-]+"

    def get_queryset(self) -> Any:
        return UsageEvent.objects.filter(organisation_id=caller(self.request).organisation_id)
