"""The admin pages of usage: usage events, usage records, the batches they came in, and the quarantine."""

from usage.admin.batches import IngestBatchAdmin
from usage.admin.records import UsageRecordAdmin
from usage.admin.rejected import RejectedRecordAdmin
from usage.admin.uploads import UploadAdmin
from usage.admin.usage_events import UsageEventAdmin

__all__ = ["IngestBatchAdmin", "RejectedRecordAdmin", "UploadAdmin", "UsageEventAdmin", "UsageRecordAdmin"]
