"""The builders of metrics, visual and in SQL: pages for drafts and new versions, tried out while they are filled in."""

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, JsonResponse
from django.template.loader import render_to_string
from django.urls import URLPattern, path, reverse

from customers.admin_access import may_work, person
from customers.admin_acts import ActAdmin, ActForm
from metrics.admin.previews import Preview, chart_of, errors_of, preview_of
from metrics.builder_forms import BuilderForm, counting_the_same
from metrics.definition_forms import DefinitionForm
from metrics.models import Metric
from metrics.preview_forms import PreviewForm
from metrics.sql_forms import PLACEHOLDERS, SqlForm
from metrics.words import formula_in_words

BUILDER, SQL = "admin/metrics/builder.html", "admin/metrics/sql.html"
RESULT = "admin/metrics/preview.html"
# The name of the button that looks without saving.
LOOK = "preview"


class BuilderPages(ActAdmin):
    """Pages that define; what is published is MetricAdmin's."""

    def builder_urls(self) -> list[URLPattern]:
        """Return the addresses of these pages, below the metrics' own."""
        view = self.admin_site.admin_view
        return [
            path("add-sql/", view(self.add_sql_view), name="metrics_metric_add_sql"),
            path("preview/", view(self.preview_view), name="metrics_metric_preview"),
            path("<int:object_id>/new-version/", view(self.new_version_view), name="metrics_metric_new_version"),
        ]

    def add_sql_view(self, request: HttpRequest) -> HttpResponse:
        """Define a metric as a SELECT."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        return self.definition_page(request, SqlForm, None)

    def new_version_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """Change the formula of a published metric, as its next version; go on with the one in preparation, if any."""
        metric = self.own_metric(request, object_id)
        versions = Metric.objects.filter(organisation_id=metric.organisation_id, code=metric.code)
        prepared = versions.filter(status__in=[Metric.Status.DRAFT, Metric.Status.BUILDING]).first()
        if prepared is not None:
            if prepared.pk != metric.pk:
                status = prepared.get_status_display().lower()
                messages.info(request, f"Version {prepared.version} is in preparation already: this is its {status}.")
            return self.redirect_to(prepared)
        in_force = versions.filter(status=Metric.Status.ACTIVE).first()
        return self.definition_page(request, definition_form_of(metric), metric, revising=in_force or metric)

    def definition_page(
        self,
        request: HttpRequest,
        form_class: type[DefinitionForm],
        metric: Metric | None,
        *,
        revising: Metric | None = None,
    ) -> HttpResponse:
        """Show the form; save what was posted, unless it was posted to be looked at only."""
        posted = request.POST if request.method == "POST" else None
        given = request.GET.dict() if posted is None and metric is None else None
        looking = posted is not None and LOOK in posted
        form = form_class(
            posted, user=person(request), instance=metric, revising=revising, naming=not looking, initial=given
        )
        if posted is not None and not looking:
            stored = form.perform()
            if stored is not None:
                return self.defined(request, form, stored, metric)
        return self.render_form(request, metric, form)

    def defined(
        self, request: HttpRequest, form: DefinitionForm, stored: Metric, before: Metric | None
    ) -> HttpResponse:
        """Log what was saved, and go on to the version that holds it."""
        if form.revising is not None and stored.pk == form.revising.pk:
            messages.info(request, f"The formula is that of version {stored.version} still: there is no new version.")
            return self.redirect_to(stored)
        if form.revising is None:
            return self.done(request, form, stored, added=before is None)
        self.log_addition(request, stored, [{"added": {}}])
        active = "Compare it with the version in force, then activate it."
        messages.success(request, f"Version {stored.version} of “{stored}” was added as a draft. {active}")
        return self.redirect_to(stored)

    def own_metric(self, request: HttpRequest, object_id: int) -> Metric:
        """Return a metric of the person's organisations; everything else is not there."""
        metric = self.get_object(request, str(object_id))
        if metric is None:
            raise Http404("There is no such metric.")
        return metric

    def preview_view(self, request: HttpRequest) -> HttpResponse:
        """Answer, as JSON for static/tallybook/metric_preview.js, what the posted definition would give."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not may_work(request):
            raise PermissionDenied
        form_class = SqlForm if "sql" in request.POST else BuilderForm
        form = form_class(request.POST, user=person(request), naming=False)
        asked = PreviewForm(request.POST)
        shown = preview_of(form, asked)
        return JsonResponse(
            {
                "html": render_to_string(RESULT, {"preview": shown}, request),
                "chart": chart_of(shown),
                "errors": errors_of(form, asked),
                "line": getattr(form, "mistake_line", None),
            }
        )

    def definition_context(self, request: HttpRequest, metric: Metric | None, form: DefinitionForm) -> dict[str, Any]:
        """Return what the builders' pages show beside the form's own fields."""
        looking = form.is_bound and LOOK in request.POST
        asked = PreviewForm(request.POST if looking else None)
        context = {
            "asked": asked,
            "preview": preview_of(form, asked) if looking else Preview(),
            "revising": form.revising,
            "preview_url": reverse("admin:metrics_metric_preview"),
            "words": formula_in_words(metric) if metric is not None else "",
        }
        if isinstance(form, SqlForm):
            return {**context, "tables": form.tables(), "placeholders": PLACEHOLDERS}
        assert isinstance(form, BuilderForm)
        same = counting_the_same(form.usage_events, but=form.instance)
        return {
            **context,
            "usage_events": form.usage_events,
            "catalog": form.catalog(),
            "same_records": [
                (usage_event, [(metric, formula_in_words(metric)) for metric in same[pk]])
                for pk, usage_event in form.usage_events.items()
                if same[pk]
            ],
        }


def definition_form_of(metric: Metric) -> type[DefinitionForm]:
    """Return the form that a metric was defined with."""
    return SqlForm if metric.sql else BuilderForm


def template_of(form: ActForm) -> str:
    """Return the page of a definition's form."""
    return SQL if isinstance(form, SqlForm) else BUILDER
