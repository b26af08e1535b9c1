"""The HTTP edge of metrics: definitions, activation and quantities."""

from typing import Any

from rest_framework import mixins, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import APIException, NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param

from customers.api import Pages
from customers.authentication import caller
from customers.models import Organisation
from metrics.definitions import NotADraft, activate_metric
from metrics.models import Metric
from metrics.periods import PeriodError
from metrics.quantities import NotActive, UnknownCustomer, UnknownMetric, quantities
from metrics.serializers import MetricSerializer, QuestionSerializer, wire_answer


class Conflict(APIException):
    status_code = 409


class MetricViewSet(
    mixins.ListModelMixin, mixins.CreateModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Metric]
):
    """/api/metrics/: the newest version of each code."""

    serializer_class = MetricSerializer
    pagination_class = Pages
    lookup_field = "code"
    lookup_value_regex = "[A-Za-z0-9_-]+"

    def get_queryset(self) -> Any:
        return Metric.objects.newest().filter(organisation_id=caller(self.request).organisation_id)

    @action(detail=True, methods=["post"])
    def activate(self, request: Request, code: str) -> Response:
        """Have the draft built from history; it becomes active when that is done."""
        try:
            metric = activate_metric(self.get_object().pk)
        except NotADraft as error:
            raise Conflict(str(error)) from error
        return Response(self.get_serializer(metric).data, 202)

    @action(detail=True)
    def quantities(self, request: Request, code: str) -> Response:
        """Answer the quantities of the active version."""
        organisation = Organisation.objects.get(pk=caller(request).organisation_id)
        asked = QuestionSerializer(data=_query(request), context={"timezone": organisation.timezone})
        asked.is_valid(raise_exception=True)
        question = asked.question()
        try:
            answer = quantities(organisation.pk, code, question)
        except UnknownMetric as error:
            raise NotFound(f"There is no metric '{code}'.") from error
        except NotActive as error:
            raise Conflict(str(error)) from error
        except UnknownCustomer as error:
            raise ValidationError({"customer_id": f"There is no customer '{error}'."}) from error
        except PeriodError as error:
            raise ValidationError({"end": str(error)}) from error
        return Response(wire_answer(answer, question, _next(request, answer.next)))


def _query(request: Request) -> dict[str, Any]:
    known = set(QuestionSerializer().fields)
    for name in request.query_params:
        if name not in known:
            raise ValidationError({name: f"this parameter is not known; known are {', '.join(sorted(known))}"})
    query: dict[str, Any] = dict(request.query_params.items())
    customer_ids = request.query_params.getlist("customer_id")
    return query | ({"customer_id": customer_ids} if customer_ids else {})


def _next(request: Request, cursor: int | None) -> str | None:
    return None if cursor is None else replace_query_param(request.build_absolute_uri(), "cursor", cursor)
