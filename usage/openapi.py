"""The OpenAPI descriptions of usage: ingestion, definitions, records, the quarantine, receipts and uploads."""

from typing import Any

from drf_spectacular.extensions import OpenApiViewExtension
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_view

from customers.authentication import ApiKeyAuthentication
from customers.openapi import problem_response
from usage.batch_serializers import BatchSerializer
from usage.openapi_schemas import (
    INGEST_HEADERS,
    INGESTED,
    PAGE_OF_RECORDS,
    RECORD,
    RECORD_BODIES,
    REJECTED,
    STORED,
    STORED_RECORD,
    UPLOAD_BODIES,
    UPLOAD_PARAMETERS,
    UPLOAD_READING,
    USAGE_EVENT,
)
from usage.record_serializers import (
    CorrectionSerializer,
    ExportQuerySerializer,
    ReasonSerializer,
    RecordListQuerySerializer,
    RecordSerializer,
)
from usage.rejected_serializers import (
    BulkDiscardSerializer,
    BulkReplaySerializer,
    DiscardedSerializer,
    DiscardSerializer,
    RejectedQuerySerializer,
    ReplayedSerializer,
    ReplaySerializer,
)
from usage.serializers import UsageEventSerializer
from usage.upload_serializers import UploadSerializer

REASON = OpenApiExample("why", {"reason": "the meter counted twice", "revision": 1}, request_only=True)
SHOWN = OpenApiExample("a record", STORED_RECORD, response_only=True)
STALE = problem_response("The record was changed meanwhile: another revision was seen.")
ID = OpenApiParameter("id", str, OpenApiParameter.PATH, pattern="^[0-9]{1,18}$")


class IngestDescription(OpenApiViewExtension):
    target_class = "usage.views.ingest.UsageIngestViewSet"

    def view_replacement(self) -> Any:
        answers: dict[Any, Any] = {
            201: "At least one record is stored, none was refused.",
            200: "Nothing new: every record was already known with the same content.",
            207: "Some are stored or already known, some were refused.",
            409: "None is stored or known; every refused record is a conflict: known id, other content.",
            422: "None is stored or known, at least one record is invalid; with `handling=strict` any was refused.",
        }
        headers = [
            OpenApiParameter(name, str, OpenApiParameter.HEADER, description=text)
            for name, text in INGEST_HEADERS.items()
        ]
        asked = OpenApiParameter(
            "id", {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 1000}, required=True
        )

        @extend_schema_view(
            create=extend_schema(
                operation_id="usage_ingest",
                parameters=headers,
                request=RECORD_BODIES,
                responses={status: OpenApiResponse(INGESTED, text) for status, text in answers.items()}
                | {410: problem_response("The usage event is archived."), 411: problem_response("No Content-Length.")},
                examples=[OpenApiExample("a record", RECORD, request_only=True)],
            ),
        )
        class Described(self.target_class):  # type: ignore[name-defined]
            authentication_classes = [ApiKeyAuthentication]  # the remembering one asks for the same headers

            @extend_schema(
                operation_id="usage_stored", parameters=[asked], responses=OpenApiResponse(STORED, "Each id asked for.")
            )
            def records(self, *args: Any, **options: Any) -> Any:
                """Tell which record ids are stored, and in which batch."""

        return Described


class UsageEventDescription(OpenApiViewExtension):
    target_class = "usage.views.definitions.UsageEventViewSet"

    def view_replacement(self) -> Any:
        example = OpenApiExample("a usage event", USAGE_EVENT, request_only=True)
        refused = problem_response("The schema does not fit what is stored or calculated; `change` tells how.")

        @extend_schema_view(
            create=extend_schema(examples=[example]),
            partial_update=extend_schema(responses={200: UsageEventSerializer, 409: refused}),
        )
        class Described(self.target_class):  # type: ignore[name-defined]
            pass

        return Described


class RecordDescription(OpenApiViewExtension):
    target_class = "usage.views.records.UsageRecordViewSet"

    def view_replacement(self) -> Any:
        change = {"data": {"cpu_usage_hours": 8}, "reason": "the meter counted twice", "revision": 1}
        changed = {200: RecordSerializer, 409: STALE}
        acts: dict[str, Any] = {
            "parameters": [ID],
            "request": ReasonSerializer,
            "responses": changed,
            "examples": [REASON, SHOWN],
        }

        @extend_schema_view(
            list=extend_schema(
                operation_id="usage_records_list",
                parameters=[RecordListQuerySerializer],
                responses=OpenApiResponse(PAGE_OF_RECORDS, "Records, newest first."),
                examples=[OpenApiExample("a page", {"next": None, "previous": None, "results": [STORED_RECORD]})],
            ),
            retrieve=extend_schema(parameters=[ID], examples=[SHOWN]),
            partial_update=extend_schema(
                parameters=[ID],
                request=CorrectionSerializer,
                responses=changed,
                examples=[OpenApiExample("other data", change, request_only=True), SHOWN],
            ),
            void=extend_schema(**acts),
            restore=extend_schema(**acts),
            export=extend_schema(
                operation_id="usage_records_export",
                parameters=[ExportQuerySerializer],
                responses={(200, "text/csv"): str, (200, "application/x-ndjson"): RecordSerializer},
            ),
        )
        class Described(self.target_class):  # type: ignore[name-defined]
            written_out = True

        return Described


class RejectedRecordDescription(OpenApiViewExtension):
    target_class = "usage.views.rejected.RejectedRecordViewSet"

    def view_replacement(self) -> Any:
        closed = {409: problem_response("It was replayed, delivered or discarded already.")}
        replayed = {200: ReplayedSerializer, 410: problem_response("The usage event is archived.")} | closed
        mended = OpenApiExample("mended, tried out", {"record": RECORD, "dry_run": True}, request_only=True)

        @extend_schema_view(
            list=extend_schema(
                operation_id="rejected_records_list",
                parameters=[RejectedQuerySerializer],
                responses=OpenApiResponse(REJECTED, "Rejected records, newest first; or with `summary` causes."),
                filters=False,
            ),
            retrieve=extend_schema(parameters=[ID]),
            replay=extend_schema(parameters=[ID], request=ReplaySerializer, responses=replayed, examples=[mended]),
            discard=extend_schema(
                parameters=[ID], request=DiscardSerializer, responses={200: DiscardedSerializer} | closed
            ),
        )
        class Described(self.target_class):  # type: ignore[name-defined]
            pagination_class = None  # the filters name the page already
            written_out = True

        return Described


class RejectedRecordsDescription(OpenApiViewExtension):
    target_class = "usage.views.rejected.RejectedRecordsViewSet"

    def view_replacement(self) -> Any:
        closed = {409: problem_response("One was replayed, delivered or discarded already; none was changed.")}
        replayed = {200: ReplayedSerializer, 410: problem_response("The usage event is archived.")} | closed
        chosen = {"usage_event": "compute_hours", "code": "schema", "dry_run": True}

        class Described(self.target_class):  # type: ignore[name-defined]
            @extend_schema(
                operation_id="rejected_records_replay_many",
                request=BulkReplaySerializer,
                responses=replayed,
                examples=[OpenApiExample("all of one cause", chosen, request_only=True)],
            )
            def replay(self, *args: Any, **options: Any) -> Any:
                """Replay many entries of one usage event as one batch."""

            @extend_schema(
                operation_id="rejected_records_discard_many",
                request=BulkDiscardSerializer,
                responses={200: DiscardedSerializer} | closed,
            )
            def discard(self, *args: Any, **options: Any) -> Any:
                """Discard many entries of one usage event."""

        return Described


class BatchDescription(OpenApiViewExtension):
    target_class = "usage.views.batches.IngestBatchViewSet"

    def view_replacement(self) -> Any:
        reference = OpenApiParameter("batch", str, OpenApiParameter.PATH, pattern="^[0-9A-Za-z]+$")

        @extend_schema_view(retrieve=extend_schema(parameters=[reference], responses=BatchSerializer))
        class Described(self.target_class):  # type: ignore[name-defined]
            pass

        return Described


class UploadDescription(OpenApiViewExtension):
    target_class = "usage.views.uploads.UploadViewSet"

    def view_replacement(self) -> Any:
        parameters = [OpenApiParameter(name, schema) for name, schema in UPLOAD_PARAMETERS.items()]
        reading = {"type": "object", "additionalProperties": False, "properties": UPLOAD_READING}
        later = problem_response("The upload is in another state.")

        @extend_schema_view(
            retrieve=extend_schema(parameters=[ID]),
            create=extend_schema(
                parameters=parameters, request=UPLOAD_BODIES, responses={201: UploadSerializer, 409: later}
            ),
            partial_update=extend_schema(
                parameters=[ID],
                request={"application/json": reading},
                responses={200: UploadSerializer, 409: later},
            ),
            start=extend_schema(parameters=[ID], request=None, responses={202: UploadSerializer, 409: later}),
            errors=extend_schema(parameters=[ID], responses={(200, "text/csv"): str}),
        )
        class Described(self.target_class):  # type: ignore[name-defined]
            pass

        return Described
