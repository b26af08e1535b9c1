"""The API of metrics and quantities."""

from rest_framework.routers import SimpleRouter

from metrics.views.definitions import MetricViewSet
from metrics.views.explanations import ExplanationViewSet, RecordMetricsViewSet
from metrics.views.materialization import MaterializationViewSet
from metrics.views.quantities import QuantityViewSet

router = SimpleRouter()
router.trailing_slash = "/?"
# Before the definitions, whose codes would take in `preview`.
router.register("api/metrics", QuantityViewSet, basename="metric-quantity")
router.register("api/metrics", MetricViewSet, basename="metric")
router.register("api/metrics", ExplanationViewSet, basename="metric-explanation")
router.register("api/usage-records", RecordMetricsViewSet, basename="record-metrics")
router.register("api/materialization", MaterializationViewSet, basename="materialization")

urlpatterns = router.urls
