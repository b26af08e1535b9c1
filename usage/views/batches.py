"""The HTTP edge of receipts: /api/ingest-batches/<batch>/."""

from rest_framework import viewsets
from rest_framework.exceptions import NotFound, PermissionDenied
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response

from customers.authentication import caller
from customers.models import Scope
from usage.batch_serializers import BatchSerializer
from usage.receipts import find_batch


class MayReadReceipts(BasePermission):
    """Who posts usage may read what became of it; so may who reads everything."""

    def has_permission(self, request: Request, view: object) -> bool:
        """Return whether the key has one of the scopes; raises PermissionDenied, naming them, if not."""
        if caller(request).scopes.isdisjoint({Scope.READ, Scope.INGEST}):
            raise PermissionDenied(f"This needs a key with the scope '{Scope.READ}' or '{Scope.INGEST}'.")
        return True


class IngestBatchViewSet(viewsets.ViewSet):
    """/api/ingest-batches/: what one transaction committed."""

    permission_classes = [MayReadReceipts]
    serializer_class = BatchSerializer
    lookup_field = "batch"
    lookup_value_regex = "[0-9A-Za-z]+"

    def retrieve(self, request: Request, batch: str) -> Response:
        """Read the receipt of an ingest batch."""
        found = find_batch(caller(request).organisation_id, batch)
        if found is None:
            raise NotFound("There is no such ingest batch.")
        return Response(BatchSerializer(found).data)
