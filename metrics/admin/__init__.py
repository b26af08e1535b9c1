"""The admin pages of metrics: their definitions, and their quantities."""

from metrics.admin.metrics import MetricAdmin

__all__ = ["MetricAdmin"]
