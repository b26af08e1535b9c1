"""The HTTP edge of explanations: how a quantity came about, its records, and what metrics make of one record."""

from typing import Any

from rest_framework import viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param

from customers.authentication import caller
from customers.models import Organisation, Scope
from metrics.explained_records import NoRecords, counted_records
from metrics.explanation import explain
from metrics.explanation_serializers import (
    ExplainedRecordsSerializer,
    ExplainSerializer,
    wire_explanation,
    wire_record_explanation,
    wire_records,
)
from metrics.models import Metric
from metrics.quantity_serializers import lists_of
from metrics.record_explanation import UnknownRecord, explain_record
from metrics.views.quantities import refusals_answered
from usage.record_filters import Place


class ExplanationViewSet(viewsets.GenericViewSet[Metric]):
    """/api/metrics/…/explain/: everything in it is as of one moment."""

    scope = Scope.READ
    serializer_class = ExplainSerializer
    pagination_class = None
    lookup_field = "code"
    lookup_value_regex = "[A-Za-z0-9_-]+"

    @action(detail=True)
    def explain(self, request: Request, code: str) -> Response:
        """Explain a customer's quantity: what counts, what does not and why, and where it was read."""
        question = _asked(request, ExplainSerializer).question()
        with refusals_answered(code):
            found = explain(caller(request).organisation_id, code, question)
        return Response(wire_explanation(found, request.build_absolute_uri(request.path)))

    @action(detail=True, url_path="explain/records", url_name="explain-records")
    def explain_records(self, request: Request, code: str) -> Response:
        """List the records that a customer's quantity counts, the oldest first."""
        asked = _asked(request, ExplainedRecordsSerializer)
        chosen = {"skipped": "include" in asked.validated_data, "place": asked.validated_data.get("cursor")}
        try:
            with refusals_answered(code):
                page = counted_records(
                    caller(request).organisation_id,
                    code,
                    asked.question(),
                    page_size=asked.validated_data["page_size"],
                    **chosen,
                )
        except NoRecords as error:
            raise NotFound(f"The metric '{code}' is SQL: which records it counts is not known.") from error
        links = {"next": _link(request, page.next), "previous": _link(request, page.previous)}
        return Response({**links, **wire_records(page)})


class RecordMetricsViewSet(viewsets.GenericViewSet[Any]):
    """/api/usage-records/…/metrics/: which metrics count a record, and why others do not."""

    scope = Scope.READ
    pagination_class = None
    lookup_value_regex = "[0-9]{1,18}"

    @action(detail=True)
    def metrics(self, request: Request, pk: str) -> Response:
        """Tell which metrics count a record, with what value and in which window, and why others do not."""
        try:
            with refusals_answered(""):
                found = explain_record(caller(request).organisation_id, int(pk))
        except UnknownRecord as error:
            raise NotFound("There is no such record.") from error
        return Response(wire_record_explanation(found))


def _asked(request: Request, expected: type[ExplainSerializer]) -> Any:
    organisation = Organisation.objects.get(pk=caller(request).organisation_id)
    asked = lists_of(dict(request.query_params.lists()), expected)
    serializer = expected(data=asked, context={"timezone": organisation.timezone, "request": request})
    serializer.is_valid(raise_exception=True)
    return serializer


def _link(request: Request, place: Place | None) -> str | None:
    if place is None:
        return None
    return replace_query_param(request.build_absolute_uri(), "cursor", place.text())
