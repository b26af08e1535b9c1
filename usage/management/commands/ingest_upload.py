"""manage.py ingest_upload: a file on this machine becomes records, without a browser and without a worker."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from usage.models import Upload, UsageEvent
from usage.upload_files import PIECE, FileRefused, errors_path_of
from usage.upload_reading import Reading, UploadRefused
from usage.uploads import NotNow, check_upload, ingest_upload, stage_upload, start_check, start_upload

SIGNS = ("delimiter", "decimal", "thousands", "timezone")


class Command(BaseCommand):
    help = "Ingest a CSV or NDJSON file, or go on with an upload that was interrupted."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", nargs="?", type=Path, help="the file; none with --resume")
        parser.add_argument("--organisation", type=uuid.UUID, help="the organisation's key")
        parser.add_argument("--usage-event", help="the usage event's slug")
        parser.add_argument("--format", choices=Upload.Format.values, default=Upload.Format.CSV)
        parser.add_argument("--mapping", type=json.loads, help='JSON: {"<column>": "<field>" or null}')
        for name in SIGNS:
            parser.add_argument(f"--{name}")
        parser.add_argument("--dry-run", action="store_true", help="only tell what would become of the rows")
        parser.add_argument("--resume", type=int, metavar="UPLOAD", help="go on with this upload")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            upload_id = options["resume"] or self._stage(options)
            upload = _check(upload_id) if options["dry_run"] else _ingest(upload_id)
        except (UploadRefused, FileRefused, NotNow) as refusal:
            raise CommandError(f"{getattr(refusal, 'field', 'file')}: {refusal}") from refusal
        except OSError as error:
            raise CommandError(f"file: {error}") from error
        except Upload.DoesNotExist:
            raise CommandError(f"resume: the id of an upload was expected, got {options['resume']}") from None
        if upload.status == Upload.Status.FAILED:
            raise CommandError(f"upload {upload.pk} stopped: {upload.stopped_because}")
        self.stdout.write(json.dumps(_answer(upload), indent=2))

    def _stage(self, options: dict[str, Any]) -> int:
        if options["file"] is None:
            raise CommandError("file: a file was expected, or --resume")
        own = UsageEvent.objects.filter(organisation__key=options["organisation"], slug=options["usage_event"])
        usage_event = own.first() if options["organisation"] and options["usage_event"] else None
        if usage_event is None:
            raise CommandError("usage-event: the slug of a usage event of --organisation was expected")
        upload = stage_upload(
            usage_event,
            _pieces(options["file"]),
            file_name=options["file"].name,
            file_format=options["format"],
            reading=Reading(mapping=options["mapping"], **{name: options[name] for name in SIGNS}),
        )
        self.stderr.write(f"staged as upload {upload.pk}")
        return upload.pk


def _check(upload_id: int) -> Upload:
    start_check(upload_id)
    check_upload(upload_id)
    return Upload.objects.get(pk=upload_id)


def _ingest(upload_id: int) -> Upload:
    if Upload.objects.get(pk=upload_id).status != Upload.Status.INGESTING:
        start_upload(upload_id)
    ingest_upload(upload_id)
    return Upload.objects.get(pk=upload_id)


def _answer(upload: Upload) -> dict[str, Any]:
    if upload.status == Upload.Status.CHECKED:
        return {"upload": upload.pk, "status": upload.status, **upload.check_result}
    counts = ("rows_read", "accepted", "duplicates", "conflicts", "rejected")
    errors = {"error_file": str(errors_path_of(upload.stored_name))} if upload.errors_bytes else {}
    return {"upload": upload.pk, "status": upload.status, **{name: getattr(upload, name) for name in counts}, **errors}


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while piece := stream.read(PIECE):
            yield piece
