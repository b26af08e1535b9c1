"""The SQL builder: mistakes at their line, the organisation's own tables, and a preview by the day or the month."""

from typing import Any

import pytest
from django.test import Client

from customers.models import Organisation
from metrics.models import Metric
from tests.conftest import record, take_in
from tests.people import HOSTILE, staff_of
from usage.definitions import create_usage_event
from usage.models import UsageEvent

ADD = "/admin/metrics/metric/add-sql/"
PREVIEW = "/admin/metrics/metric/preview/"
SELECT = """select customer_id, sum(cpu_usage_hours) as quantity
from compute_hours
where timestamp >= {{start_date}} and timestamp < {{end_date}}
group by customer_id"""


@pytest.fixture
def staff(organisation: Organisation) -> Client:
    return staff_of(organisation)


def entries(**fields: Any) -> dict[str, Any]:
    return {"name": "CPU hours", "code": "", "unit": "hours", "sql": SELECT, "sql_window": "day", **fields}


def errors(response: Any) -> dict[str, list[str]]:
    assert response.status_code == 200
    return {name: list(messages) for name, messages in response.context["form"].errors.items()}


def look(client: Client, **fields: Any) -> dict[str, Any]:
    response = client.post(PREVIEW, entries(name="", **fields))
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


def test_a_metric_in_sql_is_drafted_changed_and_active_at_once(staff: Client, compute: UsageEvent) -> None:
    assert staff.post(ADD, entries()).status_code == 302
    metric = Metric.objects.get()
    assert (metric.code, metric.sql, metric.sql_window, metric.usage_event) == ("cpu_hours", SELECT, "day", None)
    page = f"/admin/metrics/metric/{metric.pk}/change/"
    assert staff.get(page).templates[0].name == "admin/metrics/sql.html"
    assert staff.post(page, entries(sql_window="month", code="cpu")).status_code == 302
    metric.refresh_from_db()
    assert (metric.code, metric.sql_window, metric.status) == ("cpu", "month", "draft")

    assert "is active" in staff.post(f"/admin/metrics/metric/{metric.pk}/activate/", follow=True).content.decode()
    shown = staff.get(page).content.decode()
    assert "SQL, calculated for each month" in shown
    assert "from compute_hours" in shown


def test_a_mistake_is_told_at_its_line(staff: Client, compute: UsageEvent) -> None:
    response = staff.post(ADD, entries(sql=SELECT.replace("compute_hours", "pg_class")))
    assert "line 2, column 6" in errors(response)["sql"][0].lower()
    assert 'data-tb-line="2"' in response.content.decode()
    assert not Metric.objects.exists()
    found = look(staff, sql=SELECT.replace("sum(", "pg_sleep("))
    assert (found["line"], found["chart"]) == (1, None)
    assert list(found["errors"]) == ["sql"]


def test_what_the_database_does_not_understand_has_its_line_too(staff: Client, compute: UsageEvent) -> None:
    response = staff.post(ADD, entries(sql=SELECT.replace("timestamp <", "region <")))
    assert list(errors(response)) == ["sql"]
    assert 'data-tb-line="3"' in response.content.decode()
    assert not Metric.objects.exists()


def test_other_mistakes_are_told_at_their_fields(staff: Client, compute: UsageEvent) -> None:
    assert list(errors(staff.post(ADD, entries(sql="")))) == ["sql"]
    assert list(errors(staff.post(ADD, entries(sql="x" * 100_000)))) == ["sql"]
    assert list(errors(staff.post(ADD, entries(sql_window="year")))) == ["sql_window"]
    assert list(errors(staff.post(ADD, entries(name="")))) == ["name"]
    assert not Metric.objects.exists()


def test_tables_are_those_of_the_organisation(staff: Client, compute: UsageEvent) -> None:
    other = Organisation.objects.create(name="Other", timezone="UTC")
    create_usage_event(other, name="Secret", slug="zanzibar", schema={"type": "object"})
    page = staff.get(ADD)
    tables = page.context["tables"]
    assert list(tables) == [str(compute.organisation_id)]
    names = [(table, [column for column, _ in columns]) for table, columns in tables[str(compute.organisation_id)]]
    assert names[0][0] == "compute_hours"
    assert {"customer_id", "timestamp", "cpu_usage_hours", "region"} <= set(names[0][1])
    assert "zanzibar" not in page.content.decode()
    refusal = errors(staff.post(ADD, entries(sql="select customer_id, 1 as quantity from zanzibar")))
    assert list(refusal) == ["sql"]


def test_an_organisation_is_chosen_by_who_works_for_several(compute: UsageEvent) -> None:
    other = Organisation.objects.create(name="Other", timezone="UTC")
    create_usage_event(other, name="Theirs", slug="theirs", schema={"type": "object"})
    both = staff_of(compute.organisation, other, name="both")
    theirs = "select customer_id, count(*) as quantity from theirs group by 1"
    assert list(errors(both.post(ADD, entries(sql=theirs, organisation=compute.organisation_id)))) == ["sql"]
    assert both.post(ADD, entries(sql=theirs, organisation=other.pk)).status_code == 302
    assert Metric.objects.get().organisation == other


def test_a_preview_runs_by_the_day(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, record("cus_1", hours=3), record("cus_1", "2025-06-18T01:00:00Z", hours=4), record("cus_2"))
    found = look(staff)
    assert found["errors"] == {}
    series = {one["label"]: one["values"][-2:] for one in found["chart"]["series"]}
    assert (found["chart"]["labels"][-1], series) == ("2025-06-18", {"cus_1": [3.0, 4.0], "cus_2": [1.0, None]})
    assert 'data-quantity="4"' in found["html"]
    assert not Metric.objects.exists()


def test_a_preview_by_the_month_looks_at_whole_months(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, record("cus_1", hours=3), record("cus_1", "2025-04-30T01:00:00Z", hours=4))
    found = look(staff, sql_window="month")
    assert found["chart"]["labels"] == ["2025-04", "2025-05", "2025-06"]
    assert found["chart"]["series"] == [{"label": "cus_1", "values": [4.0, None, 3.0]}]
    shorter = look(staff, sql_window="month", preview_window="day")
    assert shorter["errors"] == {"preview_window": ["The SQL is calculated for each month: a month or longer."]}


def test_further_columns_are_dimensions(staff: Client, compute: UsageEvent) -> None:
    data = [{"cpu_usage_hours": 1, "region": "eu"}, {"cpu_usage_hours": 2}]
    take_in(compute, *({**record(), "data": one} for one in data))
    text = SELECT.replace("as quantity", "as quantity, region").replace("by customer_id", "by customer_id, region")
    found = look(staff, sql=text)
    assert {one["label"]: one["values"][-1] for one in found["chart"]["series"]} == {
        "cus_1 · eu": 1.0,
        "cus_1 · not set": 2.0,
    }


def test_what_fails_while_it_runs_is_told(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, record(hours=0))
    found = look(staff, sql=SELECT.replace("sum(cpu_usage_hours)", "sum(1 / cpu_usage_hours)"))
    assert list(found["errors"]) == ["sql"]
    assert found["chart"] is None


def test_a_new_version_of_sql_is_sql(staff: Client, compute: UsageEvent) -> None:
    staff.post(ADD, entries())
    metric = Metric.objects.get()
    staff.post(f"/admin/metrics/metric/{metric.pk}/activate/")
    page = f"/admin/metrics/metric/{metric.pk}/new-version/"
    assert staff.get(page).context["form"]["sql"].value() == SELECT
    assert staff.post(page, entries(sql=SELECT + "\n-- as agreed")).status_code == 302
    assert list(Metric.objects.order_by("version").values_list("version", "status")) == [(1, "active"), (2, "draft")]


def test_nothing_that_can_be_typed_is_a_fault(staff: Client, compute: UsageEvent) -> None:
    for value in [*HOSTILE, "select", "select {{", "--", "/*", "$$", "(" * 5_000]:
        assert staff.post(PREVIEW, entries(sql=value)).status_code == 200, value[:20]
    for field in ("sql_window", "code", "organisation"):
        for value in HOSTILE:
            assert staff.post(ADD, entries(**{field: value})).status_code in (200, 302), (field, value[:20])
