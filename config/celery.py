"""The Celery application; its schedule is in the settings, its tasks in the apps."""

import os
from typing import Any

from celery import Celery
from celery.signals import task_postrun, task_prerun
from django.db import close_old_connections

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("tallybook")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@task_prerun.connect
@task_postrun.connect
def look_after_connections(**_: Any) -> None:
    """Close what is broken or older than CONN_MAX_AGE, and keep the others: as Django does around a request."""
    close_old_connections()
