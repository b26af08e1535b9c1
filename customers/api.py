"""What every API answer has in common: exact JSON both ways, problem details, pages by cursor."""

import logging
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.core.exceptions import TooManyFieldsSent
from django.core.exceptions import ValidationError as ModelValidationError
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, UnreadablePostError
from django.utils.encoding import force_str
from django.views.defaults import page_not_found, server_error
from rest_framework import serializers, status
from rest_framework.exceptions import APIException, NotFound, ParseError, ValidationError
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from customers.exactjson import dumps, loads

log = logging.getLogger(__name__)

PROBLEM_TYPE = "application/problem+json"
RETRY_SECONDS = 5
API_PATHS = ("/api/", "/usage/")


class TooLarge(APIException):
    status_code = 413


class Conflict(APIException):
    """What is asked does not fit the state that it is asked of."""

    status_code = 409


class ExactJSONParser(BaseParser):
    """Reads a JSON body (UTF-8, whole characters) with int and Decimal."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        """Return the body's value; raises ParseError and TooLarge."""
        body = read_body(stream, settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
        try:
            value = loads(body.decode(), once=True)
            if b"\\u" in body:
                dumps(value)  # half a surrogate pair is JSON, but no text that could be stored or answered
        except (ValueError, RecursionError) as error:
            raise ParseError(f"The body is not JSON: {error}") from error
        return value


class ExactJSONRenderer(BaseRenderer):
    """Writes JSON; Decimals inside `data` and schemas become numbers with every digit."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None) -> bytes:
        return b"" if data is None else dumps(data).encode()


class AlwaysJSON(BaseContentNegotiation):
    """JSON is all there is, whatever the Accept header would like."""

    def select_parser(self, request: Any, parsers: Any) -> Any:
        media_type = (request.content_type or "").partition(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == media_type), None)

    def select_renderer(self, request: Any, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


class Pages(CursorPagination):
    """Newest first, `page_size` up to 500."""

    ordering = "-id"
    page_size = 100
    page_size_query_param = "page_size"
    max_page_size = 500

    def decode_cursor(self, request: Request) -> Cursor | None:
        """Return where the page begins; raises NotFound for a cursor that no answer of ours held."""
        cursor: Cursor | None = super().decode_cursor(request)
        if cursor is not None and cursor.position is not None and not re.fullmatch("[0-9]{1,19}", str(cursor.position)):
            raise NotFound(self.invalid_cursor_message)
        return cursor


class KnownFieldsOnly(serializers.Serializer[Any]):
    """Refuses fields that it does not know: a mistyped name must not be taken for an omission."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            known = {name for name, field in self.fields.items() if not field.read_only}
            unknown = {
                name: ["this field is read-only" if name in self.fields else "this field is not known"]
                for name in data
                if name not in known
            }
            if unknown:
                raise serializers.ValidationError(unknown)
        return super().to_internal_value(data)


class StrictSerializer(KnownFieldsOnly, serializers.ModelSerializer[Any]):
    """A model's fields, and no others."""


class InstantField(serializers.DateTimeField):
    """An instant: in requests the given reader's formats, in answers UTC with every digit that it has."""

    def __init__(self, reader: Callable[[str], datetime] | None = None, **options: Any) -> None:
        self.reader = reader
        super().__init__(**options)

    def to_internal_value(self, value: Any) -> Any:
        """Return the instant in UTC; raises ValidationError."""
        if not isinstance(value, str) or self.reader is None:
            raise serializers.ValidationError(f"an instant as text was expected, got {str(value)[:60]}")
        try:
            return self.reader(value)
        except ValueError as error:
            raise serializers.ValidationError(str(error)) from error

    def to_representation(self, value: Any) -> str:
        return wire_instant(value)


def wire_instant(moment: datetime) -> str:
    """Return an instant as the API writes it: UTC, with Z."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def read_query(request: Request, asked: type[serializers.Serializer[Any]], **context: Any) -> Any:
    """Return what the query of a request asks, checked; raises ValidationError naming the parameter at fault."""
    known = set(asked().fields)
    prefixes = tuple(getattr(asked, "prefixes", ()))
    for name, values in request.query_params.lists():
        if name not in known and not name.startswith(prefixes):
            raise ValidationError({name: f"this parameter is not known; known are {', '.join(sorted(known))}"})
        if len(values) > 1:
            raise ValidationError({name: f"this parameter was expected once, got {len(values)} times"})
    serializer = asked(data=request.query_params.dict(), context=context)
    serializer.is_valid(raise_exception=True)
    return serializer.validated_data


class TextField(serializers.CharField):
    """Text of a JSON body: a number is not quietly taken for its digits."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            raise serializers.ValidationError(f"a string was expected, got {dumps(data)[:60]}")
        return super().to_internal_value(data)


def read_fields(request: Request, expected: type[serializers.Serializer[Any]], **context: Any) -> Any:
    """Return the checked body of a request; raises ValidationError naming the field at fault."""
    if request.data is None:
        raise ValidationError("a JSON object was expected, got null")
    serializer = expected(data=request.data, context=context)
    serializer.is_valid(raise_exception=True)
    return serializer.validated_data


def read_body(stream: Any, limit: int) -> bytes:
    """Return the bytes of a request's body; raises TooLarge, and ParseError where the sender broke off."""
    try:
        body: bytes = stream.read(limit + 1)
    except UnreadablePostError as error:
        raise ParseError("The body ended before its time.") from error
    if len(body) > limit:
        raise TooLarge(f"A body of at most {limit} bytes was expected.")
    return body


def problem(code: int, detail: str, errors: list[dict[str, str]] | None = None) -> dict[str, Any]:
    """Return the members of a problem details object (RFC 9457)."""
    body: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(code).phrase, "status": code, "detail": detail}
    return body | ({"errors": errors} if errors else {})


def problem_details(exception: Exception, context: Any) -> Response | None:
    """DRF's exception handler: every refusal as problem details; None for what is a fault of ours."""
    if isinstance(exception, ModelValidationError):
        exception = ValidationError(exception.message_dict if hasattr(exception, "error_dict") else exception.messages)
    if isinstance(exception, OperationalError | InterfaceError):
        log.error("database unreachable: %s", exception)
        body = problem(status.HTTP_503_SERVICE_UNAVAILABLE, "The database is unreachable; please try again.")
        return Response(body, 503, headers={"Retry-After": str(RETRY_SECONDS)}, content_type=PROBLEM_TYPE)
    if isinstance(exception, TooManyFieldsSent):
        exception = ParseError(f"At most {settings.DATA_UPLOAD_MAX_NUMBER_FIELDS} parameters were expected, got more.")
    if isinstance(exception, Http404):
        exception = NotFound(str(exception) or None)
    if not isinstance(exception, APIException):
        return None
    if isinstance(exception, ValidationError):
        errors = _field_errors(exception.detail)
        detail = "; ".join(
            f"{error['field']}: {error['message']}" if error["field"] else error["message"] for error in errors
        )
    else:
        errors, detail = None, force_str(exception.detail)
    headers = {"WWW-Authenticate": getattr(exception, "auth_header", None), "Retry-After": _seconds(exception)}
    return Response(
        problem(exception.status_code, detail, errors) | getattr(exception, "members", {}),
        exception.status_code,
        headers={name: value for name, value in headers.items() if value},
        content_type=PROBLEM_TYPE,
    )


def _seconds(exception: APIException) -> str | None:
    """Throttling tells for how long."""
    wait = getattr(exception, "wait", None)
    return str(math.ceil(wait)) if wait else None


def _field_errors(detail: Any, path: str = "") -> list[dict[str, str]]:
    if isinstance(detail, Mapping):
        return [
            error
            for name, inner in detail.items()
            for error in _field_errors(inner, path if name in ("non_field_errors", "__all__") else _below(path, name))
        ]
    if isinstance(detail, list):
        return [error for inner in detail for error in _field_errors(inner, path)]
    return [{"field": path, "message": str(detail)}]


def _below(path: str, name: Any) -> str:
    return f"{path}.{name}" if path else str(name)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a path that leads nowhere: problem details under the API's paths, a page elsewhere."""
    if request.path.startswith(API_PATHS):
        return _problem_response(problem(404, f"Nothing is at {request.path}."))
    return page_not_found(request, exception)


def fault(request: HttpRequest) -> HttpResponse:
    """Answer when we failed: problem details under the API's paths, a page elsewhere."""
    if request.path.startswith(API_PATHS):
        return _problem_response(problem(500, "This is a fault of ours; it was logged."))
    return server_error(request)


def _problem_response(body: dict[str, Any]) -> HttpResponse:
    return HttpResponse(dumps(body), status=body["status"], content_type=PROBLEM_TYPE)
