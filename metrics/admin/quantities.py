"""The page of quantities: a metric's answer as a chart and a table, each number a click away from its explanation."""

import tempfile
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlencode

from django.core.exceptions import PermissionDenied
from django.http import FileResponse, HttpRequest, HttpResponse, QueryDict
from django.urls import URLPattern, path, reverse

from customers.admin_access import may_work, person
from customers.templatetags.tallybook_admin import iso_utc
from metrics.admin.explanations import ExplanationPages, asked_of, asked_text
from metrics.admin.quantity_charts import chart_of, dimension_text
from metrics.dimension_forms import address_of
from metrics.drift import differing
from metrics.exactly import exact_total
from metrics.formulas import ADDITIVE
from metrics.models import Metric
from metrics.quantities import quantities
from metrics.quantity_export import export_quantities
from metrics.quantity_forms import QuantitiesForm
from metrics.questions import Answer, Exactly, Quantity, Question
from metrics.words import formula_in_words

TEMPLATE = "admin/metrics/quantities.html"
ROWS_SHOWN = 2_000
# Kept in memory up to this size, beyond it in a file that is gone when it was sent.
BYTES_IN_MEMORY = 1_000_000

Found = TypeVar("Found")


class QuantityPages(ExplanationPages):
    """What the admin of metrics shows of their quantities; MetricAdmin brings the rest."""

    def quantity_urls(self) -> list[URLPattern]:
        """Return the addresses of these pages, below the metrics' own."""
        view = self.admin_site.admin_view
        return [
            path("quantities/", view(self.quantities_view), name="metrics_metric_quantities"),
            path("quantities/csv/", view(self.quantities_csv_view), name="metrics_metric_quantities_csv"),
            *self.explanation_urls(),
        ]

    def quantities_view(self, request: HttpRequest) -> HttpResponse:
        """Answer what was asked of a metric, each number with a link to how it came about."""
        if not may_work(request):
            raise PermissionDenied
        form = QuantitiesForm(request.GET, user=person(request))
        answer, problem = _asked(form, lambda metric: quantities(metric.organisation_id, metric.code, form.question()))
        return self._page(request, form, answer, problem)

    def quantities_csv_view(self, request: HttpRequest) -> FileResponse | HttpResponse:
        """Send what was asked for as CSV, of all customers; what is wrong with the question is told on the page."""
        if not may_work(request):
            raise PermissionDenied
        form = QuantitiesForm(request.GET, user=person(request))
        file = tempfile.SpooledTemporaryFile(BYTES_IN_MEMORY)  # noqa: SIM115  the response closes it
        written, problem = _asked(
            form,
            lambda metric: export_quantities(metric.organisation_id, metric.code, form.question(), file) + 1,
        )
        if not written:
            file.close()
            return self._page(request, form, None, problem)
        file.seek(0)
        asked = form.cleaned_data
        name = f"{asked['metric'].code}_{asked['start']}_{asked['end']}.csv"
        response = FileResponse(file, as_attachment=True, filename=name, content_type="text/csv; charset=utf-8")
        response["X-Content-Type-Options"] = "nosniff"
        return response

    def _page(self, request: HttpRequest, form: QuantitiesForm, answer: Answer | None, problem: str) -> HttpResponse:
        context = {"title": "Quantities", "form": form, "answer": answer, "crumbs": []}
        context |= {"not_active": problem} if problem in Metric.Status.values else {"problem": problem}
        if answer:
            context |= answer_context(request, form, answer)
        elif form.is_bound:
            context["metric"] = form.cleaned_data.get("metric")
        return self.render_page(request, TEMPLATE, context)


def _asked(form: QuantitiesForm, ask: Callable[[Metric], Found]) -> tuple[Found | None, str]:
    if not (form.is_bound and form.is_valid()):
        return None, ""
    return asked_of(form, lambda: ask(form.cleaned_data["metric"]))


def answer_context(request: HttpRequest, form: QuantitiesForm, answer: Answer) -> dict[str, Any]:
    """Return what the page shows of an answer: rows with links to how they came about, and totals that add up."""
    question, metric = form.question(), answer.metric
    chart = chart_of(answer, question)
    query = _query_of(request.GET)
    return {
        "metric": metric,
        "drifted": bool(differing([metric.pk])),
        "words": formula_in_words(metric),
        "question": question,
        "rows": [_row(row, question, metric) for row in answer.rows[:ROWS_SHOWN]],
        "more_rows": max(0, len(answer.rows) - ROWS_SHOWN),
        "additive": metric.aggregation in ADDITIVE,
        "total": exact_total([row.quantity for row in answer.rows]) if metric.aggregation in ADDITIVE else None,
        "total_records": sum(row.record_count for row in answer.rows),
        "customer_count": len({row.customer_id for row in answer.rows}),
        "chart": chart,
        "first_url": f"?{query.urlencode()}",
        "next_url": f"?{_with(query, after=answer.next)}" if answer.next is not None else "",
        "first_page": not question.after,
        "csv_url": f"{reverse('admin:metrics_metric_quantities_csv')}?{query.urlencode()}",
    }


def _query_of(given: QueryDict) -> QueryDict:
    """The question as it stands in the address, from the first page on."""
    query = given.copy()
    query.pop("after", None)
    return query


def _with(query: QueryDict, **more: Any) -> str:
    changed = query.copy()
    for name, value in more.items():
        changed[name] = str(value)
    return changed.urlencode()


def _row(row: Quantity, question: Question, metric: Metric) -> dict[str, Any]:
    values = [row.dimensions.get(name) for name in question.group_by]
    return {
        "quantity": row,
        "dimensions": [dimension_text(value) for value in values],
        "explain_url": explain_url(row, question, metric),
    }


def explain_url(row: Quantity, question: Question, metric: Metric) -> str:
    """Return the address of the page that explains a row; "" where the SQL's columns cannot be asked for by text."""
    wanted = {name: tuple(values) for name, values in question.filter_by.items()}
    for name in question.group_by:
        value = row.dimensions.get(name)
        text = asked_text(value) if metric.sql else Exactly(value)
        if text is None:
            return ""
        wanted[name] = (text,)
    query = {
        "metric": metric.pk,
        "customer_id": row.customer_id,
        "start": iso_utc(row.start),
        "end": iso_utc(row.end),
        "timezone": question.zone.key,
        **address_of(wanted),
    }
    return f"{reverse('admin:metrics_metric_explain')}?{urlencode(query, doseq=True)}"
