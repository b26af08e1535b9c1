"""Uploads, and batches that know the upload that they are a chunk of."""

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

import customers.exactjson


class Migration(migrations.Migration):
    dependencies = [
        ("customers", "0004_aliases_revision"),
        ("usage", "0005_definition_revision"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Upload",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("file_name", models.CharField(max_length=200, verbose_name="file")),
                ("stored_name", models.CharField(max_length=80, unique=True)),
                ("sha256", models.CharField(max_length=64, verbose_name="SHA-256")),
                ("size", models.BigIntegerField(help_text="Bytes.")),
                ("format", models.CharField(choices=[("csv", "CSV"), ("ndjson", "NDJSON")], max_length=10)),
                ("delimiter", models.CharField(default=",", max_length=1)),
                ("decimal", models.CharField(default=".", max_length=1, verbose_name="decimal sign")),
                ("thousands", models.CharField(blank=True, max_length=1, verbose_name="thousands separator")),
                ("timezone", models.CharField(default="UTC", max_length=64, verbose_name="time zone")),
                ("columns", customers.exactjson.OrderedJSONField(default=list, help_text="The header of a CSV file.")),
                (
                    "mapping",
                    customers.exactjson.OrderedJSONField(
                        default=dict, help_text="Column to field of the record; null for a column left out."
                    ),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("staged", "Waiting for its mapping"),
                            ("checking", "Being checked"),
                            ("checked", "Checked, waiting for your word"),
                            ("ingesting", "Being ingested"),
                            ("done", "Done"),
                            ("failed", "Stopped"),
                            ("discarded", "Discarded"),
                        ],
                        default="staged",
                        max_length=10,
                    ),
                ),
                ("stopped_because", models.TextField(blank=True)),
                ("check_result", customers.exactjson.OrderedJSONField(null=True)),
                ("rows_read", models.PositiveIntegerField(default=0)),
                ("accepted", models.PositiveIntegerField(default=0)),
                ("duplicates", models.PositiveIntegerField(default=0)),
                ("conflicts", models.PositiveIntegerField(default=0)),
                ("rejected", models.PositiveIntegerField(default=0)),
                (
                    "not_kept",
                    models.PositiveIntegerField(default=0, help_text="Refused rows that found the quarantine full."),
                ),
                ("bytes_done", models.BigIntegerField(default=0)),
                ("lines_done", models.PositiveIntegerField(default=0)),
                (
                    "errors_bytes",
                    models.BigIntegerField(default=0, help_text="The length of the error file that is committed."),
                ),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("started_at", models.DateTimeField(null=True)),
                ("finished_at", models.DateTimeField(null=True)),
                ("files_removed_at", models.DateTimeField(null=True)),
                (
                    "api_key",
                    models.ForeignKey(
                        null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to="customers.apikey"
                    ),
                ),
                (
                    "usage_event",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="uploads", to="usage.usageevent"
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
        ),
        migrations.AddField(
            model_name="ingestbatch",
            name="upload",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="batches",
                to="usage.upload",
            ),
        ),
        migrations.AddIndex(
            model_name="ingestbatch",
            index=models.Index(
                condition=models.Q(("upload__isnull", False)), fields=["upload"], name="ingest_batch_by_upload"
            ),
        ),
        migrations.AddIndex(
            model_name="upload",
            index=models.Index(
                condition=models.Q(("status__in", ["checking", "ingesting"])), fields=["id"], name="upload_under_way"
            ),
        ),
        migrations.AddIndex(
            model_name="upload",
            index=models.Index(fields=["usage_event", "sha256"], name="upload_by_content"),
        ),
    ]
