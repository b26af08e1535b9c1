"""`make upload-check`: a file of ROWS rows (1,000,000) tried out and ingested, and the memory that it took."""

import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator

import django
from django.conf import settings
from django.core.management import call_command

LIMIT_MB = 300


def pieces(rows: int) -> Iterator[bytes]:
    """Yield a semicolon file with decimal commas; every second row has an id, each two hundredth is refused."""
    yield b"customer_id;timestamp;id;hours;region\n"
    for n in range(rows):
        hours = "none" if n % 200 == 0 else f"1.{n % 1000:03d},5"
        moment = f"2025-06-{1 + n % 28:02d} {n % 24:02d}:{n % 60:02d}:00"
        yield f"cus_{n % 5000};{moment};{f'evt-{n:012d}' if n % 2 else ''};{hours};eu-{n % 9}\n".encode()


def peak_mb() -> int:
    """Return the most memory that this process ever held, in MB (Linux counts in KB, macOS in bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 * 1024 if sys.platform == "darwin" else 1024)


def main() -> int:
    """Print what each step took; 1 if it took too much memory or a row was lost."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    os.environ.setdefault("LOG_LEVEL", "WARNING")
    django.setup()
    from customers.models import Organisation
    from usage.definitions import create_usage_event
    from usage.upload_reading import Reading
    from usage.uploads import check_upload, ingest_upload, stage_upload, start_check, start_upload

    rows = int(os.environ.get("ROWS", "1000000"))
    call_command("migrate", verbosity=0)
    properties = {"hours": {"type": "number"}, "region": {"type": "string"}}
    usage_event = create_usage_event(
        Organisation.objects.create(name="Upload check"), name="M", slug="m",
        schema={"type": "object", "properties": properties},
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        settings.UPLOAD_DIR = folder
        reading = Reading(decimal=",", thousands=".", timezone="Europe/Berlin")
        upload = stage_upload(usage_event, pieces(rows), file_name="m.csv", file_format="csv", reading=reading)
        for name, start, act in (("tried out", start_check, check_upload), ("ingested", start_upload, ingest_upload)):
            began = time.monotonic()
            start(upload.pk)
            act(upload.pk)
            print(f"{name}: {rows} rows in {time.monotonic() - began:.0f} s, peak {peak_mb()} MB")
        upload.refresh_from_db()
    print(f"accepted {upload.accepted}, rejected {upload.rejected}, status {upload.status}")
    complete = upload.status == "done" and upload.accepted + upload.rejected == rows
    return 0 if complete and peak_mb() < LIMIT_MB else 1


if __name__ == "__main__":
    sys.exit(main())
