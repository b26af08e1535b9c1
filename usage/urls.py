"""Where usage is posted, and the API of its definitions."""

from django.urls import path
from rest_framework.routers import SimpleRouter

from usage.views import UsageEventViewSet, UsageIngestViewSet

router = SimpleRouter()
router.trailing_slash = "/?"
router.register("api/usage-events", UsageEventViewSet, basename="usage-event")

urlpatterns = [
    path("usage/<slug:slug>", UsageIngestViewSet.as_view({"post": "create"}), name="ingest"),
    *router.urls,
]
