"""The OpenAPI descriptions of metrics and quantities."""

from typing import Any

from drf_spectacular.extensions import OpenApiViewExtension
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import serializers

from customers.openapi import problem_response
from metrics.serializers import MetricSerializer, QuestionSerializer

METRIC = {
    "code": "cpu_hours",
    "name": "CPU hours",
    "unit": "hours",
    "usage_event": "compute_hours",
    "aggregation": "sum",
    "property": "cpu_usage_hours",
}
QUANTITIES = {
    "metric": "cpu_hours",
    "version": 1,
    "start": "2025-06-01T00:00:00Z",
    "end": "2025-07-01T00:00:00Z",
    "timezone": "UTC",
    "quantities": [
        {
            "customer_id": "cus_123",
            "start": "2025-06-01T00:00:00Z",
            "end": "2025-07-01T00:00:00Z",
            "dimensions": {},
            "quantity": "325",
            "record_count": 2,
        }
    ],
    "as_of": "2025-06-17T14:03:13.120Z",
    "next": None,
}


class QuantitySerializer(serializers.Serializer[Any]):
    """A quantity of one customer over one window; a string, so that no client rounds it."""

    customer_id = serializers.CharField()
    start = serializers.DateTimeField()
    end = serializers.DateTimeField()
    dimensions = serializers.DictField()
    quantity = serializers.CharField(allow_null=True)
    record_count = serializers.IntegerField()


class AnswerSerializer(serializers.Serializer[Any]):
    """The quantities of a period, as of one snapshot."""

    metric = serializers.CharField()
    version = serializers.IntegerField()
    start = serializers.DateTimeField()
    end = serializers.DateTimeField()
    timezone = serializers.CharField()
    quantities = QuantitySerializer(many=True)
    as_of = serializers.DateTimeField()
    next = serializers.CharField(allow_null=True)


class MetricDescription(OpenApiViewExtension):
    target_class = "metrics.views.MetricViewSet"

    def view_replacement(self) -> Any:
        example = OpenApiExample("a sum", METRIC, request_only=True)
        answer = OpenApiExample("a sum", {**METRIC, "version": 1, "status": "draft"}, response_only=True)
        building = OpenApiExample("a sum", {**METRIC, "version": 1, "status": "building"}, response_only=True)
        quantity = OpenApiExample("a month", QUANTITIES, response_only=True)
        not_a_draft = {202: MetricSerializer, 409: problem_response("It is no draft.")}
        answers = {
            200: OpenApiResponse(AnswerSerializer, "The quantities."),
            409: problem_response("The metric was never active."),
        }

        @extend_schema_view(
            list=extend_schema(examples=[answer]),
            retrieve=extend_schema(examples=[answer]),
            create=extend_schema(examples=[example, answer]),
            activate=extend_schema(request=None, responses=not_a_draft, examples=[building]),
            quantities=extend_schema(
                parameters=[QuestionSerializer], responses=answers, examples=[quantity], filters=False
            ),
        )
        class Described(self.target_class):  # type: ignore[name-defined]
            pass

        return Described
