"""The API of metrics and quantities."""

from rest_framework.routers import SimpleRouter

from metrics.views import MetricViewSet

router = SimpleRouter()
router.trailing_slash = "/?"
router.register("api/metrics", MetricViewSet, basename="metric")

urlpatterns = router.urls
