"""The HTTP edge of uploads: /api/uploads/."""

from typing import Any

from django.http import StreamingHttpResponse
from rest_framework import mixins, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.response import Response

from customers.api import Pages
from customers.authentication import Credential, caller
from customers.models import Scope
from usage.models import Upload, UsageEvent
from usage.upload_files import read_errors
from usage.upload_reading import is_complete
from usage.upload_serializers import UploadSerializer
from usage.uploads import map_upload, stage_upload, start_check, start_upload
from usage.views.upload_requests import ReceivedFile, reading_of, received_file, refusals


class UploadViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Upload]):
    """/api/uploads/: files of records. Writing takes the scope `ingest`, reading `read` or `ingest`."""

    serializer_class = UploadSerializer
    pagination_class = Pages
    lookup_value_regex = "[0-9]{1,18}"

    @property
    def scope(self) -> Scope:
        reads = self.request.method in SAFE_METHODS and Scope.READ in caller(self.request).scopes
        return Scope.READ if reads else Scope.INGEST

    def get_queryset(self) -> Any:
        own = Upload.objects.filter(usage_event__organisation_id=caller(self.request).organisation_id)
        return own.select_related("usage_event")

    def create(self, request: Request) -> Response:
        """Stage a file and try it out, or with `start=true` ingest it. Columns left to decide on make it wait."""
        with refusals():
            file = received_file(request)
            upload = go_on(_stage(file, caller(request)), start=file.start)
        return Response(self.get_serializer(upload).data, 201)

    def partial_update(self, request: Request, pk: str) -> Response:
        """Change how the file is read, and try it out again."""
        with refusals():
            upload = go_on(map_upload(self.get_object().pk, reading_of(request.data)))
        return Response(self.get_serializer(upload).data)

    @action(detail=True, methods=["post"])
    def start(self, request: Request, pk: str) -> Response:
        """Ingest the file, or go on where it was stopped; GET shows the progress."""
        with refusals():
            upload = start_upload(self.get_object().pk)
        return Response(self.get_serializer(upload).data, 202)

    @action(detail=True)
    def errors(self, request: Request, pk: str) -> StreamingHttpResponse:
        """The refused rows so far, as CSV: line, code, column, message, and the row as it came."""
        return error_file(self.get_object())


def go_on(upload: Upload, *, start: bool = False) -> Upload:
    """Have an upload ingested or tried out; one whose columns are not all decided on waits."""
    if not is_complete(upload):
        return upload
    return start_upload(upload.pk) if start else start_check(upload.pk)


def error_file(upload: Upload) -> StreamingHttpResponse:
    """Return the upload's error file as a download; raises NotFound once it was removed."""
    try:
        pieces = read_errors(upload.stored_name, upload.errors_bytes)
    except FileNotFoundError:
        raise NotFound("The error file was removed some days after the upload ended.") from None
    headers = {"Content-Disposition": f'attachment; filename="upload-{upload.pk}-errors.csv"'}
    return StreamingHttpResponse(pieces, content_type="text/csv; charset=utf-8", headers=headers)


def _stage(file: ReceivedFile, credential: Credential) -> Upload:
    own = UsageEvent.objects.filter(organisation_id=credential.organisation_id)
    usage_event = own.filter(slug=file.usage_event).first() if "\0" not in file.usage_event else None
    if usage_event is None:
        expected = "the slug of a usage event was expected"
        raise ValidationError({"usage_event": f"{expected}, got '{file.usage_event[:60]}'"})
    return stage_upload(
        usage_event,
        file.pieces,
        file_name=file.file_name,
        file_format=file.file_format,
        reading=file.reading,
        api_key_id=credential.api_key_id,
    )
