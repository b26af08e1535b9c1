"""What a request to /api/uploads/ brings: the file, in a form or as the body, and how it is to be read."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.http.multipartparser import MultiPartParserError
from django.http.request import UnreadablePostError
from rest_framework.exceptions import ParseError, UnsupportedMediaType, ValidationError
from rest_framework.request import Request

from customers.api import Conflict, TooLarge
from customers.exactjson import loads
from usage.models import Upload
from usage.upload_files import PIECE, FileRefused, FileTooLarge
from usage.upload_reading import Reading, UploadRefused
from usage.uploads import NotNow

MULTIPART = "multipart/form-data"
FORMATS = {"text/csv": Upload.Format.CSV, "application/x-ndjson": Upload.Format.NDJSON}
READING = tuple(field.name for field in fields(Reading))
PARAMETERS = ("usage_event", "format", "file_name", "start", *READING)
FLAGS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """A file on its way in, with what was said about it."""

    usage_event: str
    file_name: str
    file_format: str
    reading: Reading
    start: bool
    pieces: Iterable[bytes]


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what uploads refuse into problem details: 400 with the field, 409, 413."""
    try:
        yield
    except (FileTooLarge, RequestDataTooBig) as refusal:
        raise TooLarge(str(refusal)) from refusal
    except FileRefused as refusal:
        raise ValidationError({"file": str(refusal)}) from refusal
    except UploadRefused as refusal:
        raise ValidationError({refusal.field: str(refusal)}) from refusal
    except NotNow as refusal:
        raise Conflict(str(refusal)) from refusal
    except UnreadablePostError as error:
        raise ParseError("The body ended before its time.") from error
    except (MultiPartParserError, SuspiciousOperation) as error:
        raise ParseError(f"The form cannot be read: {error}") from error


def received_file(request: Request) -> ReceivedFile:
    """Return the file of a request, not read yet, and its parameters; raises ValidationError by field."""
    media_type = request.META.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    asked = {name: str(value) for name, value in request.query_params.items()}
    if media_type == MULTIPART:
        form = request._request
        asked |= {name: str(value) for name, value in form.POST.items()}
        file = form.FILES.get("file")
        count = sum(len(files) for _, files in form.FILES.lists())
        if file is None or count > 1:
            raise ValidationError({"file": f"one part named 'file' was expected, got {count} files"})
        name, pieces = file.name or "", file.chunks(PIECE)
    elif media_type in FORMATS:
        asked.setdefault("format", FORMATS[media_type])
        name, pieces = "", _body(request)
    else:
        expected = ", ".join((MULTIPART, *FORMATS))
        raise UnsupportedMediaType(media_type, f"Content-Type {expected} was expected, got '{media_type[:60]}'.")
    _refuse_unknown(asked, PARAMETERS)
    return ReceivedFile(
        usage_event=asked.get("usage_event", ""),
        file_name=asked.get("file_name") or name,
        file_format=_one_of(asked, "format", Upload.Format.values) or _by_name(name),
        reading=reading_of({name: value for name, value in asked.items() if name in READING}),
        start=FLAGS[_one_of(asked, "start", list(FLAGS)) or "false"],
        pieces=pieces,
    )


def reading_of(asked: Any) -> Reading:
    """Return how a file is to be read, as a JSON object or a form's fields say; raises ValidationError by field."""
    if not isinstance(asked, Mapping):
        raise ValidationError("A JSON object was expected.")
    _refuse_unknown(asked, READING)
    chosen = dict(asked)
    if isinstance(chosen.get("mapping"), str):
        try:
            chosen["mapping"] = loads(chosen["mapping"])
        except (ValueError, RecursionError) as error:
            raise ValidationError({"mapping": f"a JSON object was expected: {error}"}) from error
    for name, value in chosen.items():
        kind, expected = (Mapping, "an object") if name == "mapping" else (str, "a string")
        if value is not None and not isinstance(value, kind):
            raise ValidationError({name: f"{expected} was expected"})
    return Reading(**chosen)


def _refuse_unknown(asked: Mapping[str, Any], known: tuple[str, ...]) -> None:
    unknown = {str(name)[:60]: "this parameter is not known" for name in asked if name not in known}
    if unknown:
        raise ValidationError(unknown)


def _one_of(asked: Mapping[str, str], name: str, allowed: list[str]) -> str | None:
    value = asked.get(name)
    if value is not None and value not in allowed:
        raise ValidationError({name: f"one of {', '.join(allowed)} was expected, got '{value[:60]}'"})
    return value


def _by_name(file_name: str) -> str:
    ndjson = file_name.lower().endswith((".ndjson", ".jsonl"))
    return Upload.Format.NDJSON if ndjson else Upload.Format.CSV


def _body(request: Request) -> Iterator[bytes]:
    """The body piece by piece; without a Content-Length the server's stream has its own end."""
    chunked = "CONTENT_LENGTH" not in request.META and "HTTP_TRANSFER_ENCODING" in request.META
    stream = request.META["wsgi.input"] if chunked else request._request
    taken = 0
    while piece := stream.read(PIECE):
        taken += len(piece)
        yield piece
    length = request.META.get("CONTENT_LENGTH") or "0"
    if not chunked and length.isascii() and length.isdigit() and taken < int(length):
        raise UnreadablePostError("broken off")
