"""The app's name and label for Django."""

from django.apps import AppConfig


class MetricsConfig(AppConfig):
    name = "metrics"
