"""Uploads: a file is staged, its columns are mapped, it is tried out, and ingested chunk by chunk."""

import logging
import time
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils.timezone import now

from usage import upload_files as files
from usage.definitions import Definition, define, find_definition
from usage.ingestion import IngestResult, Source, SourceRefused, UsageEventGone, ingest
from usage.models import IngestBatch, Upload, UsageEvent
from usage.upload_checks import DryRun
from usage.upload_chunks import Chunk, UploadReader
from usage.upload_mapping import MappingError
from usage.upload_reading import AS_IT_SAYS, Reading, UploadRefused, check_complete, read_as
from usage.upload_rows import Place, UnreadableFile
from usage.upload_sql import working_on

log = logging.getLogger(__name__)

Status = Upload.Status
STOPPABLE = (Status.STAGED, Status.CHECKING, Status.CHECKED, Status.FAILED)
# What stops an upload for good: told to whoever looks at it, and not tried again by itself.
STOPS = (UsageEventGone, SourceRefused, OSError, UnicodeDecodeError, UnreadableFile, MappingError)


class NotNow(ValueError):
    """The upload is not in a state in which this can be done."""


def stage_upload(
    usage_event: UsageEvent,
    pieces: Iterable[bytes],
    *,
    file_name: str,
    file_format: str,
    reading: Reading = AS_IT_SAYS,
    user_id: int | None = None,
    api_key_id: int | None = None,
) -> Upload:
    """Receive a file and return its upload, mapped as far as names speak for themselves; nothing is ingested yet.

    Raises UploadRefused, or FileRefused (FileTooLarge) for the file; then nothing is kept.
    """
    if usage_event.archived_at is not None:
        raise UploadRefused("usage_event", f"a live usage event was expected, {usage_event.slug} is archived")
    staged = files.receive(pieces)
    upload = Upload(
        usage_event=usage_event,
        user_id=user_id,
        api_key_id=api_key_id,
        file_name=file_name.replace("\0", "")[-200:] or "upload",
        stored_name=staged.name,
        sha256=staged.sha256,
        size=staged.size,
        format=file_format,
    )
    try:
        read_as(upload, reading)
        upload.save()
    except BaseException:
        files.remove(staged.name)
        raise
    log.info("staged upload=%d bytes=%d format=%s", upload.pk, upload.size, upload.format)
    return upload


@transaction.atomic
def map_upload(upload_id: int, reading: Reading) -> Upload:
    """Change how a file is read; what was found out about it before is forgotten. Raises NotNow, UploadRefused."""
    upload = _not_started(upload_id)
    read_as(upload, reading)
    upload.status, upload.check_result, upload.stopped_because, upload.finished_at = Status.STAGED, None, "", None
    upload.save()
    return upload


@transaction.atomic
def start_check(upload_id: int) -> Upload:
    """Have a worker try the upload out. Raises NotNow, and UploadRefused for a mapping that is not complete."""
    upload = _not_started(upload_id)
    check_complete(upload)
    upload.status, upload.check_result, upload.stopped_because, upload.finished_at = Status.CHECKING, None, "", None
    upload.rows_read = upload.bytes_done = 0
    upload.save()
    return upload


@transaction.atomic
def start_upload(upload_id: int) -> Upload:
    """Have a worker ingest the upload, or go on where it was stopped. Raises NotNow, UploadRefused."""
    upload = _locked(upload_id)
    if upload.status not in (Status.STAGED, Status.CHECKED, Status.FAILED):
        raise NotNow(f"an upload that is staged, checked or stopped was expected, this one is {upload.status}")
    if upload.files_removed_at is not None:
        raise NotNow("its file was removed; upload it again")
    check_complete(upload)
    if upload.started_at is None:
        upload.rows_read = upload.bytes_done = 0
        upload.started_at = now()
    upload.status, upload.stopped_because, upload.finished_at = Status.INGESTING, "", None
    upload.save()
    return upload


@transaction.atomic
def discard_upload(upload_id: int) -> Upload:
    """Give an upload up that is not being ingested; its file is removed, what was ingested stays. Raises NotNow."""
    upload = _locked(upload_id)
    if upload.status not in STOPPABLE:
        raise NotNow(f"an upload that is not being ingested was expected, this one is {upload.status}")
    upload.status, upload.finished_at = Status.DISCARDED, now()
    upload.files_removed_at = now()
    upload.save()
    transaction.on_commit(lambda: files.remove(upload.stored_name))
    return upload


def check_upload(upload_id: int) -> bool:
    """Read the whole file without storing anything, and keep what ingestion would do with it in `check_result`.

    False if it is not to be checked, or somebody else is doing it. Starts over after a crash.
    """
    started = time.monotonic()
    under_way = Upload.objects.filter(pk=upload_id, status=Status.CHECKING)
    with working_on(upload_id) as mine:
        upload = under_way.select_related("usage_event__organisation").first() if mine else None
        if upload is None:
            return False
        try:
            found = _try_out(upload)
        except STOPS as reason:
            _stop(upload_id, reason)
            return True
        under_way.update(status=Status.CHECKED, check_result=found.result(), bytes_done=upload.size)
    log.info("checked upload=%d rows=%d ms=%.1f", upload_id, found.rows, (time.monotonic() - started) * 1000)
    return True


def _try_out(upload: Upload) -> DryRun:
    found, definition = DryRun(), define(upload.usage_event)
    row = Upload.objects.filter(pk=upload.pk, status=Status.CHECKING)
    with files.path_of(upload.stored_name).open("rb") as stream:
        reader = UploadReader(upload, upload.usage_event.schema, stream, Place())
        while (chunk := reader.chunk()).rows:
            found.add(definition, reader, chunk)
            if not row.update(rows_read=found.rows, bytes_done=chunk.end.offset):
                break
    return found


def ingest_upload(upload_id: int, *, seconds: float | None = None) -> bool:
    """Ingest the upload from where it stands, chunk by chunk; True if time was up before the end of the file.

    Each chunk's records and the progress that counts them are one transaction: after a crash at any point it goes on
    behind the last chunk that was committed. False too if somebody else is at it.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    with working_on(upload_id) as mine:
        while mine:
            try:
                if not _ingest_chunk(upload_id):
                    return False
            except STOPS as reason:
                _stop(upload_id, reason)
                return False
            if deadline is not None and time.monotonic() >= deadline:
                return True
    return False


@transaction.atomic
def _ingest_chunk(upload_id: int) -> bool:
    """Ingest the next chunk and count it; True if there may be more."""
    upload = _locked(upload_id)
    if upload.status != Status.INGESTING:
        return False
    definition = find_definition(upload.usage_event.organisation_id, upload.usage_event.slug)
    if definition is None:
        raise UsageEventGone
    place = Place(upload.bytes_done, upload.lines_done + 1) if upload.bytes_done else Place()
    with files.path_of(upload.stored_name).open("rb") as stream:
        reader = UploadReader(upload, upload.usage_event.schema, stream, place)
        chunk = reader.chunk()
    if chunk.rows:
        _store(upload, definition, reader, chunk)
    if chunk.last:
        upload.status, upload.finished_at, upload.bytes_done = Status.DONE, now(), upload.size
        counts = (upload.rows_read, upload.accepted, upload.duplicates, upload.conflicts, upload.rejected)
        log.info("ingested upload=%d rows=%d accepted=%d duplicates=%d conflicts=%d rejected=%d", upload_id, *counts)
    upload.save()
    return not chunk.last


def _store(upload: Upload, definition: Definition, reader: UploadReader, chunk: Chunk) -> None:
    source = Source(
        IngestBatch.Source.UPLOAD, api_key_id=upload.api_key_id, user_id=upload.user_id, upload_id=upload.pk
    )
    result: IngestResult = ingest(definition, chunk.submission, source=source)
    if result.problems:
        rows = (reader.error_row(chunk, problem) for problem in result.problems)
        upload.errors_bytes = files.append_errors(upload.stored_name, upload.errors_bytes, rows)
    upload.rows_read += len(chunk.rows)
    upload.accepted += result.accepted
    upload.duplicates += result.duplicates
    upload.conflicts += result.conflicts
    upload.rejected += result.rejected
    upload.not_kept += result.not_kept
    upload.bytes_done, upload.lines_done = chunk.end.offset, chunk.end.line - 1


def remove_old_files() -> int:
    """Remove the files of uploads that ended, or were left lying, UPLOAD_KEEP_DAYS ago; returns how many uploads.

    An upload that nobody started is given up with its file. What a crash left half received goes after a day.
    """
    limit = now() - timedelta(days=settings.UPLOAD_KEEP_DAYS)
    old = Upload.objects.filter(files_removed_at=None, created_at__lt=limit).exclude(status=Status.INGESTING)
    removed = 0
    for upload in old.filter(finished_at=None) | old.filter(finished_at__lt=limit):
        files.remove(upload.stored_name)
        changes: dict[str, Any] = {"files_removed_at": now()}
        if upload.status != Status.DONE:
            changes |= {"status": Status.DISCARDED, "finished_at": upload.finished_at or now()}
        Upload.objects.filter(pk=upload.pk).update(**changes)
        removed += 1
    files.remove_strays(known=set(Upload.objects.filter(files_removed_at=None).values_list("stored_name", flat=True)))
    return removed


def same_file_as(upload: Upload) -> Upload | None:
    """Return the upload that already ingested this very file into this usage event: every row would be a duplicate."""
    earlier = Upload.objects.filter(usage_event_id=upload.usage_event_id, sha256=upload.sha256, pk__lt=upload.pk)
    return earlier.filter(started_at__isnull=False).order_by("pk").first()


def _locked(upload_id: int) -> Upload:
    """Lock the upload: what is read here stays true until the transaction ends. Raises Upload.DoesNotExist."""
    locked = Upload.objects.select_for_update(of=("self",)).select_related("usage_event")
    return locked.get(pk=upload_id)


def _not_started(upload_id: int) -> Upload:
    upload = _locked(upload_id)
    if upload.status not in (Status.STAGED, Status.CHECKED, Status.FAILED) or upload.started_at is not None:
        raise NotNow(f"an upload that is staged or checked was expected, this one is {upload.status}")
    return upload


def _stop(upload_id: int, reason: Exception) -> None:
    text = _REASONS.get(type(reason)) or str(reason)
    if isinstance(reason, OSError):
        text = "the staged file cannot be read; web and worker must share the folder UPLOAD_DIR"
        log.error("upload=%d: %s", upload_id, reason)
    under_way = Upload.objects.filter(pk=upload_id, status__in=[Status.CHECKING, Status.INGESTING])
    under_way.update(status=Status.FAILED, stopped_because=text, finished_at=now())
    log.warning("stopped upload=%d: %s", upload_id, text)


_REASONS: dict[type[Exception], str] = {
    UsageEventGone: "the usage event was archived",
    SourceRefused: "the API key that uploaded it was revoked, has expired or lost its scope",
    UnicodeDecodeError: "the staged file is not UTF-8 any more",
}
