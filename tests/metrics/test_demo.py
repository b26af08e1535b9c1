"""The demo: made once, found again, and true to what the README says of it."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.core.management import call_command
from django.test import Client

from customers.models import ApiKey, Organisation
from metrics.models import Metric
from usage.models import UsageRecord


@pytest.mark.django_db(transaction=True)
def test_the_demo_is_made_once_and_its_file_opens_it(tmp_path: Path, client: Client) -> None:
    file = tmp_path / "demo.env"
    call_command("create_demo", env_file=file)
    first = file.read_text()
    call_command("create_demo", env_file=file)

    assert file.read_text() == first
    assert file.stat().st_mode & 0o777 == 0o600
    facts = dict(line.split("=", 1) for line in first.splitlines())
    assert list(facts) == ["URL", "ORG_KEY", "API_KEY", "ADMIN_USER", "ADMIN_PASSWORD"]
    assert UsageRecord.objects.count() == 5_000
    assert Organisation.objects.get().timezone == "UTC"
    assert list(Metric.objects.order_by("code").values_list("code", "status")) == [
        ("api_calls", "active"),
        ("cpu_hours", "active"),
    ]
    assert client.login(username=facts["ADMIN_USER"], password=facts["ADMIN_PASSWORD"])
    answer = client.get("/api/metrics/", headers={"organisation": facts["ORG_KEY"], "x-api-key": facts["API_KEY"]})
    assert answer.status_code == 200


@pytest.mark.django_db(transaction=True)
def test_lost_secrets_are_made_anew(tmp_path: Path, client: Client) -> None:
    file = tmp_path / "demo.env"
    call_command("create_demo", env_file=file)
    ApiKey.objects.update(revoked_at=datetime.now(UTC))
    file.write_text("\n".join(line for line in file.read_text().splitlines() if "PASSWORD" not in line))

    call_command("create_demo", env_file=file)

    facts = dict(line.split("=", 1) for line in file.read_text().splitlines())
    assert client.login(username=facts["ADMIN_USER"], password=facts["ADMIN_PASSWORD"])
    answer = client.get("/api/metrics/", headers={"organisation": facts["ORG_KEY"], "x-api-key": facts["API_KEY"]})
    assert answer.status_code == 200
