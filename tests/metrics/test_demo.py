"""The demo: made once, found again, and true to what the README says of it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.core.management import call_command
from django.test import Client

from customers.models import ApiKey, Organisation
from metrics import sandbox_runs
from metrics.models import Metric
from metrics.quantities import preview, quantities
from metrics.questions import Question
from tests.roles import drop_readers
from usage.models import UsageRecord
from usage.readers import ReadersRefused


@pytest.fixture(autouse=True)
def no_role_stays(transactional_db: None) -> Iterator[None]:
    yield
    drop_readers()


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
    assert list(Metric.objects.order_by("code", "version").values_list("code", "version", "status")) == [
        ("api_calls", 1, "active"),
        ("api_calls", 2, "draft"),
        ("cpu_hours", 1, "active"),
        ("hours_by_region", 1, "active"),
        ("p95_duration", 1, "active"),
        ("slow_calls", 1, "active"),
    ]
    assert client.login(username=facts["ADMIN_USER"], password=facts["ADMIN_PASSWORD"])
    answer = client.get("/api/metrics/", headers={"organisation": facts["ORG_KEY"], "x-api-key": facts["API_KEY"]})
    assert answer.status_code == 200


@pytest.mark.django_db(transaction=True)
def test_every_metric_of_the_demo_has_quantities(tmp_path: Path) -> None:
    call_command("create_demo", env_file=tmp_path / "demo.env")
    organisation = Organisation.objects.get()
    end = datetime.now(UTC)
    question = Question(start=end - timedelta(days=61), end=end)
    found = {
        metric.code: quantities(organisation.pk, metric.code, question).rows
        for metric in Metric.objects.filter(status="active")
    }
    assert {code: len(rows) for code, rows in found.items()} == dict.fromkeys(found, 6)
    totals = {code: sum(row.quantity or 0 for row in rows) for code, rows in found.items()}
    assert totals["api_calls"] == 3_000
    assert totals["hours_by_region"] == totals["cpu_hours"]
    slow = UsageRecord.objects.filter(usage_event__slug="api_calls", data__duration_ms__gt=500).count()
    assert totals["slow_calls"] == slow > 0
    draft = Metric.objects.get(status="draft")
    assert sum(row.quantity or 0 for row in preview(draft, question).rows) < 3_000


@pytest.mark.django_db(transaction=True)
def test_the_demo_does_without_sql_where_no_role_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(organisation: Organisation) -> None:
        raise ReadersRefused("no role can be made here")

    monkeypatch.setattr(sandbox_runs, "connect_reader", refused)
    call_command("create_demo", env_file=tmp_path / "demo.env")
    assert not Metric.objects.filter(code="slow_calls").exists()
    assert Metric.objects.filter(status="active").count() == 4


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
