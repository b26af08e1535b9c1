"""What the lists of batches and of rejected records are read by: time, and the batch that an entry came in."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("usage", "0006_uploads")]

    operations = [
        migrations.AddIndex(
            model_name="ingestbatch",
            index=models.Index(fields=["usage_event", "received_at", "id"], name="ingest_batch_by_time"),
        ),
        migrations.AddIndex(
            model_name="rejectedrecord",
            index=models.Index(fields=["usage_event", "first_seen_at", "id"], name="rejected_record_by_time"),
        ),
        migrations.AddIndex(
            model_name="rejectedrecord",
            index=models.Index(fields=["usage_event", "batch"], name="rejected_record_by_batch"),
        ),
    ]
