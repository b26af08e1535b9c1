"""Uploads: a file of records, how its rows are read, and how far they have come."""

from django.conf import settings
from django.db import models
from django.utils.timezone import now

from customers.exactjson import OrderedJSONField
from customers.models import ApiKey


class UploadQuerySet(models.QuerySet["Upload"]):
    def under_way(self) -> "UploadQuerySet":
        """Uploads for which a worker has something to do."""
        return self.filter(status__in=[Upload.Status.CHECKING, Upload.Status.INGESTING]).order_by("pk")


class Upload(models.Model):
    """A CSV or NDJSON file that was staged to become records of a usage event, with the progress of its ingestion.

    The progress (`rows_read` to `bytes_done`, `lines_done`) is committed with the records that it speaks of, so it is
    always the place at which a worker goes on.
    """

    class Status(models.TextChoices):
        STAGED = "staged", "Waiting for its mapping"
        CHECKING = "checking", "Being checked"
        CHECKED = "checked", "Checked, waiting for your word"
        INGESTING = "ingesting", "Being ingested"
        DONE = "done", "Done"
        FAILED = "failed", "Stopped"
        DISCARDED = "discarded", "Discarded"

    class Format(models.TextChoices):
        CSV = "csv", "CSV"
        NDJSON = "ndjson", "NDJSON"

    usage_event = models.ForeignKey("usage.UsageEvent", models.PROTECT, related_name="uploads")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    api_key = models.ForeignKey(ApiKey, models.PROTECT, null=True, related_name="+")
    file_name = models.CharField("file", max_length=200)
    stored_name = models.CharField(max_length=80, unique=True)
    sha256 = models.CharField("SHA-256", max_length=64)
    size = models.BigIntegerField(help_text="Bytes.")
    format = models.CharField(max_length=10, choices=Format.choices)
    delimiter = models.CharField(max_length=1, default=",")
    decimal = models.CharField("decimal sign", max_length=1, default=".")
    thousands = models.CharField("thousands separator", max_length=1, blank=True)
    timezone = models.CharField("time zone", max_length=64, default="UTC")
    columns = OrderedJSONField(default=list, help_text="The header of a CSV file.")
    mapping = OrderedJSONField(default=dict, help_text="Column to field of the record; null for a column left out.")
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.STAGED)
    stopped_because = models.TextField(blank=True)
    check_result = OrderedJSONField(null=True)
    rows_read = models.PositiveIntegerField(default=0)
    accepted = models.PositiveIntegerField(default=0)
    duplicates = models.PositiveIntegerField(default=0)
    conflicts = models.PositiveIntegerField(default=0)
    rejected = models.PositiveIntegerField(default=0)
    not_kept = models.PositiveIntegerField(default=0, help_text="Refused rows that found the quarantine full.")
    bytes_done = models.BigIntegerField(default=0)
    lines_done = models.PositiveIntegerField(default=0)
    errors_bytes = models.BigIntegerField(default=0, help_text="The length of the error file that is committed.")
    created_at = models.DateTimeField(default=now)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    files_removed_at = models.DateTimeField(null=True)

    objects = UploadQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(
                fields=["id"], condition=models.Q(status__in=["checking", "ingesting"]), name="upload_under_way"
            ),
            models.Index(fields=["usage_event", "sha256"], name="upload_by_content"),
        ]

    def __str__(self) -> str:
        return self.file_name

    @property
    def key_prefix(self) -> str:
        """Begins the identity of rows that have none of their own; the line number ends it."""
        return f"upload:{self.sha256[:16]}:"

    @property
    def under_way(self) -> bool:
        """Whether a worker has something to do for it."""
        return self.status in (self.Status.CHECKING, self.Status.INGESTING)
