"""The pages on drift: what differs, every check that was made, a check now, and a rebuild."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from unfold.widgets import UnfoldAdminSelectWidget

from customers.admin_access import may_work, organisations_of, person, with_organisation
from customers.admin_acts import ActAdmin, ActForm
from customers.exactjson import dumps
from customers.templatetags.tallybook_admin import iso_utc
from metrics.admin.quantity_charts import dimension_text
from metrics.drift import CheckTookTooLong, DifferingMetric, NotComparable, differing, find_drift
from metrics.drift_nights import RECENT, closed_until
from metrics.freshness import MetricFreshness, rebuild_progress
from metrics.materialization import request_rebuild
from metrics.models import DriftCheck, Metric, MetricAggregate
from metrics.periods import midnight
from metrics.quantity_forms import DayField
from metrics.questions import UTC_ZONE
from usage.windows import HOUR

CHECKS_SHOWN = 50
METRICS_SHOWN = 100
SPANS_SHOWN = 5
# Somebody waits for the page; what is left goes on with another click.
BY_HAND_SECONDS = 20.0


def active_metrics_of(user: User) -> QuerySet[Metric]:
    """Return the person's metrics that are in force and store hours."""
    own = Metric.objects.filter(organisation__in=organisations_of(user).order_by(), status=Metric.Status.ACTIVE)
    return own.filter(usage_event__isnull=False).select_related("organisation").order_by("name", "pk")


class CheckForm(ActForm):
    """A comparison of one metric over whole days, now."""

    metric = forms.ModelChoiceField(
        queryset=Metric.objects.none(), empty_label="Choose one", widget=UnfoldAdminSelectWidget
    )
    start = DayField(label="From (UTC)")
    end = DayField(label="Until (UTC, not included)")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        field = self.fields["metric"]
        assert isinstance(field, forms.ModelChoiceField)
        field.queryset = active_metrics_of(self.user)
        if len(organisations_of(self.user)[:2]) > 1:
            field.label_from_instance = with_organisation  # type: ignore[method-assign]

    def clean(self) -> None:
        start, end = self.cleaned_data.get("start"), self.cleaned_data.get("end")
        if start and end and end <= start:
            self.add_error("end", "The end must be after the start.")

    @property
    def end_moment(self) -> datetime:
        return midnight(self.cleaned_data["end"], UTC_ZONE)

    def act(self) -> list[DriftCheck]:
        asked = self.cleaned_data
        try:
            return find_drift(
                asked["metric"].pk,
                midnight(asked["start"], UTC_ZONE),
                self.end_moment,
                DriftCheck.Kind.BY_HAND,
                seconds=BY_HAND_SECONDS,
                statement_seconds=settings.QUANTITIES_SECONDS,
            )
        except NotComparable as error:
            raise ValidationError({"metric": f"{_sentence(error)}."}) from error
        except CheckTookTooLong as error:
            patient = f"manage.py find_drift waits for {settings.DRIFT_SECONDS:g} s"
            raise ValidationError({"start": f"{_sentence(error)}; {patient}."}) from error


@dataclass(frozen=True, slots=True)
class StateLine:
    """A column of a stored hour: its name in words, both values as text, "" where that side has no row."""

    name: str
    stored: str
    recounted: str

    @property
    def differs(self) -> bool:
        return self.stored != self.recounted


@dataclass(frozen=True, slots=True)
class SampleLine:
    """A stored hour that differed when it was compared."""

    customer_id: str
    hour: datetime
    dimensions: str
    value_hash: str
    lines: list[StateLine]
    missing: bool
    extra: bool
    records_url: str


class DriftPages(ActAdmin):
    """Pages on drift, below the metrics' own."""

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("drift/", view(self.drift_view), name="metrics_metric_drift"),
            path("drift/<int:object_id>/rebuild/", view(self.rebuild_view), name="metrics_metric_rebuild"),
            *super().get_urls(),
        ]

    def drift_view(self, request: HttpRequest) -> HttpResponse:
        """Show what differs and what was checked, of all metrics or of one (`metric`); check one now (POST)."""
        if not may_work(request):
            raise PermissionDenied
        form = CheckForm(
            request.POST if request.method == "POST" else None, user=person(request), initial=_asked_for(request)
        )
        if form.is_bound:
            checks = form.perform()
            if checks:
                return self._checked(request, form, checks)
        chosen = self.get_queryset(request).filter(pk=_id(request.GET.get("metric", ""))).first()
        metrics = list(_with_newest_check(active_metrics_of(person(request)))[:METRICS_SHOWN])
        found = differing([metric.pk for metric in metrics])
        context = {
            "title": "Drift",
            "crumbs": [],
            "form": form,
            "chosen": chosen,
            "several": len({metric.organisation_id for metric in metrics}) > 1,
            "differing": shown_spans(found),
            "differing_ids": {one.metric.pk for one in found},
            "metrics": [MetricFreshness(metric, rebuild_progress(metric)) for metric in metrics],
            **self._checks(request, chosen),
        }
        return self.render_page(request, "admin/metrics/drift.html", context)

    def rebuild_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """Ask whether to compute a metric's stored hours anew, and have it done."""
        if not may_work(request):
            raise PermissionDenied
        metric = active_metrics_of(person(request)).filter(pk=object_id).first()
        if metric is None:
            raise Http404("There is no such active metric.")
        if request.method == "POST":
            if request_rebuild(metric.pk):
                self.log_change(request, metric, "Rebuild requested.")
                messages.success(
                    request, f"“{metric}” is being rebuilt in the background. Where it differed is compared again then."
                )
            else:
                messages.warning(request, f"“{metric}” is not active any more: there is nothing to rebuild.")
            return HttpResponseRedirect(_page_of(metric))
        context = {
            "title": f"Rebuild {metric}",
            "original": metric,
            "crumbs": [("Drift", _page_of(metric))],
            "state": MetricFreshness(metric, rebuild_progress(metric)),
            "back_url": _page_of(metric),
            "differing": differing([metric.pk]),
        }
        return self.render_page(request, "admin/metrics/drift_rebuild.html", context)

    def _checked(self, request: HttpRequest, form: CheckForm, checks: list[DriftCheck]) -> HttpResponse:
        """Tell what was found; where the time was over, offer to go on from there."""
        metric = form.cleaned_data["metric"]
        self.log_change(request, metric, "Compared with the records.")
        start, reached = checks[0].start, checks[-1].end
        compared = sum(check.windows for check in checks)
        differences = sum(check.differences for check in checks)
        what = f"“{metric}” from {start:%Y-%m-%d} until {reached:%Y-%m-%d}: {compared:,} stored hours were compared"
        if differences:
            messages.error(request, f"{what}, {differences:,} row{' differs' if differences == 1 else 's differ'}.")
        else:
            messages.success(request, f"{what}, nothing differs.")
        if reached < form.end_moment:
            messages.warning(request, "The time was over before the end: check again to go on from there.")
            more = {"start": f"{reached:%Y-%m-%d}", "end": form.cleaned_data["end"].isoformat()}
            return HttpResponseRedirect(f"{_page_of(metric)}&{urlencode(more)}")
        return HttpResponseRedirect(_page_of(metric))

    def _checks(self, request: HttpRequest, chosen: Metric | None) -> dict[str, Any]:
        own = [chosen.pk] if chosen else list(self.get_queryset(request).values_list("pk", flat=True))
        found = DriftCheck.objects.filter(metric__in=own).select_related("metric__organisation").order_by("-pk")
        before = _id(request.GET.get("before", ""))
        if before:
            found = found.filter(pk__lt=before)
        checks = list(found[: CHECKS_SHOWN + 1])
        shown = checks[:CHECKS_SHOWN]
        following = {**({"metric": chosen.pk} if chosen else {}), "before": shown[-1].pk if shown else 0}
        return {
            "checks": [
                (check, span_in_words(check.start, check.end), [sample_line(check, sample) for sample in check.samples])
                for check in shown
            ],
            "opened": next((check.pk for check in shown if check.differences), None),
            "first_page": not before,
            "next_url": f"?{urlencode(following)}" if len(checks) > CHECKS_SHOWN else "",
        }


def shown_spans(found: Sequence[DifferingMetric]) -> list[tuple[DifferingMetric, str, int]]:
    """Return each metric with its newest spans in words, and how many more there are."""
    lines = []
    for one in found:
        spans = ", ".join(span_in_words(span.start, span.end) for span in one.found[:SPANS_SHOWN])
        lines.append((one, spans, max(0, len(one.found) - SPANS_SHOWN)))
    return lines


def span_in_words(start: datetime, end: datetime) -> str:
    """Return a span as people write it: a day, first and last day, or hours (UTC)."""
    start, end = start.astimezone(UTC), end.astimezone(UTC)
    if start.hour or end.hour:
        return f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}"
    last = end - HOUR
    return f"{start:%Y-%m-%d}" if last.date() == start.date() else f"{start:%Y-%m-%d} to {last:%Y-%m-%d}"


def sample_line(check: DriftCheck, sample: dict[str, Any]) -> SampleLine:
    """Return a recorded difference as the page shows it, with the way to the records of that hour."""
    hour = datetime.fromisoformat(sample["window_start"])
    stored, recounted = sample["stored"], sample["recounted"]
    state = recounted or stored or {}
    names = [field.attname for field in MetricAggregate._meta.fields if field.attname in state]
    query = {
        "usage_event": check.metric.usage_event_id,
        "customer_id": sample["customer_id"],
        "after": iso_utc(hour),
        "before": iso_utc(hour + HOUR),
    }
    return SampleLine(
        customer_id=sample["customer_id"] or "",
        hour=hour,
        dimensions=", ".join(_dimension(part) for part in sample["dimensions"]),
        value_hash=sample.get("value_hash", ""),
        lines=[StateLine(name.replace("_", " "), _text(stored, name), _text(recounted, name)) for name in names],
        missing=stored is None,
        extra=recounted is None,
        records_url=f"{reverse('admin:usage_usagerecord_changelist')}?{urlencode(query)}",
    )


def _dimension(part: Any) -> str:
    """Stored hours tell null and missing apart."""
    return {"[]": "missing", "null": "null"}.get(dumps(part)) or dimension_text(part)


def _text(state: dict[str, Any] | None, name: str) -> str:
    if state is None:
        return ""
    value = state[name]
    return value if isinstance(value, str) else dumps(value)


def _with_newest_check(metrics: QuerySet[Metric]) -> QuerySet[Metric]:
    checks = DriftCheck.objects.filter(metric=OuterRef("pk")).order_by("-checked_at")
    return metrics.annotate(newest_check=Subquery(checks.values("checked_at")[:1]))


def _asked_for(request: HttpRequest) -> dict[str, Any]:
    """What the form begins with: the last weeks, unless the address says more."""
    until = closed_until()
    given = {name: request.GET[name] for name in ("metric", "start", "end") if request.GET.get(name)}
    return {"start": (until - RECENT).date().isoformat(), "end": until.date().isoformat(), **given}


def _page_of(metric: Metric) -> str:
    return f"{reverse('admin:metrics_metric_drift')}?{urlencode({'metric': metric.pk})}"


def _id(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def _sentence(error: Exception) -> str:
    return f"{str(error)[:1].upper()}{str(error)[1:]}"
