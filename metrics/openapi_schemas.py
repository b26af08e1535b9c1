"""What the OpenAPI document shows of metrics and quantities: the answers' fields, and examples."""

from typing import Any

from rest_framework import serializers

from metrics.models import Aggregation, Metric, Rounding, SqlWindow

METRIC = {
    "code": "cpu_hours",
    "name": "CPU hours",
    "unit": "hours",
    "usage_event": "compute_hours",
    "aggregation": "sum",
    "property": "cpu_usage_hours",
    "filters": {"all": [{"property": "region", "operator": "ne", "value": "test"}]},
    "group_by": ["region"],
    "rounding": {"mode": "half_up", "digits": 2},
}
STORED_METRIC = {**METRIC, "version": 1, "status": "draft"}
CHANGED_METRIC = {
    **STORED_METRIC,
    "version": 2,
    "filters": {"any": [{"property": "region", "operator": "exists", "value": True}]},
}
SQL_METRIC = {
    "code": "busiest_hour",
    "name": "Hours of the busiest hour",
    "unit": "hours",
    "sql": "SELECT customer_id, max(hours) AS quantity FROM (SELECT customer_id, date_trunc('hour', timestamp), "
    "sum(cpu_usage_hours) AS hours FROM compute_hours WHERE timestamp >= {{start_date}} AND timestamp < {{end_date}} "
    "GROUP BY 1, 2) AS by_hour GROUP BY 1",
    "window": "month",
}
PERIOD = {"start": "2025-06-01T00:00:00Z", "end": "2025-07-01T00:00:00Z"}
QUANTITY = {"customer_id": "cus_123", **PERIOD, "dimensions": {"region": "eu"}, "quantity": "325", "record_count": 2}
QUANTITIES = {
    "metric": "cpu_hours",
    "version": 1,
    **PERIOD,
    "timezone": "UTC",
    "quantities": [QUANTITY],
    "as_of": "2025-06-17T14:03:13.120Z",
    "next": None,
}
COMPARED = {
    "metric": "cpu_hours",
    "old_version": 1,
    "new_version": 2,
    **PERIOD,
    "timezone": "UTC",
    "quantities": [{"customer_id": "cus_123", **PERIOD, "old": "325", "new": "320", "difference": "-5"}],
    "changed": 1,
    "as_of": "2025-06-17T14:03:13.120Z",
    "complete": True,
}
PREVIEW = {
    "metric": {
        "usage_event": "compute_hours",
        "aggregation": "percentile",
        "property": "cpu_usage_hours",
        "percentile": "95",
    },
    "start": "2025-06-01",
    "end": "2025-07-01",
    "customer_id": ["cus_123"],
}


class RoundingAnswerSerializer(serializers.Serializer[Any]):
    """How a quantity is rounded, at the very end."""

    mode = serializers.ChoiceField(choices=Rounding.choices)
    digits = serializers.IntegerField()


class MetricAnswerSerializer(serializers.Serializer[Any]):
    """A version of a metric. Parts that it does not have are left out; `progress` is there while it is being built."""

    code = serializers.CharField()
    version = serializers.IntegerField()
    name = serializers.CharField()
    unit = serializers.CharField()
    usage_event = serializers.CharField(required=False)
    aggregation = serializers.ChoiceField(choices=Aggregation.choices, required=False)
    property = serializers.CharField(required=False)
    expression = serializers.CharField(required=False)
    percentile = serializers.CharField(required=False)
    filters = serializers.DictField(required=False)
    group_by = serializers.ListField(child=serializers.CharField(), required=False)
    rounding = RoundingAnswerSerializer(required=False)
    sql = serializers.CharField(required=False)
    window = serializers.ChoiceField(choices=SqlWindow.choices, required=False)
    status = serializers.ChoiceField(choices=Metric.Status.choices)
    progress = serializers.FloatField(required=False, min_value=0, max_value=1)


class QuantitySerializer(serializers.Serializer[Any]):
    """A quantity of one customer over one window; a string, so that no client rounds it."""

    customer_id = serializers.CharField()
    start = serializers.DateTimeField()
    end = serializers.DateTimeField()
    dimensions = serializers.DictField()
    quantity = serializers.CharField(allow_null=True)
    record_count = serializers.IntegerField(allow_null=True, help_text="Null for a metric of SQL.")


class AnsweredPeriodSerializer(serializers.Serializer[Any]):
    """The period that was asked for, as instants, and the moment at which the answer held."""

    start = serializers.DateTimeField()
    end = serializers.DateTimeField()
    timezone = serializers.CharField()
    as_of = serializers.DateTimeField()


class AnswerSerializer(AnsweredPeriodSerializer):
    """The quantities of a period, as of one snapshot."""

    metric = serializers.CharField()
    version = serializers.IntegerField()
    quantities = QuantitySerializer(many=True)
    next = serializers.CharField(allow_null=True)


class PreviewAnswerSerializer(AnsweredPeriodSerializer):
    """The quantities that a definition would give; `next` is the cursor of the next page."""

    metric = serializers.CharField(allow_null=True)
    version = serializers.IntegerField(allow_null=True)
    quantities = QuantitySerializer(many=True)
    next = serializers.IntegerField(allow_null=True)


class ComparedSerializer(serializers.Serializer[Any]):
    """What both versions give one customer over one window; null is no value."""

    customer_id = serializers.CharField()
    start = serializers.DateTimeField()
    end = serializers.DateTimeField()
    old = serializers.CharField(allow_null=True)
    new = serializers.CharField(allow_null=True)
    difference = serializers.CharField(allow_null=True)


class ComparisonSerializer(AnsweredPeriodSerializer):
    """Two versions of a metric; `complete` says whether every customer is among the quantities."""

    metric = serializers.CharField()
    old_version = serializers.IntegerField()
    new_version = serializers.IntegerField()
    quantities = ComparedSerializer(many=True)
    changed = serializers.IntegerField()
    complete = serializers.BooleanField()
