"""The HTTP edge of ingestion: POST /usage/<slug>, and the look-up for a sender that lost an answer."""

from dataclasses import asdict
from typing import Any

from django.conf import settings
from django.http.request import HttpRequest, UnreadablePostError
from rest_framework import viewsets
from rest_framework.exceptions import (
    APIException,
    AuthenticationFailed,
    NotFound,
    ParseError,
    UnsupportedMediaType,
    ValidationError,
)
from rest_framework.request import Request
from rest_framework.response import Response

from customers import api
from customers.authentication import WORDING, RememberedApiKeyAuthentication, caller, confirm
from customers.models import Scope
from customers.rate_limits import Allowance, take_request
from usage import bodies
from usage.bodies import BodyError, Submission
from usage.definitions import Definition, find_definition
from usage.ingestion import IngestResult, Source, SourceRefused, UsageEventGone, ingest
from usage.models import IngestBatch
from usage.receipts import find_stored

MAX_ERRORS = 100
MAX_KEY = 200
MAX_LOOKUPS = 1_000
BROKEN_OFF = "The body ended before its time."


class Gone(APIException):
    status_code = 410
    default_detail = "This usage event is archived; it takes no more records."


class LengthRequired(APIException):
    status_code = 411
    default_detail = "Content-Length was expected: this server does not tell where a chunked body ends."


class UsageIngestViewSet(viewsets.ViewSet):
    """/usage/<slug>: post records; /usage/<slug>/records: ask which are stored."""

    authentication_classes = [RememberedApiKeyAuthentication]
    scope = Scope.INGEST
    allowance: Allowance | None = None

    def dispatch(self, request: HttpRequest, *args: Any, **options: Any) -> Any:
        """Answer, and untie what DRF has tied in circles: they would keep megabytes until the collector comes by."""
        try:
            return super().dispatch(request, *args, **options)
        finally:
            self.request.parser_context.clear()
            vars(self).clear()

    @property
    def default_response_headers(self) -> dict[str, str]:
        """Return the headers that tell who used another method which ones there are; nobody else needs them."""
        return {} if hasattr(self, (self.request.method or "").lower()) else super().default_response_headers

    def finalize_response(self, request: Request, response: Any, *args: Any, **options: Any) -> Any:
        """Add what the key has left, where there is a limit."""
        answer: Any = super().finalize_response(request, response, *args, **options)
        answer.renderer_context = {}  # one more circle, with the request in it
        if self.allowance:
            for name, value in self.allowance.headers().items():
                answer.headers[name] = value
        return answer

    def create(self, request: Request, slug: str) -> Response:
        """Ingest the body and answer for each record."""
        credential = caller(request)
        try:
            self.allowance = take_request(credential.api_key_id)
            usage_event = _live(find_definition(credential.organisation_id, slug))
            strict = _strict(request.META.get("HTTP_PREFER", ""))
            source = Source(IngestBatch.Source.API, credential.api_key_id)
            result = ingest(usage_event, _submission(request._request), source=source, strict=strict is True)
        except (APIException, BodyError, SourceRefused, UsageEventGone) as refusal:
            # The key was taken from memory: before anything else is said, it must be good.
            confirm(credential, self.scope)
            self.allowance = getattr(refusal, "allowance", self.allowance)
            raise _as_answer(refusal) from refusal
        applied = {} if strict is None else {"Preference-Applied": f"handling={'strict' if strict else 'lenient'}"}
        return Response(_answer(result), _status(result, strict is True), headers=applied)

    def records(self, request: Request, slug: str) -> Response:
        """Tell which record ids are stored, and in which batch."""
        credential = caller(request)
        confirm(credential, self.scope)
        usage_event = find_definition(credential.organisation_id, slug)
        if usage_event is None:
            raise NotFound("There is no such usage event.")
        ids = request.query_params.getlist("id")
        if not 0 < len(ids) <= MAX_LOOKUPS:
            raise ValidationError({"id": f"1 to {MAX_LOOKUPS} ids were expected, got {len(ids)}"})
        stored = find_stored(usage_event.usage_event_id, ids)
        return Response({"results": [{"id": key, "stored": key in stored, "batch": stored.get(key)} for key in ids]})


def _live(definition: Definition | None) -> Definition:
    if definition is None:
        raise NotFound("There is no such usage event.")
    if definition.archived:
        raise Gone
    return definition


def _strict(preferences: str) -> bool | None:
    """Return what a Prefer header (RFC 7240) asks of the handling; None if it does not speak of it."""
    for preference in preferences.split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "handling":
            value = value.strip().strip('"').lower()
            return value == "strict" if value in ("strict", "lenient") else None
    return None


def _submission(request: HttpRequest) -> Submission:
    media_type = request.META.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if media_type not in (bodies.JSON, bodies.NDJSON):
        expected = f"{bodies.JSON} or {bodies.NDJSON}"
        raise UnsupportedMediaType(media_type, f"Content-Type {expected} was expected, got '{media_type[:60]}'.")
    return bodies.split_body(_body(request), media_type, max_records=settings.INGEST_MAX_RECORDS, key=_key(request))


def _body(request: HttpRequest) -> bytes:
    """Read no more than the limit, packed or not."""
    encoding = request.META.get("HTTP_CONTENT_ENCODING", "").strip().lower()
    if encoding not in ("", "identity", "gzip"):
        raise UnsupportedMediaType(encoding, f"Content-Encoding gzip or none was expected, got '{encoding[:60]}'.")
    read = bodies.read_gzip if encoding == "gzip" else bodies.read_plain
    chunked = not request.META.get("CONTENT_LENGTH") and "HTTP_TRANSFER_ENCODING" in request.META
    if chunked and not request.META.get("wsgi.input_terminated"):
        raise LengthRequired
    # Django reads as much as Content-Length says, which is nothing here; the server's stream has its own end.
    stream = bodies.Counted(request.META["wsgi.input"] if chunked else request)
    try:
        body = read(stream, settings.INGEST_MAX_BYTES)
    except UnreadablePostError as error:
        raise ParseError(BROKEN_OFF) from error
    if not chunked and stream.taken < _announced(request):
        raise ParseError(BROKEN_OFF)
    return body


def _announced(request: HttpRequest) -> int:
    length = request.META.get("CONTENT_LENGTH") or "0"
    return int(length) if length.isascii() and length.isdigit() else 0


def _key(request: HttpRequest) -> str | None:
    key: str | None = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if key is not None and not (0 < len(key) <= MAX_KEY and key.isprintable()):
        raise ParseError(f"Idempotency-Key: 1 to {MAX_KEY} printable characters were expected, got {len(key)}.")
    return key


def _as_answer(refusal: Exception) -> Exception:
    if isinstance(refusal, bodies.TooLarge):
        return api.TooLarge(str(refusal))
    if isinstance(refusal, BodyError):
        return ParseError(str(refusal))
    if isinstance(refusal, SourceRefused):
        return AuthenticationFailed(WORDING)
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
    if len(result.problems) > MAX_ERRORS:
        answer["errors_truncated"] = True
    if result.not_kept:
        answer["not_quarantined"] = result.not_kept
    return answer


def _status(result: IngestResult, strict: bool) -> int:
    taken, refused = result.accepted + result.duplicates, result.conflicts + result.rejected
    if strict and refused:
        return 422
    if taken and refused:
        return 207
    if refused:
        return 422 if result.rejected else 409
    return 201 if result.accepted else 200
