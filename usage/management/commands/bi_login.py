"""manage.py bi_login: issue, list and revoke logins with which BI tools read an organisation's structured tables."""

import uuid
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from customers.models import Organisation
from usage.readers import LabelRefused, ReadersRefused, bi_labels, issue_bi_login, revoke_bi_login


class Command(BaseCommand):
    help = "Issue, list and revoke read-only database logins for BI tools."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("deed", choices=["issue", "list", "revoke"])
        parser.add_argument("label", nargs="?", help="tells logins of one organisation apart, such as metabase")
        parser.add_argument("--organisation", type=uuid.UUID, required=True, help="the organisation's key")

    def handle(self, *args: Any, **options: Any) -> None:
        organisation = Organisation.objects.filter(key=options["organisation"]).first()
        if organisation is None:
            raise CommandError("organisation: the key of an organisation was expected")
        if options["deed"] != "list" and not options["label"]:
            raise CommandError("label: one was expected, such as metabase")
        try:
            getattr(self, options["deed"])(organisation, options["label"])
        except (LabelRefused, ReadersRefused) as refusal:
            raise CommandError(str(refusal)) from refusal

    def issue(self, organisation: Organisation, label: str) -> None:
        login = issue_bi_login(organisation, label)
        for name in ("host", "port", "database", "user", "password", "schema"):
            self.stdout.write(f"{name:<9}{getattr(login, name)}")
        self.stderr.write("The password is shown this once.")

    def list(self, organisation: Organisation, label: str | None) -> None:
        for found in bi_labels(organisation):
            self.stdout.write(found)

    def revoke(self, organisation: Organisation, label: str) -> None:
        revoke_bi_login(organisation, label)
        self.stdout.write(f"{label} revoked")
