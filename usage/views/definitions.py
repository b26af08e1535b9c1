"""The HTTP edge of definitions: /api/usage-events/."""

from typing import Any

from rest_framework import mixins, viewsets

from customers.api import Pages
from customers.authentication import caller
from usage.models import UsageEvent
from usage.serializers import UsageEventSerializer


class UsageEventViewSet(
    mixins.ListModelMixin,
    mixins.CreateModelMixin,
    mixins.RetrieveModelMixin,
    mixins.UpdateModelMixin,
    viewsets.GenericViewSet[UsageEvent],
):
    """/api/usage-events/: the definitions of streams. A PATCH changes all that it names, or nothing."""

    http_method_names = ["get", "post", "patch", "head", "options"]

    serializer_class = UsageEventSerializer
    pagination_class = Pages
    lookup_field = "slug"
    lookup_value_regex = "[A-Za-z0-9_-]+"

    def get_queryset(self) -> Any:
        return UsageEvent.objects.filter(organisation_id=caller(self.request).organisation_id)
