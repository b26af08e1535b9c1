"""Celery tasks: each takes an id, calls one act, and may run twice."""

from celery import shared_task

from usage.models import Upload
from usage.tables import publish_pending_tables
from usage.uploads import check_upload, ingest_upload, remove_old_files

# A worker has few threads: after this long the others get their turn.
SLICE_SECONDS = 10.0
WAKE_SECONDS = 10


@shared_task
def wake_uploads() -> None:
    """Go on with every upload under way, also after a crash or a broker's outage; the beat calls this."""
    for upload_id, status in Upload.objects.under_way().values_list("pk", "status"):
        task = check_staged_upload if status == Upload.Status.CHECKING else ingest_staged_upload
        task.apply_async([upload_id], expires=WAKE_SECONDS)


@shared_task
def check_staged_upload(upload_id: int) -> None:
    check_upload(upload_id)


@shared_task
def ingest_staged_upload(upload_id: int) -> None:
    if ingest_upload(upload_id, seconds=SLICE_SECONDS):
        ingest_staged_upload.apply_async([upload_id])


@shared_task
def remove_old_uploads() -> None:
    remove_old_files()


@shared_task
def publish_tables_again() -> None:
    """Publish the structured tables that somebody was reading when their schema changed; the beat calls this."""
    publish_pending_tables()
