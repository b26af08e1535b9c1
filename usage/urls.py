"""Where usage is posted, and the API of what is stored and how it is defined."""

from django.urls import path, re_path
from rest_framework.routers import SimpleRouter

from usage.views.batches import IngestBatchViewSet
from usage.views.definitions import UsageEventViewSet
from usage.views.ingest import UsageIngestViewSet
from usage.views.records import UsageRecordViewSet
from usage.views.rejected import RejectedRecordsViewSet, RejectedRecordViewSet
from usage.views.uploads import UploadViewSet

router = SimpleRouter()
router.trailing_slash = "/?"
router.register("api/usage-events", UsageEventViewSet, basename="usage-event")
router.register("api/usage-records", UsageRecordViewSet, basename="usage-record")
router.register("api/rejected-records", RejectedRecordViewSet, basename="rejected-record")
router.register("api/ingest-batches", IngestBatchViewSet, basename="ingest-batch")
router.register("api/uploads", UploadViewSet, basename="upload")

urlpatterns = [
    path("usage/<slug:slug>", UsageIngestViewSet.as_view({"post": "create"}), name="ingest"),
    path("usage/<slug:slug>/records", UsageIngestViewSet.as_view({"get": "records"}), name="stored-records"),
    re_path("^api/rejected-records/replay/?$", RejectedRecordsViewSet.as_view({"post": "replay"}), name="replay-many"),
    re_path(
        "^api/rejected-records/discard/?$", RejectedRecordsViewSet.as_view({"post": "discard"}), name="discard-many"
    ),
    *router.urls,
]
