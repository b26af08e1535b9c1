"""The project: settings, URLs, processes. Nothing imports from here but Django and Celery."""

from config.celery import app as celery_app

__all__ = ["celery_app"]
