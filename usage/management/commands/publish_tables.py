"""manage.py publish_tables: every structured table that is missing or out of date, or all of them."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from usage.tables import publish_all_tables, publish_pending_tables


class Command(BaseCommand):
    help = "Publish the structured tables that are missing or out of date."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--all", action="store_true", help="publish every table anew")

    def handle(self, *args: Any, **options: Any) -> None:
        published, waiting = publish_all_tables() if options["all"] else publish_pending_tables()
        self.stdout.write(f"{published} tables published")
        if waiting:
            raise CommandError(f"{len(waiting)} could not be published, the log says why: {', '.join(waiting)}")
