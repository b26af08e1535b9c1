"""The OpenAPI descriptions of metrics and quantities."""

from typing import Any

from drf_spectacular.extensions import OpenApiViewExtension
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    extend_schema_view,
)

from customers.openapi import problem_response
from metrics import openapi_explanations, openapi_materialization
from metrics.metric_serializers import VersionQuerySerializer
from metrics.openapi_schemas import (
    CHANGED_METRIC,
    COMPARED,
    METRIC,
    PREVIEW,
    QUANTITIES,
    SQL_METRIC,
    STORED_METRIC,
    AnswerSerializer,
    ComparisonSerializer,
    MetricAnswerSerializer,
    PreviewAnswerSerializer,
)
from metrics.quantity_serializers import PeriodSerializer, PreviewSerializer, QuestionSerializer

# Imported for what they register: the descriptions of further views.
DESCRIBED = (openapi_explanations, openapi_materialization)

SHOWN = OpenApiExample("a sum", STORED_METRIC, response_only=True)
CODE = OpenApiParameter("code", str, OpenApiParameter.PATH, pattern="^[A-Za-z0-9_-]+$")
SQL_FAILED = problem_response("The metric's SQL failed on what is stored.")
NEVER_ACTIVE = "The metric was never active; `detail` names its status."


class MetricDescription(OpenApiViewExtension):
    target_class = "metrics.views.definitions.MetricViewSet"

    def view_replacement(self) -> Any:
        one = {200: MetricAnswerSerializer}
        many = {200: MetricAnswerSerializer(many=True)}
        defined = [
            OpenApiExample("a sum", METRIC, request_only=True),
            OpenApiExample("a metric of SQL", SQL_METRIC, request_only=True),
            SHOWN,
        ]
        changed = [
            OpenApiExample("another formula", {"filters": CHANGED_METRIC["filters"]}, request_only=True),
            OpenApiExample("the next version", CHANGED_METRIC, response_only=True),
        ]
        building = {**STORED_METRIC, "status": "building", "progress": 0.25}
        put_in_force = {202: MetricAnswerSerializer, 409: problem_response("It is no draft.")}

        @extend_schema_view(
            list=extend_schema(responses=many, examples=[SHOWN]),
            versions=extend_schema(
                operation_id="api_metrics_versions", parameters=[CODE], responses=many, examples=[SHOWN]
            ),
            retrieve=extend_schema(parameters=[CODE, VersionQuerySerializer], responses=one, examples=[SHOWN]),
            create=extend_schema(responses={201: MetricAnswerSerializer}, examples=defined),
            partial_update=extend_schema(
                description="A draft changes itself. Of a published version name and unit change in place; another "
                "formula goes to the draft in preparation, or becomes one: the next version.",
                parameters=[CODE, VersionQuerySerializer],
                responses=one,
                examples=changed,
            ),
            activate=extend_schema(
                parameters=[CODE],
                request=None,
                responses=put_in_force,
                examples=[OpenApiExample("a sum", building, response_only=True)],
            ),
        )
        class Described(self.target_class):  # type: ignore[name-defined]
            pass

        return Described


class QuantityDescription(OpenApiViewExtension):
    target_class = "metrics.views.quantities.QuantityViewSet"

    def view_replacement(self) -> Any:
        answers = {
            200: OpenApiResponse(AnswerSerializer, "The quantities."),
            409: problem_response(NEVER_ACTIVE),
            422: SQL_FAILED,
        }
        compared = {
            200: OpenApiResponse(ComparisonSerializer, "Both versions side by side."),
            409: problem_response("The metric was never active, or no version is in preparation."),
            422: SQL_FAILED,
        }
        previewed = {200: OpenApiResponse(PreviewAnswerSerializer, "What it would give."), 422: SQL_FAILED}

        @extend_schema_view(
            quantities=extend_schema(
                description="`filter.<property>` leaves the records whose dimension has that value; repeated, any of "
                "several. The property is one that the metric groups by.",
                parameters=[CODE, QuestionSerializer],
                responses=answers,
                examples=[OpenApiExample("a month", QUANTITIES, response_only=True)],
                filters=False,
            ),
            diff=extend_schema(
                parameters=[CODE, PeriodSerializer],
                responses=compared,
                examples=[OpenApiExample("a month", COMPARED, response_only=True)],
                filters=False,
            ),
            preview=extend_schema(
                description="Stores nothing; takes the scope `read`. `next` is the `cursor` of the next page.",
                request=PreviewSerializer,
                responses=previewed,
                examples=[
                    OpenApiExample("a definition", PREVIEW, request_only=True),
                    OpenApiExample("a month", {**QUANTITIES, "metric": None, "version": None}, response_only=True),
                ],
            ),
        )
        class Described(self.target_class):  # type: ignore[name-defined]
            pass

        return Described
