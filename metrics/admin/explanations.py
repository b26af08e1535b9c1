"""The pages that explain: how a quantity came about, down to its records; and what metrics make of one record."""

from collections import Counter
from collections.abc import Callable
from datetime import datetime, time
from decimal import Decimal
from typing import Any, TypeVar
from urllib.parse import urlencode

from django import forms
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse

from customers.admin_access import may_work, organisations_of, person
from customers.admin_acts import ActAdmin
from customers.api import wire_instant
from customers.templatetags.tallybook_admin import iso_utc
from customers.zones import zone
from metrics.admin.quantity_charts import dimension_text
from metrics.definition_forms import sentence
from metrics.drift import differing
from metrics.explained_records import RecordsPage, SeenRecord
from metrics.explanation import Explanation, Part, Source, explain_with_records
from metrics.formulas import READ_FROM_RECORDS
from metrics.models import Metric
from metrics.periods import PeriodError
from metrics.quantity_forms import ExplainForm
from metrics.questions import Exactly, NotActive, TookTooLong, UnknownCustomer, UnknownDimension
from metrics.record_explanation import MetricOfRecord, explain_record
from metrics.sql_text import SqlError
from metrics.words import formula_in_words
from usage.models import UsageEvent, UsageRecord
from usage.references import parse_batch_reference

RECORDS_SHOWN = 50
PARTS_SHOWN = 200
SOURCES = {
    Source.AGGREGATES: "Stored hours",
    Source.RECORDS: "Record by record",
    Source.PENDING: "Pending batch",
    Source.CHANGED: "Changed hour",
    Source.SQL: "SQL",
}
REASONS = {
    "filtered_out": "Filtered out",
    "no_value": "No value",
    "voided": "Void",
    "not_built_yet": "Not built yet",
}
OF_RECORD = {
    Source.AGGREGATES: "its stored hour",
    Source.RECORDS: "the records themselves, as always with this aggregation",
    Source.PENDING: "the records: its batch is pending",
    Source.CHANGED: "the records: a correction changed its hour",
}

Found = TypeVar("Found")


class ExplanationPages(ActAdmin):
    """Pages that explain; nothing can be changed on them."""

    def explanation_urls(self) -> list[URLPattern]:
        """Return the addresses of these pages, below the metrics' own."""
        view = self.admin_site.admin_view
        return [
            path("quantities/explain/", view(self.explain_view), name="metrics_metric_explain"),
            path("records/<int:object_id>/", view(self.record_metrics_view), name="metrics_record_metrics"),
        ]

    def explain_view(self, request: HttpRequest) -> HttpResponse:
        """Show how a customer's quantity came about: counts, where it was read, and the records."""
        if not may_work(request):
            raise PermissionDenied
        form = ExplainForm(request.GET, user=person(request))
        found, problem = None, ""
        if form.is_bound and form.is_valid():
            found, problem = asked_of(form, lambda: _explained(form))
        quantities_url = _quantities_url(form)
        context = {"title": "Explanation", "form": form, "problem": problem, "quantities_url": quantities_url}
        context["crumbs"] = [("Quantities", quantities_url)]
        if found is not None:
            context |= explanation_context(request, form, *found)
        return self.render_page(request, "admin/metrics/explain.html", context)

    def record_metrics_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """Show which metrics count a record, and why the others do not."""
        if not may_work(request):
            raise PermissionDenied
        own = UsageEvent.objects.filter(organisation__in=organisations_of(person(request)).order_by())
        ids = list(own.values_list("pk", flat=True))
        stored = UsageRecord.objects.filter(usage_event_id__in=ids, pk=object_id) if object_id < 2**63 else None
        record = stored.select_related("usage_event", "customer").first() if stored is not None else None
        if record is None:
            raise Http404("There is no such record.")
        found = explain_record(record.usage_event.organisation_id, record.pk)
        url = reverse("admin:usage_usagerecord_change", args=[record.pk])
        context = {
            "title": "Metrics of this record",
            "record": record,
            "as_of": found.as_of,
            "rows": [_metric_row(one, record) for one in found.metrics],
            "crumbs": [
                ("Usage records", reverse("admin:usage_usagerecord_changelist")),
                (str(record).capitalize(), url),
            ],
        }
        return self.render_page(request, "admin/metrics/record_metrics.html", context)


def asked_of(form: forms.Form, ask: Callable[[], Found]) -> tuple[Found | None, str]:
    """Return what is answered, or None and what is wrong: at the form's field, or as text (a status, or a sentence)."""
    try:
        return ask(), ""
    except NotActive as error:
        return None, error.status
    except UnknownCustomer as error:
        form.add_error("customer_id", f"There is no customer “{error}”.")
    except UnknownDimension as error:
        form.add_error(error.parameter if error.parameter in form.fields else "metric", sentence(str(error)))
    except (PeriodError, TookTooLong) as error:
        form.add_error("end", sentence(str(error)))
    except SqlError as error:
        return None, f"The SQL of the metric failed: {error}."
    return None, ""


def asked_text(value: Any) -> str | None:
    """Return the text that asks for a dimension's value; None where no text does."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, int):
        return str(value)
    return value if isinstance(value, str) and value and not {"\n", "\r"} & set(value) else None


def _explained(form: ExplainForm) -> tuple[Explanation, RecordsPage | None]:
    asked = form.cleaned_data
    metric: Metric = asked["metric"]
    return explain_with_records(
        metric.organisation_id,
        metric.code,
        form.question(),
        skipped=asked["include"] == "skipped",
        place=asked["cursor"],
        page_size=RECORDS_SHOWN,
    )


def explanation_context(
    request: HttpRequest, form: ExplainForm, found: Explanation, page: RecordsPage | None
) -> dict[str, Any]:
    """Return what the page shows of an explanation."""
    query = request.GET.copy()
    cursor = query.pop("cursor", None)
    toggled = query.copy()
    skipped = form.cleaned_data["include"] == "skipped"
    if skipped:
        toggled.pop("include", None)
    else:
        toggled["include"] = "skipped"
    links: dict[str, Any] = {"toggle_url": f"?{toggled.urlencode()}#records"}
    for name, place in (("next_url", page and page.next), ("previous_url", page and page.previous)):
        if place:
            following = query.copy()
            following["cursor"] = place.text()
            links[name] = f"?{following.urlencode()}#records"
    return {
        "found": found,
        "metric": found.metric,
        "drifted": bool(differing([found.metric.pk])),
        "question": found.question,
        "words": formula_in_words(found.metric),
        "filters": [(name, " or ".join(map(_wanted, wanted))) for name, wanted in found.question.filter_by.items()],
        "from_records": found.metric.aggregation in READ_FROM_RECORDS,
        "same": found.quantity == found.recount,
        "skipped_count": sum(found.tally[1:]) if found.tally else 0,
        "parts": [_part(part) for part in found.parts[:PARTS_SHOWN]],
        "read": _read_from(found),
        "more_parts": max(0, len(found.parts) - PARTS_SHOWN),
        "bound": _bound(found),
        "carried_in": [_record(row) for row in found.carried_in],
        "records": [_record(row) for row in page.rows] if page else None,
        "with_skipped": skipped,
        "later_page": bool(cursor),
        "dimensions": found.metric.group_by,
        "records_url": _records_url(found),
        **links,
    }


def _wanted(one: str | Exactly) -> str:
    return dimension_text(one.value) if isinstance(one, Exactly) else one


def _quantities_url(form: ExplainForm) -> str:
    """The quantities of the metric in the same period, as far as that is one of whole days."""
    url = reverse("admin:metrics_metric_quantities")
    if not form.is_bound or "metric" not in form.cleaned_data:
        return url
    query = {"metric": form.cleaned_data["metric"].pk}
    asked_zone = zone(form.cleaned_data.get("timezone") or form.zone_name)
    moments = [
        form.cleaned_data[name].astimezone(asked_zone) for name in ("start", "end") if form.cleaned_data.get(name)
    ]
    if len(moments) == 2 and all(moment.time() == time() for moment in moments):
        query |= {"start": moments[0].date(), "end": moments[1].date(), "timezone": asked_zone.key}
    return f"{url}?{urlencode(query)}"


def _part(part: Part) -> dict[str, Any]:
    parsed = parse_batch_reference(part.batch) if part.batch else None
    url = reverse("admin:usage_ingestbatch_change", args=[parsed[0]]) if parsed else ""
    return {"part": part, "words": SOURCES[part.source], "batch_url": url}


def _bound(found: Explanation) -> list[tuple[str, str]]:
    """The values of the placeholders of SQL in the first window."""
    values = found.bound(found.parts[0]) if found.parts else {}
    return [(name, value if isinstance(value, str) else wire_instant(value)) for name, value in values.items()]


def _read_from(found: Explanation) -> list[tuple[str, int]]:
    """How many records were read in each way; nothing where the list of parts is cut off or counts none."""
    counts: Counter[Source] = Counter()
    for part in found.parts:
        counts[part.source] += part.record_count or 0
    return [] if found.truncated or found.metric.sql else [(SOURCES[source], n) for source, n in counts.items()]


def _record(row: SeenRecord) -> dict[str, Any]:
    return {
        "record": row,
        "reason": REASONS.get(row.reason or "", ""),
        "dimensions": [dimension_text(value) for value in row.dimensions.values()],
    }


def _records_url(found: Explanation) -> str:
    query = {
        "usage_event": found.metric.usage_event_id,
        "customer_id": found.customer_id,
        "after": iso_utc(found.question.start),
        "before": iso_utc(found.question.end),
    }
    return f"{reverse('admin:usage_usagerecord_changelist')}?{urlencode(query)}"


def _metric_row(one: MetricOfRecord, record: UsageRecord) -> dict[str, Any]:
    return {
        "one": one,
        "words": formula_in_words(one.metric),
        "reason": REASONS.get(one.reason or "", ""),
        "source": OF_RECORD.get(one.source) if one.source else "",
        "dimensions": [(name, dimension_text(value)) for name, value in one.dimensions.items()],
        "explain_url": _explain_url(one.metric, record, one.window_start, one.window_end) if one.source else "",
    }


def _explain_url(metric: Metric, record: UsageRecord, start: datetime, end: datetime) -> str:
    query = {
        "metric": metric.pk,
        "customer_id": record.customer.external_id,
        "start": iso_utc(start),
        "end": iso_utc(end),
    }
    return f"{reverse('admin:metrics_metric_explain')}?{urlencode(query)}"
