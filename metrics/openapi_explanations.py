"""The OpenAPI descriptions of explanations."""

from typing import Any

from drf_spectacular.extensions import OpenApiViewExtension
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_view

from customers.openapi import problem_response
from metrics.explanation_serializers import ExplainedRecordsSerializer, ExplainSerializer
from metrics.openapi_schemas import PERIOD, STORED_METRIC

CODE = OpenApiParameter("code", str, OpenApiParameter.PATH, pattern="^[A-Za-z0-9_-]+$")
ID = OpenApiParameter("id", str, OpenApiParameter.PATH, pattern="^[0-9]{1,18}$")
NEVER_ACTIVE = problem_response("The metric was never active; `detail` names its status.")
SQL_FAILED = problem_response("The metric's SQL failed on what is stored.")

TEXT: dict[str, Any] = {"type": "string"}
INSTANT = {"type": "string", "format": "date-time"}
COUNT = {"type": "integer", "minimum": 0}
DIMENSIONS = {"type": "object", "description": "The values of the properties that the metric groups by."}


def nullable(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of something that may be null."""
    return {**schema, "type": [schema["type"], "null"]}


def of_members(description: str, **members: Any) -> dict[str, Any]:
    """Return the schema of an object that has all these members."""
    shape = {"type": "object", "required": list(members), "properties": members}
    return {**shape, "description": description} if description else shape


SKIPPED = of_members(
    "Each for one reason: voided, else filtered out, else without a value.",
    filtered_out=COUNT,
    no_value=COUNT,
    voided=COUNT,
)
PART: dict[str, Any] = of_members(
    "Where a part of the quantity was read, and how many records that passed the filters are in it.",
    start=INSTANT,
    end=INSTANT,
    **{"from": {"type": "string", "enum": ["aggregates", "records", "pending", "changed", "sql"]}},
    record_count=nullable(COUNT),
)
PART["properties"]["batch"] = {**TEXT, "description": "Of `pending`: the public name of the ingest batch."}
VALUE: dict[str, Any] = {
    "id": TEXT,
    "record_id": nullable(TEXT),
    "timestamp": INSTANT,
    "value": nullable(TEXT),
    "dimensions": DIMENSIONS,
}
EXPLANATION = of_members(
    "How a quantity came about, as of one snapshot.",
    metric=TEXT,
    version=COUNT,
    definition={"type": "object", "description": "The version that was in force, as /api/metrics/ shows it."},
    customer_id=TEXT,
    start=INSTANT,
    end=INSTANT,
    timezone=TEXT,
    as_of=INSTANT,
    quantity=nullable(TEXT),
    recount={**nullable(TEXT), "description": "The same from the records alone; null for SQL."},
    records=nullable(of_members("", counted=COUNT, skipped=SKIPPED)),
    windows={"type": "array", "items": PART, "maxItems": 1000},
    carried_in={
        "type": "array",
        "items": of_members("A value that a weighted sum holds at the start of the period.", **VALUE),
        "maxItems": 1000,
    },
    truncated={"type": "boolean", "description": "There are more windows, or values carried in, than shown."},
    sql=nullable(
        of_members(
            "Of a metric of SQL: what was run, once for each window, with which values in place of its placeholders.",
            text=TEXT,
            tables={"type": "array", "items": TEXT},
            bound={"type": "array", "items": {"type": "object"}},
        )
    ),
    records_url={**nullable(TEXT), "description": "The records behind it; null for SQL."},
)
RECORDS = of_members(
    "Records, oldest first. `value` is text: a number, or the JSON of a scalar where distinct values are counted.",
    next=nullable(TEXT),
    previous=nullable(TEXT),
    metric=TEXT,
    version=COUNT,
    as_of=INSTANT,
    results={
        "type": "array",
        "items": of_members(
            "",
            **VALUE,
            data={"type": "object"},
            counted={"type": "boolean"},
            reason={"type": ["string", "null"], "enum": ["voided", "filtered_out", "no_value", None]},
        ),
    },
)
OF_RECORD = of_members(
    "What the active metrics of the usage event, and those being built, make of a record.",
    id=TEXT,
    as_of=INSTANT,
    metrics={
        "type": "array",
        "items": of_members(
            "",
            metric=TEXT,
            version=COUNT,
            status={"type": "string", "enum": ["active", "building"]},
            counted={"type": "boolean"},
            reason={
                "type": ["string", "null"],
                "enum": ["voided", "filtered_out", "no_value", "not_built_yet", None],
            },
            condition={
                **nullable(TEXT),
                "description": "Of `filtered_out`: what does not hold, in words.",
            },
            value=nullable(TEXT),
            dimensions=DIMENSIONS,
            window=of_members("The stored hour that it belongs to.", start=INSTANT, end=INSTANT),
            **{
                "from": {
                    "type": ["string", "null"],
                    "enum": ["aggregates", "records", "pending", "changed", None],
                    "description": "Where quantities read it at this moment; null while the metric is being built.",
                }
            },
        ),
    },
)
HOUR = {"start": "2025-06-17T14:00:00Z", "end": "2025-06-17T15:00:00Z"}
SHOWN_VALUE = {
    "id": "17",
    "record_id": "evt-1",
    "timestamp": "2025-06-17T14:03:12Z",
    "value": "5",
    "dimensions": {"region": "eu"},
}
SHOWN = {
    "metric": "cpu_hours",
    "version": 1,
    "definition": {**STORED_METRIC, "status": "active"},
    "customer_id": "cus_123",
    **PERIOD,
    "timezone": "UTC",
    "as_of": "2025-07-02T08:00:00.120Z",
    "quantity": "325",
    "recount": "325",
    "records": {"counted": 2, "skipped": {"filtered_out": 1, "no_value": 0, "voided": 0}},
    "windows": [{**HOUR, "from": "aggregates", "record_count": 2}],
    "carried_in": [],
    "truncated": False,
    "sql": None,
    "records_url": "https://tallybook.example/api/metrics/cpu_hours/explain/records/?customer_id=cus_123&start=…&end=…",
}
SHOWN_PAGE = {
    "next": None,
    "previous": None,
    "metric": "cpu_hours",
    "version": 1,
    "as_of": "2025-07-02T08:00:00.120Z",
    "results": [
        {**SHOWN_VALUE, "data": {"cpu_usage_hours": 5, "region": "eu"}, "counted": True, "reason": None},
    ],
}
SHOWN_RECORD = {
    "id": "17",
    "as_of": "2025-07-02T08:00:00.120Z",
    "metrics": [
        {
            "metric": "cpu_hours",
            "version": 1,
            "status": "active",
            "counted": False,
            "reason": "filtered_out",
            "condition": "region is not “test”",
            "value": "5",
            "dimensions": {"region": "test"},
            "window": HOUR,
            "from": "aggregates",
        }
    ],
}


class ExplanationDescription(OpenApiViewExtension):
    target_class = "metrics.views.explanations.ExplanationViewSet"

    def view_replacement(self) -> Any:
        refusals = {409: NEVER_ACTIVE, 422: SQL_FAILED}

        @extend_schema_view(
            explain=extend_schema(
                operation_id="metric_explain",
                description="`quantity` is what …/quantities/ answers at the moment `as_of`. The records of all "
                "`windows` together are those that were counted and those without a value. "
                "`filter.<property>` as there.",
                parameters=[CODE, ExplainSerializer],
                responses={200: OpenApiResponse(EXPLANATION, "How it came about."), **refusals},
                examples=[OpenApiExample("a month", SHOWN, response_only=True)],
                filters=False,
            ),
            explain_records=extend_schema(
                operation_id="metric_explain_records",
                description="What is calculated from their values is the quantity. Each page is as of its own moment.",
                parameters=[CODE, ExplainedRecordsSerializer],
                responses={200: OpenApiResponse(RECORDS, "A page of records."), **refusals},
                examples=[OpenApiExample("a page", SHOWN_PAGE, response_only=True)],
                filters=False,
            ),
        )
        class Described(self.target_class):  # type: ignore[name-defined]
            written_out = True

        return Described


class RecordMetricsDescription(OpenApiViewExtension):
    target_class = "metrics.views.explanations.RecordMetricsViewSet"

    def view_replacement(self) -> Any:
        @extend_schema_view(
            metrics=extend_schema(
                operation_id="usage_record_metrics",
                parameters=[ID],
                responses=OpenApiResponse(OF_RECORD, "What metrics make of it."),
                examples=[OpenApiExample("a record", SHOWN_RECORD, response_only=True)],
                filters=False,
            )
        )
        class Described(self.target_class):  # type: ignore[name-defined]
            written_out = True

        return Described
