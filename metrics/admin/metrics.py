"""Metrics in the admin: listed, defined, activated, renamed."""

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from unfold.decorators import display

from customers.admin_access import person
from customers.admin_acts import ActForm
from metrics.admin.building import definition_form_of, template_of
from metrics.admin.drift import DriftPages
from metrics.admin.freshness import FreshnessPages
from metrics.admin.quantities import QuantityPages
from metrics.admin.versions import VersionPages, progress_of, version_lines
from metrics.builder_forms import BuilderForm
from metrics.definition_forms import DefinitionForm
from metrics.definitions import NotADraft, activate_metric
from metrics.drift import differing
from metrics.forms import PublishedMetricForm
from metrics.models import Metric
from metrics.sql_forms import SqlForm
from metrics.words import formula_in_words

PUBLISHED = "admin/metrics/metric_form.html"
# What only a builder posts.
FORMULA = {*BuilderForm.formula, *SqlForm.formula}


@admin.register(Metric)
class MetricAdmin(DriftPages, FreshnessPages, QuantityPages, VersionPages):
    add_act_form = BuilderForm
    change_act_form = PublishedMetricForm
    change_list_template = "admin/metrics/change_list.html"
    add_title = "Add metric"
    empty_icon = "calculate"
    empty_text = (
        "A metric turns usage records into a billable quantity: how many there were, the sum of a number in them, "
        "a percentile, and more."
    )
    list_display = ("name", "code_", "source", "calculation", "status_", "version")
    list_select_related = ("usage_event", "organisation")
    ordering = ("name", "-version")
    search_fields = ("name", "code")
    search_help_text = "Name or code"
    actions = ("activate",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Metric]:
        return super().get_queryset(request).select_related("usage_event", "organisation")

    def get_urls(self) -> list[URLPattern]:
        activate = self.admin_site.admin_view(self.activate_view)
        return [
            *self.quantity_urls(),
            *self.builder_urls(),
            *self.version_urls(),
            path("<int:object_id>/activate/", activate, name="metrics_metric_activate"),
            *super().get_urls(),
        ]

    @display(description="Code", ordering="code")
    def code_(self, metric: Metric) -> str:
        return format_html('<code class="tb-inline">{}</code>', metric.code)

    @display(description="Source", ordering="usage_event__name")
    def source(self, metric: Metric) -> str:
        return str(metric.usage_event) if metric.usage_event else "SQL"

    @display(description="Calculation")
    def calculation(self, metric: Metric) -> str:
        return format_html('<span class="tb-formula">{}</span>', formula_in_words(metric))

    @display(
        description="Status",
        ordering="status",
        label={"Active": "success", "Building": "info", "Draft": "warning", "Retired": ""},
    )
    def status_(self, metric: Metric) -> str:
        return metric.get_status_display()

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """The builder for what is no more than a draft; the name and the unit of what is published."""
        if object_id is None:
            if not self.has_add_permission(request):
                raise PermissionDenied
            return self.definition_page(request, BuilderForm, None)
        metric = self.own_or_404(request, object_id)
        if isinstance(metric, Metric) and metric.status == Metric.Status.DRAFT:
            if request.method == "POST" and not self.has_change_permission(request, metric):
                raise PermissionDenied
            return self.definition_page(request, definition_form_of(metric), metric)
        if isinstance(metric, Metric) and not FORMULA.isdisjoint(request.POST):
            # It was a draft when the builder was opened.
            messages.error(request, "Nothing was saved: this version was activated meanwhile, and its formula stays.")
            return self.redirect_to(metric)
        return super().changeform_view(request, object_id, form_url, extra_context)

    def make_form(self, request: HttpRequest, obj: Any, data: Any = None) -> ActForm:
        return self.change_act_form(data, user=person(request), instance=obj)

    def render_form(self, request: HttpRequest, obj: Any, form: ActForm) -> HttpResponse:
        """The page that goes with the form: a builder, or the page of a published metric."""
        context: dict[str, Any] = {"original": obj, "form": form, "title": str(obj) if obj else self.add_title}
        if obj is not None:
            context |= self._about(obj)
        if not isinstance(form, DefinitionForm):
            return self.render_page(request, PUBLISHED, context)
        context |= self.definition_context(request, obj, form)
        if form.revising is not None:
            context["title"] = "New version"
        return self.render_page(request, template_of(form), context)

    def _about(self, metric: Metric) -> dict[str, Any]:
        versions = version_lines(metric)
        others = [line.metric for line in versions if not line.shown]
        return {
            "words": formula_in_words(metric),
            "draft": metric.status == Metric.Status.DRAFT,
            "building": metric.status == Metric.Status.BUILDING,
            "progress": progress_of(metric),
            "drifted": bool(differing([metric.pk])),
            "versions": versions,
            "in_force": next((one for one in others if one.status == Metric.Status.ACTIVE), None),
            "prepared": next(
                (one for one in others if one.status in (Metric.Status.DRAFT, Metric.Status.BUILDING)), None
            ),
            "quantities_url": f"{reverse('admin:metrics_metric_quantities')}?metric={versions[0].metric.pk}",
        }

    def done_message(self, obj: Any, *, added: bool) -> str:
        return f"“{obj}” was added as a draft. Activate it to calculate quantities." if added else f"“{obj}” was saved."

    @admin.action(description="Activate: build from history")
    def activate(self, request: HttpRequest, metrics: QuerySet[Metric]) -> None:
        for metric in metrics:
            try:
                activated = activate_metric(metric.pk)
            except NotADraft:
                status = metric.get_status_display().lower()
                messages.warning(request, f"“{metric}” is {status}: only a draft can be activated.")
            else:
                self.log_change(request, metric, "Activated.")
                built = activated.status == Metric.Status.BUILDING
                then = "is being built from history, and becomes active by itself" if built else "is active"
                messages.success(request, f"“{metric}” {then}.")

    def activate_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        metric = self.get_queryset(request).filter(pk=object_id)
        if not metric:
            raise Http404("There is no such metric.")
        self.activate(request, metric)
        return self.redirect_to(metric[0])
