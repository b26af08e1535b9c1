"""manage.py create_demo: the demo organisation, and how to reach it."""

import os
import shlex
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from customers.keys import hash_secret
from customers.models import ApiKey
from metrics.demo import create_demo

ADMIN_USER = "admin"


class Command(BaseCommand):
    help = "Create the demo organisation where it is missing, and print how to reach it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--env-file", type=Path, required=True, help="where the access data are kept (mode 600)")

    def handle(self, *args: Any, env_file: Path, **options: Any) -> None:
        known = _read(env_file)
        remembered = known.get("API_KEY")
        if remembered and not ApiKey.objects.live().filter(secret_hash=hash_secret(remembered)).exists():
            remembered = None
        access = create_demo(
            api_key=remembered,
            admin_user=known.get("ADMIN_USER", ADMIN_USER),
            admin_password=known.get("ADMIN_PASSWORD"),
        )
        facts = {
            "URL": settings.SITE_URL,
            "ORG_KEY": str(access.organisation.key),
            "API_KEY": access.api_key,
            "ADMIN_USER": access.admin_user,
            "ADMIN_PASSWORD": access.admin_password,
        }
        _write(env_file, facts)
        self.stdout.write(_banner(facts))


def _read(env_file: Path) -> dict[str, str]:
    if not env_file.exists():
        return {}
    pairs = (line.partition("=") for line in env_file.read_text().splitlines() if "=" in line)
    return {name: shlex.split(value)[0] if value else "" for name, _, value in pairs}


def _write(env_file: Path, facts: dict[str, str]) -> None:
    env_file.parent.mkdir(parents=True, exist_ok=True)
    # Created with its final mode, under another name: nobody can read it at any moment, and nobody sees half of it.
    draft = env_file.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.writelines(f"{name}={shlex.quote(value)}\n" for name, value in facts.items())
    draft.replace(env_file)


def _banner(facts: dict[str, str]) -> str:
    return f"""
Tallybook is at {facts["URL"]}/admin/

    user name   {facts["ADMIN_USER"]}
    password    {facts["ADMIN_PASSWORD"]}

Post a usage record:

    curl -X POST {facts["URL"]}/usage/compute_hours \\
      -H "organisation: {facts["ORG_KEY"]}" \\
      -H "x-api-key: {facts["API_KEY"]}" \\
      -H "Content-Type: application/json" \\
      --data-raw '{{"customer_id":"cus_123","timestamp":"2025-06-17T14:03:12Z","data":{{"cpu_usage_hours":5}}}}'
"""
