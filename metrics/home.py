"""The first page of the admin: what is going on, in bounded queries, and where each kind of person goes on."""

from datetime import UTC
from typing import Any

from django.db.models import OuterRef, Subquery
from django.http import HttpRequest
from django.utils.timezone import now

from customers.admin_access import organisations_of, person
from metrics.drift import DifferingMetric, differing
from metrics.freshness import STALE_SECONDS, duration_in_words
from metrics.models import Metric
from usage.models import PendingBatch, UsageEvent, UsageRecord

COUNTED = 10_000
SHOWN = 8
DIFFERING_SHOWN = 5
OWN_ENTRIES = ("quantities/", "drift/", "freshness/")


def home(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add the numbers of the person's organisations to the page. Unfold calls this (DASHBOARD_CALLBACK)."""
    organisations = list(organisations_of(person(request)))
    usage_events = UsageEvent.objects.filter(organisation__in=organisations, archived_at=None).defer("schema")
    ids = list(usage_events.values_list("pk", flat=True))
    midnight = now().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    today = UsageRecord.objects.filter(usage_event_id__in=ids, timestamp__gte=midnight)[: COUNTED + 1].count()
    pending, oldest = _pending(ids)
    metrics = Metric.objects.filter(organisation__in=organisations)
    return context | {
        "title": "Home",
        "organisations": organisations,
        "usage_event_count": len(ids),
        "today": midnight.date().isoformat(),
        "records_today": f"more than {COUNTED:,}" if today > COUNTED else f"{today:,}",
        "pending_batches": f"more than {COUNTED:,}" if pending > COUNTED else f"{pending:,}",
        "oldest_pending_seconds": oldest,
        "waiting": None if oldest is None else duration_in_words(oldest),
        "stale": oldest is not None and oldest > STALE_SECONDS,
        "differing": _differing(request)[:DIFFERING_SHOWN],
        "more_differing": max(0, len(_differing(request)) - DIFFERING_SHOWN),
        "active_metrics": metrics.filter(status=Metric.Status.ACTIVE).count(),
        "building_metrics": metrics.filter(status=Metric.Status.BUILDING).count(),
        "streams": _with_newest(usage_events.order_by("-created_at")[:SHOWN]),
    }


def _pending(usage_event_ids: list[int]) -> tuple[int, float | None]:
    """How many batches wait for a fold, up to a bound, and for how many seconds the oldest of them does."""
    pending = PendingBatch.objects.filter(usage_event_id__in=usage_event_ids)
    first = pending.order_by("batch_id").values_list("batch__received_at", flat=True).first()
    age = None if first is None else max(0.0, (now() - first).total_seconds())
    return pending[: COUNTED + 1].count(), age


def _with_newest(usage_events: Any) -> Any:
    """The newest record of each: one look at the end of its index."""
    records = UsageRecord.objects.filter(usage_event_id=OuterRef("pk")).order_by("-timestamp")
    return usage_events.select_related("organisation").annotate(newest=Subquery(records.values("timestamp")[:1]))


def on_metrics(request: HttpRequest) -> bool:
    """Tell whether a page of metrics is shown; some of them, and the pages below those, have an entry of their own."""
    _, _, page = request.path.partition("/metrics/metric/")
    return "/metrics/metric/" in request.path and not page.startswith(OWN_ENTRIES)


def metrics_that_differ(request: HttpRequest) -> str:
    """Return how many metrics have drifted, for the badge of the entry; "" for none."""
    return str(len(_differing(request)) or "")


def _differing(request: HttpRequest) -> list[DifferingMetric]:
    """The person's metrics that have drifted; asked once per request, for the page and for the badge."""
    if not hasattr(request, "_differing_metrics"):
        own = Metric.objects.filter(organisation__in=organisations_of(person(request)).order_by())
        active = own.filter(status=Metric.Status.ACTIVE).values_list("pk", flat=True)
        request._differing_metrics = differing(list(active))  # type: ignore[attr-defined]
    found: list[DifferingMetric] = request._differing_metrics  # type: ignore[attr-defined]
    return found
