"""The views of the baseline: a bare durable INSERT, and plain DRF with jsonschema and bulk_create."""

import json
from typing import Any

from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from jsonschema import Draft202012Validator, validate
from rest_framework import serializers
from rest_framework.decorators import api_view, authentication_classes, permission_classes
from rest_framework.request import Request
from rest_framework.response import Response

from tests.benchmarks.baseline.models import PlainRecord

SCHEMA = {
    "type": "object",
    "properties": {"value": {"type": "number"}, "region": {"type": "string"}, "endpoint": {"type": "string"}},
    "additionalProperties": False,
}
VALIDATOR = Draft202012Validator(SCHEMA)


@csrf_exempt
def bare(request: HttpRequest) -> HttpResponse:
    """One durable INSERT of what came."""
    body = json.loads(request.body)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO baseline_barerow (key, data) VALUES (%s, %s) RETURNING id",
            [body["id"], json.dumps(body["data"])],
        )
        (row_id,) = cursor.fetchone()
    return HttpResponse(json.dumps({"id": row_id}), content_type="application/json", status=201)


class PlainSerializer(serializers.ModelSerializer[PlainRecord]):
    class Meta:
        model = PlainRecord
        fields = ["usage_event_id", "customer_id", "timestamp", "idempotency_key", "data"]

    def validate_data(self, data: Any) -> Any:
        if self.context["cached"]:
            for error in VALIDATOR.iter_errors(data):
                raise serializers.ValidationError(error.message)
        else:
            validate(data, SCHEMA, cls=Draft202012Validator)
        return data


def _plain(request: Request, *, cached: bool) -> Response:
    rows = request.data if isinstance(request.data, list) else [request.data]
    serializer = PlainSerializer(data=rows, many=True, context={"cached": cached})
    serializer.is_valid(raise_exception=True)
    PlainRecord._default_manager.bulk_create([PlainRecord(**row) for row in serializer.validated_data])
    return Response({"accepted": len(rows)}, 201)


@csrf_exempt
@api_view(["POST"])
@authentication_classes([])
@permission_classes([])
def per_call(request: Request) -> Response:
    """Plain DRF; the schema is compiled for each record, as `jsonschema.validate` does."""
    return _plain(request, cached=False)


@csrf_exempt
@api_view(["POST"])
@authentication_classes([])
@permission_classes([])
def cached(request: Request) -> Response:
    """Plain DRF with a validator that is kept."""
    return _plain(request, cached=True)
