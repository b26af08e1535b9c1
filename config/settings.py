"""Every setting of Tallybook, each from the environment; docs/settings.md lists them."""

from pathlib import Path

import environ
from celery.schedules import crontab
from django.templatetags.static import static
from django.urls import reverse_lazy

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()

VAR_DIR = Path(env.str("VAR_DIR", default=str(BASE_DIR / "var")))

# --- who we are, and who may ask -------------------------------------------------------------------------------------

SECRET_KEY = env.str("SECRET_KEY")
DEBUG = env.bool("DEBUG", default=False)
SITE_URL = env.str("SITE_URL", default="http://localhost:8000").rstrip("/")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])
# HTTPS is on wherever a TLS proxy stands in front; it switches every cookie and redirect over at once.
HTTPS = env.bool("HTTPS", default=False)
SECURE_SSL_REDIRECT = HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]
SECURE_HSTS_SECONDS = env.int("HSTS_SECONDS", default=31_536_000) if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SESSION_COOKIE_HTTPONLY = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "customers",
    "usage",
    "metrics",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "config.middleware.ContentSecurityPolicyMiddleware",
    "config.middleware.PageSessionMiddleware",
    "config.middleware.SlashForPagesMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "config.middleware.PageAuthenticationMiddleware",
    "config.middleware.PageMessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
# For the admin's pages only; the API takes its paths with and without the slash, for a redirect would lose the body.
APPEND_SLASH = True

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# --- PostgreSQL, Redis, Celery ---------------------------------------------------------------------------------------

DATABASES = {"default": env.db_url("DATABASE_URL")}
DATABASES["default"]["ENGINE"] = "config.database"
# A new connection for each request costs nine times the request itself.
DATABASES["default"]["CONN_MAX_AGE"] = env.int("CONN_MAX_AGE", default=600)
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
# A unix socket's folder comes as ?host=; as HOST it is found by `manage.py dbshell` too.
DATABASES["default"]["HOST"] = DATABASES["default"].get("OPTIONS", {}).pop("host", "") or DATABASES["default"]["HOST"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = env.str("REDIS_URL", default="redis://127.0.0.1:6379/0")

CELERY_BROKER_URL = REDIS_URL
CELERY_TIMEZONE = "UTC"
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
# Celery would close the database connections of a worker before and after each task: a new one for each fold, and one
# for what wakes it. This is how many tasks later it may; `config.celery` sees to those that are old or broken.
CELERY_DB_REUSE_MAX = 1_000_000
CELERY_TASK_ROUTES = {
    "metrics.tasks.wake_folds": {"queue": "fold"},
    "metrics.tasks.fold_usage_event": {"queue": "fold"},
}
# The beat only wakes: a tick that found no worker for a while is worth nothing, the next one comes. (The time is an
# absolute one: the clocks of beat and worker may differ by less than that.)
CELERY_BEAT_SCHEDULE = {
    # With the time of a fold, a batch mostly waits for less than a second.
    "wake-folds": {"task": "metrics.tasks.wake_folds", "schedule": 0.75, "options": {"expires": 15.0}},
    "wake-uploads": {"task": "usage.tasks.wake_uploads", "schedule": 2.0, "options": {"expires": 15.0}},
    "remove-old-uploads": {"task": "usage.tasks.remove_old_uploads", "schedule": 3600.0, "options": {"expires": 600.0}},
    "publish-pending-tables": {
        "task": "usage.tasks.publish_tables_again",
        "schedule": 60.0,
        "options": {"expires": 60.0},
    },
    "wake-builds": {"task": "metrics.tasks.wake_builds", "schedule": 1.0, "options": {"expires": 15.0}},
    "forget-retired": {
        "task": "metrics.tasks.forget_retired_aggregates",
        "schedule": 3600.0,
        "options": {"expires": 600.0},
    },
    "wake-drift-checks": {
        "task": "metrics.tasks.wake_drift_checks",
        "schedule": crontab(hour=3, minute=10),
        "options": {"expires": 3600.0},
    },
}

# --- signing in, languages, files ------------------------------------------------------------------------------------

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_I18N = False
DATE_FORMAT = "Y-m-d"
DATETIME_FORMAT = "Y-m-d H:i"
USE_TZ = True

STATIC_URL = "/static/"
STATIC_ROOT = VAR_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = env.bool("WHITENOISE_USE_FINDERS", default=DEBUG)

# --- the HTTP API ----------------------------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["customers.authentication.ApiKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["customers.authentication.HasScope"],
    "DEFAULT_RENDERER_CLASSES": ["customers.api.ExactJSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["customers.api.ExactJSONParser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "customers.api.AlwaysJSON",
    "EXCEPTION_HANDLER": "customers.api.problem_details",
    "UNAUTHENTICATED_USER": None,
    "DEFAULT_SCHEMA_CLASS": "customers.openapi.Description",
}

# The document at /api/schema/, and its page at /api/docs/, which takes everything it needs from this server.
SPECTACULAR_SETTINGS = {
    "TITLE": "Tallybook",
    "DESCRIPTION": "Usage in, exact billable quantities out. Every request carries the headers `organisation` and "
    "`x-api-key`; refusals are problem details (RFC 9457); instants are RFC 3339; quantities are strings.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_AUTHENTICATION": [],
    "SERVE_PERMISSIONS": [],
    "COMPONENT_SPLIT_REQUEST": True,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "POSTPROCESSING_HOOKS": ["customers.openapi.postprocess"],
    "PREPROCESSING_HOOKS": ["customers.openapi.plain_paths"],
}

INGEST_MAX_RECORDS = env.int("INGEST_MAX_RECORDS", default=10_000)
QUARANTINE_DAILY_CAP = env.int("QUARANTINE_DAILY_CAP", default=100_000)
UPLOAD_DIR = Path(env.str("UPLOAD_DIR", default=str(VAR_DIR / "uploads")))
UPLOAD_MAX_BYTES = env.int("UPLOAD_MAX_BYTES", default=2 * 1024 * 1024 * 1024)
UPLOAD_KEEP_DAYS = env.int("UPLOAD_KEEP_DAYS", default=30)
FILE_UPLOAD_HANDLERS = ["usage.upload_handlers.LimitedUploadHandler"]
INGEST_MAX_BYTES = env.int("INGEST_MAX_BYTES", default=16 * 1024 * 1024)
RATE_LIMIT_PER_MINUTE = env.int("RATE_LIMIT_PER_MINUTE", default=0)
QUANTITIES_SECONDS = env.float("QUANTITIES_SECONDS", default=30.0)
SQL_METRIC_SECONDS = env.float("SQL_METRIC_SECONDS", default=10.0)
DRIFT_SECONDS = env.float("DRIFT_SECONDS", default=600.0)
# Who is asked before a schema changes: callables (usage event id, names of properties) -> names of what uses them.
PROPERTY_USERS = ["metrics.definitions.metrics_using"]

# --- the admin -------------------------------------------------------------------------------------------------------

UNFOLD = {
    "SITE_TITLE": "Tallybook",
    "SITE_HEADER": "Tallybook",
    "SITE_SUBHEADER": "Usage-based billing",
    "SITE_ICON": lambda request: static("tallybook/icon.svg"),
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("tallybook/icon.svg")},
    ],
    "SITE_URL": None,
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
    "DASHBOARD_CALLBACK": "metrics.home.home",
    "STYLES": [lambda request: static("tallybook/admin.css")],
    "BORDER_RADIUS": "6px",
    "COLORS": {
        "primary": {
            "50": "oklch(97.6% .013 210)",
            "100": "oklch(94.6% .027 210)",
            "200": "oklch(89.6% .048 210)",
            "300": "oklch(82.5% .078 211)",
            "400": "oklch(71.5% .098 213)",
            "500": "oklch(60% .1 216)",
            "600": "oklch(49.5% .09 219)",
            "700": "oklch(43% .078 221)",
            "800": "oklch(37% .065 223)",
            "900": "oklch(32% .053 225)",
            "950": "oklch(24% .043 228)",
        },
    },
    "SIDEBAR": {
        "show_search": False,
        "show_all_applications": False,
        "navigation": [
            {
                "items": [
                    {"title": "Home", "icon": "home", "link": reverse_lazy("admin:index")},
                ],
            },
            {
                "title": "Usage",
                "separator": True,
                "items": [
                    {
                        "title": "Usage events",
                        "icon": "sensors",
                        "link": reverse_lazy("admin:usage_usageevent_changelist"),
                        "permission": "customers.admin_access.may_work",
                    },
                    {
                        "title": "Usage records",
                        "icon": "receipt_long",
                        "link": reverse_lazy("admin:usage_usagerecord_changelist"),
                        "permission": "customers.admin_access.may_work",
                    },
                    {
                        "title": "Ingest batches",
                        "icon": "inventory_2",
                        "link": reverse_lazy("admin:usage_ingestbatch_changelist"),
                        "permission": "customers.admin_access.may_work",
                    },
                    {
                        "title": "Uploads",
                        "icon": "upload_file",
                        "link": reverse_lazy("admin:usage_upload_changelist"),
                        "permission": "customers.admin_access.may_work",
                    },
                    {
                        "title": "Quarantine",
                        "icon": "report",
                        "link": reverse_lazy("admin:usage_rejectedrecord_causes"),
                        "active": "usage.admin.rejected.on_quarantine",
                        "badge": "usage.admin.rejected.open_entries",
                        "permission": "customers.admin_access.may_work",
                    },
                ],
            },
            {
                "title": "Billing",
                "separator": True,
                "items": [
                    {
                        "title": "Metrics",
                        "icon": "calculate",
                        "link": reverse_lazy("admin:metrics_metric_changelist"),
                        "active": "metrics.home.on_metrics",
                        "permission": "customers.admin_access.may_work",
                    },
                    {
                        "title": "Quantities",
                        "icon": "query_stats",
                        "link": reverse_lazy("admin:metrics_metric_quantities"),
                        "permission": "customers.admin_access.may_work",
                    },
                    {
                        "title": "Freshness",
                        "icon": "speed",
                        "link": reverse_lazy("admin:metrics_metric_freshness"),
                        "permission": "customers.admin_access.may_work",
                    },
                    {
                        "title": "Drift",
                        "icon": "rule",
                        "link": reverse_lazy("admin:metrics_metric_drift"),
                        "badge": "metrics.home.metrics_that_differ",
                        "permission": "customers.admin_access.may_work",
                    },
                    {
                        "title": "Customers",
                        "icon": "groups",
                        "link": reverse_lazy("admin:customers_customer_changelist"),
                        "permission": "customers.admin_access.may_work",
                    },
                ],
            },
            {
                "title": "Access",
                "separator": True,
                "items": [
                    {
                        "title": "API keys",
                        "icon": "key",
                        "link": reverse_lazy("admin:customers_apikey_changelist"),
                        "permission": "customers.admin_access.may_work",
                    },
                    {
                        "title": "Organisations",
                        "icon": "domain",
                        "link": reverse_lazy("admin:customers_organisation_changelist"),
                        "permission": "customers.admin_access.may_work",
                    },
                    {
                        "title": "Memberships",
                        "icon": "badge",
                        "link": reverse_lazy("admin:customers_membership_changelist"),
                        "permission": "customers.admin_access.may_work",
                    },
                    {
                        "title": "People",
                        "icon": "person",
                        "link": reverse_lazy("admin:auth_user_changelist"),
                        "permission": "customers.admin_access.is_superuser",
                    },
                ],
            },
        ],
    },
}

# --- logs ------------------------------------------------------------------------------------------------------------

QUIET = ("celery.worker.strategy", "celery.worker.request", "celery.app.trace")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(levelname)s %(name)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    # Two tasks begin and end every second; acts say what they did in lines of their own.
    "loggers": {name: {"level": "WARNING"} for name in QUIET},
    "root": {"handlers": ["console"], "level": env.str("LOG_LEVEL", default="INFO")},
}
