"""The HTTP edge of quantities: what a metric gives, what a definition would give, and what a new version changes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rest_framework import viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import APIException, NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param

from customers.api import Conflict
from customers.authentication import caller
from customers.models import Organisation, Scope
from metrics.comparison import compare
from metrics.models import Metric
from metrics.periods import PeriodError
from metrics.quantities import active_metric, preview, quantities
from metrics.quantity_serializers import (
    PeriodSerializer,
    PreviewSerializer,
    QuestionSerializer,
    lists_of,
    wire_answer,
    wire_comparison,
)
from metrics.questions import NotActive, TookTooLong, UnknownCustomer, UnknownDimension, UnknownMetric
from metrics.sql_text import SqlError


class SqlFailed(APIException):
    """The SQL of a metric is sound, but failed on what is stored; `line` and `column` say where in it."""

    status_code = 422

    def __init__(self, error: SqlError) -> None:
        super().__init__(f"The metric's SQL failed: {error}")
        # Not every failure has a place in the text: a division by zero has none.
        self.members = {"line": error.line or None, "column": error.column or None}


class QuantityViewSet(viewsets.GenericViewSet[Metric]):
    """/api/metrics/…/quantities/, …/diff/ and /api/metrics/preview/: nothing of it stores anything."""

    scope = Scope.READ
    serializer_class = QuestionSerializer
    pagination_class = None
    lookup_field = "code"
    lookup_value_regex = "[A-Za-z0-9_-]+"

    @action(detail=True)
    def quantities(self, request: Request, code: str) -> Response:
        """Answer the quantities of the active version."""
        asked = _asked(request, QuestionSerializer, lists_of(dict(request.query_params.lists()), QuestionSerializer))
        question = asked.question()
        with refusals_answered(code):
            answer = quantities(caller(request).organisation_id, code, question)
        following = replace_query_param(request.build_absolute_uri(), "cursor", answer.next)
        return Response(wire_answer(answer, question, None if answer.next is None else following))

    @action(detail=True)
    def diff(self, request: Request, code: str) -> Response:
        """Compare the quantities of the active version with those of the version in preparation."""
        asked = _asked(request, PeriodSerializer, lists_of(dict(request.query_params.lists()), PeriodSerializer))
        question = asked.question()
        with refusals_answered(code):
            old = active_metric(caller(request).organisation_id, code)
            comparison = compare(old, _in_preparation(old), question)
        return Response(wire_comparison(comparison, question))

    @action(detail=False, methods=["post"])
    def preview(self, request: Request) -> Response:
        """Answer what a definition would give, from the records themselves."""
        if request.data is None:
            raise ValidationError("a JSON object was expected, got null")
        asked = _asked(request, PreviewSerializer, request.data)
        question = asked.question()
        with refusals_answered(""):
            answer = preview(asked.validated_data["metric"], question)
        return Response(wire_answer(answer, question, answer.next))


@contextmanager
def refusals_answered(code: str) -> Iterator[None]:
    """What cannot be answered, in the API's words, naming the parameter at fault."""
    try:
        yield
    except UnknownMetric as error:
        raise NotFound(f"There is no metric '{code}'.") from error
    except NotActive as error:
        raise Conflict(str(error)) from error
    except UnknownCustomer as error:
        raise ValidationError({"customer_id": f"There is no customer '{error}'."}) from error
    except UnknownDimension as error:
        raise ValidationError({error.parameter: str(error)}) from error
    except (PeriodError, TookTooLong) as error:
        raise ValidationError({"end": str(error)}) from error
    except SqlError as error:
        raise SqlFailed(error) from error


def _in_preparation(active: Metric) -> Metric:
    same = Metric.objects.filter(organisation_id=active.organisation_id, code=active.code)
    newest = same.select_related("usage_event").order_by("-version")[0]
    if newest.version == active.version:
        raise Conflict(f"version {active.version} is the newest: there is none to compare it with")
    return newest


def _asked(request: Request, expected: type[PeriodSerializer], asked: Any) -> Any:
    organisation = Organisation.objects.get(pk=caller(request).organisation_id)
    serializer = expected(data=asked, context={"timezone": organisation.timezone, "request": request})
    serializer.is_valid(raise_exception=True)
    return serializer
