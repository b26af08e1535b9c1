"""The app's name and label for Django."""

from django.apps import AppConfig


class UsageConfig(AppConfig):
    name = "usage"
