"""The OpenAPI description of freshness."""

from typing import Any

from drf_spectacular.extensions import OpenApiViewExtension
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema, extend_schema_view

from metrics.freshness_serializers import FreshnessSerializer

FRESHNESS = {
    "usage_event": "compute_hours",
    "pending_batches": 2,
    "pending_records": 1200,
    "oldest_pending_seconds": 0.412,
    "changed_windows": 0,
    "last_fold": {
        "at": "2025-06-17T14:03:12.120000Z",
        "milliseconds": 38,
        "batches": 3,
        "records": 2400,
        "windows": 1,
    },
    "metrics": [
        {"code": "cpu_hours", "version": 1, "status": "active", "rebuilding": False, "progress": None},
        {"code": "cpu_hours", "version": 2, "status": "building", "rebuilding": False, "progress": 0.25},
    ],
}
SLUG = OpenApiParameter("usage_event", str, description="The slug of one usage event.")


class MaterializationDescription(OpenApiViewExtension):
    target_class = "metrics.views.materialization.MaterializationViewSet"

    def view_replacement(self) -> Any:
        @extend_schema_view(
            list=extend_schema(
                description="What of each usage event is not in the stored hours yet. Quantities count all of it "
                "already; this tells how much they have to read from the records themselves, and whether the workers "
                "keep up. Batches and windows are counted up to 10,000.",
                parameters=[SLUG],
                responses={200: FreshnessSerializer(many=True)},
                examples=[OpenApiExample("a usage event", FRESHNESS, response_only=True)],
            ),
        )
        class Described(self.target_class):  # type: ignore[name-defined]
            pass

        return Described
