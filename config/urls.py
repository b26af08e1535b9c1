"""Where every address of the project leads."""

from typing import NoReturn

from django.contrib import admin
from django.http import Http404, HttpRequest
from django.urls import include, path
from django.views.generic import RedirectView

from config.health import healthz, readyz
from config.openapi import ApiPageView, ApiSchemaView


def not_used(request: HttpRequest, **address: str) -> NoReturn:
    raise Http404("Nothing is at this address.")


urlpatterns = [
    path("", include("usage.urls")),  # first, because nothing is asked for as often as ingestion
    path("", RedirectView.as_view(url="/admin/")),
    # Not used here, and a fault for some input: the theme's search, Django's "view on site".
    path("admin/search/", not_used),
    path("admin/r/<path:anything>", not_used),
    path("admin/", admin.site.urls),
    path("healthz", healthz),
    path("readyz", readyz),
    path("api/schema/", ApiSchemaView.as_view(), name="schema"),
    path("api/docs/", ApiPageView.as_view(url_name="schema"), name="docs"),
    path("", include("customers.urls")),
    path("", include("metrics.urls")),
]

handler404 = "customers.api.not_found"
handler500 = "customers.api.fault"
