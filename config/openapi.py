"""The OpenAPI document of the whole API, and the page that shows it; both are open and hold nothing of any tenant."""

from drf_spectacular.renderers import OpenApiJsonRenderer2
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

import customers.openapi
import metrics.openapi
import metrics.openapi_materialization
import usage.openapi

# Imported for what they register: the descriptions of the views.
DESCRIBED = (customers.openapi, usage.openapi, metrics.openapi, metrics.openapi_materialization)


class ApiSchemaView(SpectacularAPIView):
    """/api/schema/: the document as JSON."""

    renderer_classes = [OpenApiJsonRenderer2]


class ApiPageView(SpectacularSwaggerSplitView):
    """/api/docs/: its page. The script is a file of its own, as the Content-Security-Policy asks."""
