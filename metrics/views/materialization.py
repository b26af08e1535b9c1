"""The HTTP edge of freshness: /api/materialization/."""

from rest_framework import viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from customers.api import Pages, read_query
from customers.authentication import caller
from customers.models import Scope
from metrics.freshness import freshness
from metrics.freshness_serializers import FreshnessQuerySerializer, FreshnessSerializer
from usage.models import UsageEvent


class MaterializationViewSet(viewsets.GenericViewSet[UsageEvent]):
    """/api/materialization/: how fresh the stored hours of each usage event are."""

    scope = Scope.READ
    serializer_class = FreshnessSerializer
    pagination_class = Pages

    def list(self, request: Request) -> Response:
        """List what waits for a fold, usage event by usage event, the newest first."""
        organisation_id = caller(request).organisation_id
        asked = read_query(request, FreshnessQuerySerializer, organisation_id=organisation_id)
        own = UsageEvent.objects.filter(organisation_id=organisation_id).defer("schema")
        if "usage_event" in asked:
            own = own.filter(pk=asked["usage_event"].pk)
        page = self.paginate_queryset(own)
        assert page is not None
        return self.get_paginated_response(FreshnessSerializer(freshness(page), many=True).data)
