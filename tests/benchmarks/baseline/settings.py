"""Tallybook's settings, with the baseline's addresses, next to no middleware, and Django's connections as they come."""

from config.settings import *  # noqa: F403
from config.settings import DATABASES, INSTALLED_APPS, env

INSTALLED_APPS = [*INSTALLED_APPS, "tests.benchmarks.baseline.apps.BaselineConfig"]
ROOT_URLCONF = "tests.benchmarks.baseline.urls"
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]  # sets Content-Length
REST_FRAMEWORK = {"DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"]}
DATABASES["default"]["ENGINE"] = "django.db.backends.postgresql"
# Plain Django connects for each request; the bare view keeps its connection, as Tallybook does.
DATABASES["default"]["CONN_MAX_AGE"] = env.int("BASELINE_CONN_MAX_AGE", default=0)
