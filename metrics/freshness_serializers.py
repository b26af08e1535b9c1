"""Freshness on the wire: what of each usage event waits for a fold, the last fold, and its metrics."""

from typing import Any

from rest_framework import serializers

from customers.api import InstantField, KnownFieldsOnly
from metrics.freshness import COUNTED
from metrics.models import FoldReport, Metric
from usage.models import UsageEvent

MAX_SLUG = 100


class FreshnessQuerySerializer(KnownFieldsOnly):
    """What the list may be cut down to."""

    usage_event = serializers.CharField(required=False, max_length=MAX_SLUG, help_text="A usage event's slug.")
    cursor = serializers.CharField(required=False)
    page_size = serializers.CharField(required=False)

    def validate_usage_event(self, slug: str) -> UsageEvent:
        """Return the organisation's usage event of that slug."""
        usage_event = UsageEvent.objects.filter(organisation_id=self.context["organisation_id"], slug=slug).first()
        if usage_event is None:
            raise serializers.ValidationError(f"the slug of a usage event was expected, got '{slug}'")
        return usage_event


class FoldReportSerializer(serializers.ModelSerializer[FoldReport]):
    """The last fold that found something to do: when it ended, how long it took, what it took in."""

    at = InstantField(source="folded_at")

    class Meta:
        model = FoldReport
        fields = ("at", "milliseconds", "batches", "records", "windows")
        read_only_fields = fields


class MetricFreshnessSerializer(serializers.Serializer[Any]):
    """A version that is in force or being built; `progress` of a build or a rebuild."""

    code = serializers.CharField(source="metric.code")
    version = serializers.IntegerField(source="metric.version")
    status = serializers.ChoiceField(source="metric.status", choices=[Metric.Status.ACTIVE, Metric.Status.BUILDING])
    rebuilding = serializers.BooleanField()
    progress = serializers.FloatField(allow_null=True, min_value=0, max_value=1)


class FreshnessSerializer(serializers.Serializer[Any]):
    """What of a usage event is not in the stored hours yet. Quantities count all of it already."""

    usage_event = serializers.CharField(source="usage_event.slug")
    pending_batches = serializers.IntegerField(min_value=0, max_value=COUNTED, help_text=f"{COUNTED} may be more.")
    pending_records = serializers.IntegerField(min_value=0, help_text="The records of those batches.")
    oldest_pending_seconds = serializers.FloatField(allow_null=True, min_value=0)
    changed_windows = serializers.IntegerField(min_value=0, max_value=COUNTED, help_text=f"{COUNTED} may be more.")
    last_fold = FoldReportSerializer(allow_null=True)
    metrics = MetricFreshnessSerializer(many=True)
