"""The WSGI entry point that the web server loads."""

import gc
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

application = get_wsgi_application()

# A batch is tens of thousands of small objects without a cycle among them: to look through all of them again and again,
# and through the whole application, took a quarter of ingestion's processor time.
gc.freeze()
gc.set_threshold(50_000, 20, 100)
