"""The page on freshness: what waits for a fold, the last folds, and how far builds and rebuilds have come."""

from django.core.exceptions import PermissionDenied
from django.db.models import F
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path

from customers.admin_access import may_work, organisations_of, person
from customers.admin_acts import ActAdmin
from metrics.freshness import COUNTED, STALE_SECONDS, freshness
from usage.models import UsageEvent

SHOWN = 200


class FreshnessPages(ActAdmin):
    """The page on freshness, below the metrics' own."""

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("freshness/", view(self.freshness_view), name="metrics_metric_freshness"),
            *super().get_urls(),
        ]

    def freshness_view(self, request: HttpRequest) -> HttpResponse:
        """Show what of each usage event is not in the stored hours yet."""
        if not may_work(request):
            raise PermissionDenied
        organisations = list(organisations_of(person(request)))
        own = UsageEvent.objects.filter(organisation__in=organisations).select_related("organisation").defer("schema")
        # Archived ones last: what was taken before may still wait.
        found = freshness(list(own.order_by(F("archived_at").asc(nulls_first=True), "name", "pk")[: SHOWN + 1]))
        context = {
            "title": "Freshness",
            "crumbs": [],
            "rows": found[:SHOWN],
            "more_rows": len(found) > SHOWN,
            "several": len(organisations) > 1,
            "stale": [row for row in found if row.stale],
            "stale_seconds": STALE_SECONDS,
            "counted": COUNTED,
        }
        return self.render_page(request, "admin/metrics/freshness.html", context)
