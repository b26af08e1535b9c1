"""The HTTP edge of definitions: /api/metrics/, its versions and their activation."""

from typing import Any

from django.http import Http404
from rest_framework import mixins, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from customers.api import Conflict, Pages, read_query
from customers.authentication import caller
from metrics.definitions import NotADraft, activate_metric
from metrics.metric_serializers import MetricListQuerySerializer, MetricSerializer, VersionQuerySerializer
from metrics.models import Metric


class MetricViewSet(
    mixins.ListModelMixin,
    mixins.CreateModelMixin,
    mixins.RetrieveModelMixin,
    mixins.UpdateModelMixin,
    viewsets.GenericViewSet[Metric],
):
    """/api/metrics/: the newest version of each code. A PATCH of a published formula makes a new draft version."""

    http_method_names = ["get", "post", "patch", "head", "options"]
    serializer_class = MetricSerializer
    pagination_class = Pages
    lookup_field = "code"
    lookup_value_regex = "[A-Za-z0-9_-]+"

    def get_queryset(self) -> Any:
        own = Metric.objects.filter(organisation_id=caller(self.request).organisation_id).select_related("usage_event")
        if self.action == "versions":
            return own.filter(code=self.kwargs["code"])
        version = self._version()
        return own.newest() if version is None else own.filter(version=version)

    def filter_queryset(self, queryset: Any) -> Any:
        if self.action in ("list", "versions"):
            read_query(self.request, MetricListQuerySerializer)
        return queryset

    def _version(self) -> int | None:
        if self.action not in ("retrieve", "partial_update"):
            return None
        version: int | None = read_query(self.request, VersionQuerySerializer).get("version")
        return version

    @action(detail=True)
    def versions(self, request: Request, code: str) -> Response:
        """List the versions of a metric, the newest first."""
        answer = self.list(request)
        if not self.get_queryset().exists():
            raise Http404("No Metric matches the given query.")
        return answer

    @action(detail=True, methods=["post"])
    def activate(self, request: Request, code: str) -> Response:
        """Put the draft in force: it is built from history, and becomes active when that is done."""
        try:
            metric = activate_metric(self.get_object().pk)
        except NotADraft as error:
            raise Conflict(str(error)) from error
        return Response(self.get_serializer(metric).data, 202)
