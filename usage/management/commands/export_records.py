"""The command line's door to exports: `manage.py export_records`."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError

from customers.models import Organisation
from usage.exports import MEDIA_TYPES, export_records
from usage.record_serializers import ExportQuerySerializer


class Command(BaseCommand):
    help = "Write an organisation's usage records as CSV (of one usage event) or NDJSON, as of one moment."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--organisation", required=True, help="the organisation's key")
        parser.add_argument("--format", required=True, choices=list(MEDIA_TYPES))
        parser.add_argument("--output", help="a file; without it, the standard output")
        parser.add_argument(
            "--filter", action="append", default=[], metavar="NAME=VALUE", help="as in GET /api/usage-records/"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        asked = _asked(_organisation(options["organisation"]), options["format"], options["filter"])
        chunks = export_records(asked["filter"], options["format"], asked.get("usage_event"))
        if not options["output"]:
            sys.stdout.buffer.writelines(chunks)
            return
        with Path(options["output"]).open("wb") as output:
            output.writelines(chunks)


def _organisation(key: str) -> Organisation:
    try:
        return Organisation.objects.get(key=UUID(key))
    except (ValueError, Organisation.DoesNotExist):
        raise CommandError(f"an organisation's key was expected, got '{key}'") from None


def _asked(organisation: Organisation, kind: str, filters: list[str]) -> Any:
    query = {"format": kind}
    for text in filters:
        name, equals, value = text.partition("=")
        if not equals:
            raise CommandError(f"--filter name=value was expected, got '{text}'")
        if name not in ExportQuerySerializer().fields and not name.startswith(ExportQuerySerializer.prefixes):
            raise CommandError(f"'{name}' is no filter")
        query[name] = value
    asked = ExportQuerySerializer(data=query, context={"organisation_id": organisation.pk})
    if not asked.is_valid():
        raise CommandError("; ".join(f"{name}: {' '.join(map(str, told))}" for name, told in asked.errors.items()))
    return asked.validated_data
