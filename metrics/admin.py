"""Metrics in the admin: defined, activated, and read as quantities."""

from decimal import Context, Decimal, Inexact
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from unfold.decorators import display

from customers.admin_access import may_work, person
from customers.admin_acts import ActAdmin, ActForm
from customers.templatetags.tallybook_admin import iso_utc
from metrics.definitions import NotADraft, activate_metric
from metrics.forms import MetricForm, PublishedMetricForm, QuantitiesForm
from metrics.models import Aggregation, Metric
from metrics.periods import PeriodError
from metrics.quantities import Answer, NotActive, Question, UnknownCustomer, quantities

# Enough digits for any total of numbers that ingestion takes; a sum that would be rounded is a fault, not a result.
EXACT = Context(prec=400, traps=[Inexact])
ADDITIVE = (Aggregation.COUNT, Aggregation.SUM)


@admin.register(Metric)
class MetricAdmin(ActAdmin):
    add_act_form = MetricForm
    act_template = "admin/metrics/metric_form.html"
    add_title = "Add metric"
    empty_icon = "calculate"
    empty_text = (
        "A metric turns usage records into a billable quantity: how many there were, or the sum of a number in them."
    )
    list_display = ("name", "code_", "usage_event", "calculation", "status_", "version")
    list_select_related = ("usage_event", "organisation")
    ordering = ("name", "-version")
    search_fields = ("name", "code")
    search_help_text = "Name or code"
    actions = ("activate",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Metric]:
        return super().get_queryset(request).select_related("usage_event", "organisation")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("quantities/", view(self.quantities_view), name="metrics_metric_quantities"),
            path("<int:object_id>/activate/", view(self.activate_view), name="metrics_metric_activate"),
            *super().get_urls(),
        ]

    @display(description="Code", ordering="code")
    def code_(self, metric: Metric) -> str:
        return format_html('<code class="tb-inline">{}</code>', metric.code)

    @display(description="Calculation")
    def calculation(self, metric: Metric) -> str:
        return calculation_of(metric)

    @display(
        description="Status",
        ordering="status",
        label={"Active": "success", "Building": "info", "Draft": "warning", "Retired": ""},
    )
    def status_(self, metric: Metric) -> str:
        return metric.get_status_display()

    def make_form(self, request: HttpRequest, obj: Any, data: Any = None) -> ActForm:
        if obj is None:
            return super().make_form(request, obj, data)
        form = MetricForm if obj.status == Metric.Status.DRAFT else PublishedMetricForm
        return form(data, user=person(request), instance=obj)

    def page_context(self, request: HttpRequest, obj: Any, form: ActForm) -> dict[str, Any]:
        if obj is None:
            return {"usage_events": getattr(form, "usage_events", {})}
        return {
            "calculation": calculation_of(obj),
            "draft": obj.status == Metric.Status.DRAFT,
            "building": obj.status == Metric.Status.BUILDING,
            "quantities_url": f"{reverse('admin:metrics_metric_quantities')}?metric={obj.pk}",
        }

    def done_message(self, obj: Any, *, added: bool) -> str:
        return f"“{obj}” was added as a draft. Activate it to calculate quantities." if added else f"“{obj}” was saved."

    @admin.action(description="Activate: build from history")
    def activate(self, request: HttpRequest, metrics: QuerySet[Metric]) -> None:
        for metric in metrics:
            try:
                activate_metric(metric.pk)
            except NotADraft:
                status = metric.get_status_display().lower()
                messages.warning(request, f"“{metric}” is {status}: only a draft can be activated.")
            else:
                self.log_change(request, metric, "Activated.")
                messages.success(request, f"“{metric}” is being built from history, and becomes active by itself.")

    def activate_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        metric = self.get_queryset(request).filter(pk=object_id)
        if request.method != "POST":
            raise PermissionDenied
        if not metric:
            raise Http404("There is no such metric.")
        self.activate(request, metric)
        return self.redirect_to(metric[0])

    def quantities_view(self, request: HttpRequest) -> HttpResponse:
        """Answer what was asked of a metric, with the records behind every number a click away."""
        if not may_work(request):
            raise PermissionDenied
        form = QuantitiesForm(request.GET, user=person(request))
        answer, not_active = None, ""
        if form.is_bound and form.is_valid():
            metric = form.cleaned_data["metric"]
            try:
                answer = quantities(metric.organisation_id, metric.code, form.question())
            except NotActive as error:
                not_active = error.status
            except UnknownCustomer as error:
                form.add_error("customer_id", f"There is no customer “{error}”.")
            except PeriodError as error:
                form.add_error("end", f"{str(error)[:1].upper()}{str(error)[1:]}.")
        context = {"title": "Quantities", "form": form, "answer": answer, "not_active": not_active, "crumbs": []}
        if answer:
            context |= answer_context(request, answer, form.question())
        elif form.is_bound:
            context["metric"] = form.cleaned_data.get("metric")
        return self.render_page(request, "admin/metrics/quantities.html", context)


def calculation_of(metric: Metric) -> str:
    """Return the formula in words."""
    return f"Sum of {metric.property}" if metric.aggregation == Aggregation.SUM else "Count of records"


def exact_total(values: list[Decimal | None]) -> Decimal:
    """Return the sum without rounding; what is None adds nothing."""
    total = Decimal(0)
    for value in values:
        if value is not None:
            total = EXACT.add(total, value)
    return total


def answer_context(request: HttpRequest, answer: Answer, question: Question) -> dict[str, Any]:
    """Return what the table of quantities shows: rows with links to their records, and totals that can be added."""
    records_url = reverse("admin:usage_usagerecord_changelist")
    rows = []
    for row in answer.rows:
        query = {
            "usage_event": answer.metric.usage_event_id,
            "customer_id": row.customer_id,
            "after": iso_utc(row.start),
            "before": iso_utc(row.end),
        }
        rows.append({"quantity": row, "records_url": f"{records_url}?{urlencode(query)}"})
    following = request.GET.copy()
    following["after"] = str(answer.next)
    return {
        "metric": answer.metric,
        "question": question,
        "rows": rows,
        "additive": answer.metric.aggregation in ADDITIVE,
        "total": exact_total([row.quantity for row in answer.rows]),
        "total_records": sum(row.record_count for row in answer.rows),
        "next_url": f"?{following.urlencode()}" if answer.next is not None else "",
        "first_page": not question.after,
    }
