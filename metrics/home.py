"""The first page of the admin: what is going on, in bounded queries, and where each kind of person goes on."""

from datetime import UTC
from typing import Any

from django.db.models import Count, Min, OuterRef, Subquery
from django.http import HttpRequest
from django.utils.timezone import now

from customers.admin_access import organisations_of, person
from metrics.models import Metric
from usage.models import PendingBatch, UsageEvent, UsageRecord

COUNTED = 10_000
SHOWN = 8


def home(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add the numbers of the person's organisations to the page. Unfold calls this (DASHBOARD_CALLBACK)."""
    organisations = list(organisations_of(person(request)))
    usage_events = UsageEvent.objects.filter(organisation__in=organisations, archived_at=None).defer("schema")
    ids = list(usage_events.values_list("pk", flat=True))
    midnight = now().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    today = UsageRecord.objects.filter(usage_event_id__in=ids, timestamp__gte=midnight)[: COUNTED + 1].count()
    pending = PendingBatch.objects.filter(usage_event_id__in=ids).aggregate(
        batches=Count("pk"), oldest=Min("batch__received_at")
    )
    metrics = Metric.objects.filter(organisation__in=organisations)
    return context | {
        "title": "Home",
        "organisations": organisations,
        "usage_event_count": len(ids),
        "today": midnight.date().isoformat(),
        "records_today": f"more than {COUNTED:,}" if today > COUNTED else f"{today:,}",
        "pending_batches": pending["batches"],
        "oldest_pending_seconds": (now() - pending["oldest"]).total_seconds() if pending["oldest"] else None,
        "active_metrics": metrics.filter(status=Metric.Status.ACTIVE).count(),
        "building_metrics": metrics.filter(status=Metric.Status.BUILDING).count(),
        "streams": _with_newest(usage_events.order_by("-created_at")[:SHOWN]),
    }


def _with_newest(usage_events: Any) -> Any:
    """The newest record of each: one look at the end of its index."""
    records = UsageRecord.objects.filter(usage_event_id=OuterRef("pk")).order_by("-timestamp")
    return usage_events.select_related("organisation").annotate(newest=Subquery(records.values("timestamp")[:1]))


def on_metrics(request: HttpRequest) -> bool:
    """Tell whether a page of metrics is shown; the page of quantities has an entry of its own."""
    return "/metrics/metric/" in request.path and not request.path.endswith("/quantities/")
