"""The HTTP edge of customers: /api/customers/."""

from typing import Any

from django.db.models import QuerySet
from django.http import Http404
from rest_framework import mixins, viewsets
from rest_framework.exceptions import NotFound
from rest_framework.pagination import Cursor
from rest_framework.request import Request
from rest_framework.response import Response

from customers.api import Pages, read_query
from customers.authentication import caller
from customers.models import Customer
from customers.resolution import resolve_customers
from customers.serializers import CustomerChangeSerializer, CustomerQuerySerializer, CustomerSerializer


class PagesById(Pages):
    """In the order of the customers' own ids, which an index keeps for each organisation."""

    ordering = "external_id"

    def decode_cursor(self, request: Request) -> Cursor | None:
        """Return where the page begins; raises NotFound for a cursor that no answer of ours held."""
        cursor: Cursor | None = super(Pages, self).decode_cursor(request)
        if cursor is not None and cursor.position is not None and "\0" in str(cursor.position):
            raise NotFound(self.invalid_cursor_message)
        return cursor


class CustomerViewSet(
    mixins.ListModelMixin,
    mixins.CreateModelMixin,
    mixins.RetrieveModelMixin,
    mixins.UpdateModelMixin,
    viewsets.GenericViewSet[Customer],
):
    """/api/customers/: who is billed."""

    http_method_names = ["get", "head", "options", "post", "patch"]
    pagination_class = PagesById
    lookup_field = "external_id"
    # Whatever a sender calls its customers, slashes and line breaks among them, percent-encoded.
    lookup_value_regex = r"[\s\S]+?"

    def get_serializer_class(self) -> type[CustomerSerializer]:
        return CustomerChangeSerializer if self.action == "partial_update" else CustomerSerializer

    def get_queryset(self) -> QuerySet[Customer]:
        own = Customer.objects.filter(organisation_id=caller(self.request).organisation_id)
        return own.prefetch_related("aliases")

    def get_object(self) -> Customer:
        if "\0" in self.kwargs["external_id"]:
            raise Http404("There is no such customer.")
        return super().get_object()

    def filter_queryset(self, queryset: Any) -> Any:
        return queryset.filter(**_conditions(self.request)) if self.action == "list" else queryset

    def create(self, request: Request, *args: Any, **options: Any) -> Response:
        """Enter a customer: 201; or complete one that only usage has named so far: 200."""
        serializer = CustomerSerializer(data=request.data, context=self.get_serializer_context())
        serializer.is_valid(raise_exception=True)
        serializer.save()
        return Response(serializer.data, 201 if serializer.is_new else 200)


def _conditions(request: Request) -> dict[str, Any]:
    asked = read_query(request, CustomerQuerySerializer)
    conditions: dict[str, Any] = {}
    if "external_id" in asked:
        found = resolve_customers(caller(request).organisation_id, [asked["external_id"]], create=False)
        conditions["pk__in"] = found.values()
    if "confirmed" in asked:
        conditions["confirmed"] = asked["confirmed"] == "true"
    if "archived" in asked:
        conditions["archived_at__isnull"] = asked["archived"] == "false"
    return conditions
