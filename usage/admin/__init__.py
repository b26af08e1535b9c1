"""The admin pages of usage: usage events (the definitions) and usage records (the facts)."""

from usage.admin.records import UsageRecordAdmin
from usage.admin.usage_events import UsageEventAdmin

__all__ = ["UsageEventAdmin", "UsageRecordAdmin"]
