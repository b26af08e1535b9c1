"""The versions of a metric: what differs between two, in words and in quantities, and how far a build has come."""

from dataclasses import dataclass
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import URLPattern, path

from customers.admin_access import may_work
from metrics.admin.building import BuilderPages
from metrics.comparison import Comparison, compare
from metrics.definition_forms import sentence
from metrics.models import Metric
from metrics.periods import PeriodError
from metrics.preview_forms import ComparisonForm
from metrics.quantity_forms import refuse_short_window
from metrics.questions import NotActive, TookTooLong, UnknownCustomer
from metrics.sql_text import SqlError
from metrics.versions import build_progress
from metrics.words import changes_in_words, formula_in_words

VERSIONS_SHOWN = 50
ROWS_SHOWN = 500


@dataclass(frozen=True, slots=True)
class VersionLine:
    """A version as the list of versions shows it."""

    metric: Metric
    words: str
    shown: bool


class VersionPages(BuilderPages):
    """Pages about several versions of one metric."""

    def version_urls(self) -> list[URLPattern]:
        """Return the addresses of these pages, below the metrics' own."""
        view = self.admin_site.admin_view
        return [
            path("<int:object_id>/compare/", view(self.compare_view), name="metrics_metric_compare"),
            path("<int:object_id>/progress/", view(self.progress_view), name="metrics_metric_progress"),
        ]

    def compare_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """Compare a version with the one in force, or with another one (`with`): definition, then quantities."""
        if not may_work(request):
            raise PermissionDenied
        metric = self.own_metric(request, object_id)
        versions = versions_of(metric)
        old = _other(versions, metric, request.GET.get("with", ""))
        form = ComparisonForm(request.GET, metric=metric)
        comparison, problem = None, ""
        if old is not None and form.is_valid():
            for version in (old, metric):
                refuse_short_window(form, "window", version)
        if old is not None and form.is_valid():
            comparison, problem = _compared(old, metric, form)
        context = {
            "title": f"Compare version {metric.version}",
            "original": metric,
            "form": form,
            "old": old,
            "others": [version for version in versions if version.pk != metric.pk],
            "changes": changes_in_words(old, metric) if old else [],
            "comparison": comparison,
            "rows": comparison.changed_first[:ROWS_SHOWN] if comparison else [],
            "more_rows": max(0, len(comparison.rows) - ROWS_SHOWN) if comparison else 0,
            "problem": problem,
            "draft": metric.status == Metric.Status.DRAFT,
        }
        return self.render_page(request, "admin/metrics/compare.html", context)

    def progress_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """Answer how far a build has come as JSON, for static/tallybook/metric_progress.js."""
        return JsonResponse(progress_of(self.own_metric(request, object_id)))


def versions_of(metric: Metric) -> list[Metric]:
    """Return the versions of a metric, the newest first."""
    same = Metric.objects.filter(organisation_id=metric.organisation_id, code=metric.code)
    return list(same.select_related("usage_event", "organisation").order_by("-version")[:VERSIONS_SHOWN])


def version_lines(metric: Metric) -> list[VersionLine]:
    """Return the versions with their formulas in words."""
    return [VersionLine(version, formula_in_words(version), version.pk == metric.pk) for version in versions_of(metric)]


def progress_of(metric: Metric) -> dict[str, Any]:
    """Return whether a metric is being built, and the share of it that is done, in percent."""
    building = metric.status == Metric.Status.BUILDING
    share = build_progress(metric) if building else None
    return {"building": building, "percent": int((share or 0) * 100) if building else 100}


def _other(versions: list[Metric], metric: Metric, wanted: str) -> Metric | None:
    """The version to compare with: the one asked for, else the one in force, else the one before."""
    others = [version for version in versions if version.pk != metric.pk]
    chosen = [version for version in others if str(version.version) == wanted]
    active = [version for version in others if version.status == Metric.Status.ACTIVE]
    earlier = [version for version in others if version.version < metric.version]
    return next(iter([*chosen, *active, *earlier]), None)


def _compared(old: Metric, new: Metric, form: ComparisonForm) -> tuple[Comparison | None, str]:
    try:
        return compare(old, new, form.question()), ""
    except UnknownCustomer as error:
        form.add_error("customer_id", f"There is no customer “{error}”.")
    except PeriodError as error:
        form.add_error("end", sentence(str(error)))
    except TookTooLong as error:
        return None, sentence(str(error))
    except SqlError as error:
        return None, sentence(str(error))
    except NotActive:
        return None, "Another version came into force at this moment. Compare again."
    return None, ""
