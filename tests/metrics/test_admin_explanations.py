"""The pages that explain: how a quantity came about, down to its records; and what metrics make of one record."""

from decimal import Decimal
from typing import Any

import pytest
from django.test import Client, override_settings

from customers.models import Organisation
from metrics.admin import explanations as explanation_pages
from metrics.admin.explanations import asked_text
from metrics.definitions import activate_metric, save_metric
from metrics.materialization import fold
from metrics.models import Metric, MetricAggregate
from tests.conftest import COMPUTE_SCHEMA, active_metric, record, take_in
from tests.people import HOSTILE, staff_of
from usage.corrections import Actor, void_records
from usage.definitions import create_usage_event
from usage.models import IngestBatch, UsageEvent, UsageRecord

EXPLAIN = "/admin/metrics/metric/quantities/explain/"
ACTOR = Actor(None, "someone")
NOT_US = {"all": [{"property": "region", "operator": "ne", "value": "us"}]}


@pytest.fixture
def staff(organisation: Organisation) -> Client:
    return staff_of(organisation)


@pytest.fixture
def hours(compute: UsageEvent) -> Metric:
    """An active metric of hours by region, which leaves the region “us” out."""
    return active_metric(
        compute, code="hours", name="Hours", aggregation="sum", property="cpu_usage_hours", filters=NOT_US,
        group_by=["region"], unit="h",
    )  # fmt: skip


def usage(region: str | None, hours: Any, day: int = 17) -> dict[str, Any]:
    data = {"cpu_usage_hours": hours, "region": region}
    return {
        "customer_id": "cus_1",
        "timestamp": f"2025-06-{day:02}T14:03:12Z",
        "data": {name: value for name, value in data.items() if value is not None},
    }


def ask(client: Client, metric: Metric, /, **more: Any) -> Any:
    june = {"metric": metric.pk, "customer_id": "cus_1", "start": "2025-06-01", "end": "2025-07-01"}
    return client.get(EXPLAIN, {**june, **more})


def records(response: Any) -> list[tuple[str | None, str]]:
    """Return value and reason of the records that the page shows."""
    assert response.status_code == 200
    return [(row["record"].value, row["reason"]) for row in response.context["records"]]


def test_a_quantity_is_explained_down_to_its_records(staff: Client, compute: UsageEvent, hours: Metric) -> None:
    take_in(compute, usage("eu", Decimal("1.50")), usage("us", 2), usage("eu", None), usage("eu", 4))
    fold(compute.pk)
    void_records(compute.pk, [UsageRecord.objects.latest("id").pk], reason="r", actor=ACTOR)
    take_in(compute, usage("asia", Decimal(10) ** 40, day=18))
    batch = IngestBatch.objects.latest("pk")

    response = ask(staff, hours)

    page = response.content.decode()
    assert f'data-quantity="1{"0" * 39}1.5"' in page
    assert response.context["found"].tally == (2, 1, 1, 1)
    assert "Counted again" in page
    assert records(response) == [("1.50", ""), ("1" + "0" * 40, "")]
    assert "Sum of cpu_usage_hours by region, where region is not “us”" in page
    shown = [(row["words"], row["part"].record_count, row["batch_url"]) for row in response.context["parts"]]
    url = f"/admin/usage/ingestbatch/{batch.pk}/change/"
    assert shown == [("Changed hour", 2, ""), ("Pending batch", 1, url)]
    assert staff.get(url).status_code == 200
    for row in response.context["records"]:
        assert f'href="/admin/usage/usagerecord/{row["record"].id}/change/"' in page

    everything = staff.get(EXPLAIN + response.context["toggle_url"].removesuffix("#records"))
    assert records(everything) == [
        ("1.50", ""),
        ("2", "Filtered out"),
        (None, "No value"),
        ("4", "Void"),
        ("1" + "0" * 40, ""),
    ]
    back = staff.get(EXPLAIN + everything.context["toggle_url"].removesuffix("#records"))
    assert records(back) == records(response)
    listed = staff.get(response.context["records_url"]).context["cl"].result_list
    assert len(listed) == 5


def test_records_come_in_pages(
    staff: Client, compute: UsageEvent, hours: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explanation_pages, "RECORDS_SHOWN", 2)
    take_in(compute, *(usage("eu", n) for n in range(5)))
    first = ask(staff, hours)
    second = staff.get(EXPLAIN + first.context["next_url"].removesuffix("#records"))
    third = staff.get(EXPLAIN + second.context["next_url"].removesuffix("#records"))

    assert [value for page in (first, second, third) for value, _ in records(page)] == [*"01234"]
    assert "next_url" not in third.context
    again = staff.get(EXPLAIN + third.context["previous_url"].removesuffix("#records"))
    assert records(again) == records(second)
    assert records(ask(staff, hours, cursor="nonsense")) == records(first)


def test_dimensions_narrow_it_down(staff: Client, compute: UsageEvent, hours: Metric) -> None:
    take_in(compute, usage("eu", 1), usage("asia", 2), usage(None, 4))
    assert ask(staff, hours, **{"filter.region": "eu"}).context["found"].quantity == 1
    assert ask(staff, hours, **{"filter.region": ["eu", "asia"]}).context["found"].quantity == 3
    page = ask(staff, hours, **{"filter.region": "eu\nasia"})
    assert "only region eu or asia" in page.content.decode()
    assert [row["dimensions"] for row in ask(staff, hours).context["records"]] == [["eu"], ["asia"], ["not set"]]


def test_what_is_stored_wrongly_is_an_alarm(staff: Client, compute: UsageEvent, hours: Metric) -> None:
    take_in(compute, usage("eu", 1))
    fold(compute.pk)
    MetricAggregate.objects.update(sum=1000)

    page = ask(staff, hours).content.decode()

    assert "From the records alone it is 1." in page
    assert "Counted again" not in page


def test_a_held_value_names_its_record(staff: Client, compute: UsageEvent) -> None:
    metric = active_metric(compute, code="held", aggregation="weighted_sum", property="cpu_usage_hours")
    take_in(compute, {**usage("eu", 3), "timestamp": "2025-05-17T14:03:12Z"}, usage("eu", 0, day=2))

    response = ask(staff, metric, end="2025-06-02T14:03:12")

    page = response.content.decode()
    assert "Held when the period began" in page
    assert [row["record"].value for row in response.context["carried_in"]] == ["3"]
    assert f"/admin/usage/usagerecord/{UsageRecord.objects.earliest('timestamp').pk}/change/" in page
    assert "as always with this aggregation" in page


def test_sql_shows_what_was_run(staff: Client, compute: UsageEvent) -> None:
    text = """SELECT customer_id, sum(cpu_usage_hours) AS quantity FROM compute_hours
              WHERE timestamp >= {{start_date}} AND timestamp < {{end_date}}
              AND customer_id = {{customer.external_id}} GROUP BY 1"""
    metric = save_metric(Metric(organisation=compute.organisation, code="s", name="S", sql=text, sql_window="day"))
    activate_metric(metric.pk)
    take_in(compute, usage("eu", 3), usage("eu", 4, day=18))

    response = ask(staff, metric, start="2025-06-17T12:00:00", end="2025-06-19", timezone="Asia/Kolkata")

    assert response.context["found"].quantity == 7
    assert response.context["bound"] == [
        ("start_date", "2025-06-17T12:00:00Z"),
        ("end_date", "2025-06-17T18:30:00Z"),
        ("customer.external_id", "cus_1"),
    ]
    assert response.context["found"].tables == ["compute_hours"]
    assert [row["words"] for row in response.context["parts"]] == ["SQL", "SQL", "SQL"]
    page = response.content.decode()
    assert "which records it counted is not known" in page
    assert 'id="result_list"' not in page


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("customer_id", "", "required"),
        ("customer_id", "nobody", "There is no customer “nobody”."),
        ("start", "", "required"),
        ("start", "yesterday", "A date or time was expected"),
        ("end", "2025-06-01", "The end must be after the start."),
        ("end", "9999-01-01", "A date or time was expected"),
        ("timezone", "Mars/Base", "valid choice"),
        ("include", "everything", "valid choice"),
    ],
)
def test_what_cannot_be_explained_is_told_at_its_field(
    staff: Client, compute: UsageEvent, hours: Metric, field: str, value: str, message: str
) -> None:
    take_in(compute, usage("eu", 1))
    response = ask(staff, hours, **{field: value})
    assert response.status_code == 200
    errors = dict(response.context["form"].errors)
    assert list(errors) == [field]
    assert message in errors[field][0]
    assert "found" not in response.context


def test_no_question_is_a_fault(staff: Client, compute: UsageEvent, hours: Metric) -> None:
    take_in(compute, usage("eu", 1))
    for field in ("metric", "customer_id", "start", "end", "timezone", "include", "cursor", "filter.region"):
        for value in HOSTILE:
            assert ask(staff, hours, **{field: value[:5_000]}).status_code == 200, (field, value[:20])


def test_what_takes_too_long_is_told_at_the_end(staff: Client, compute: UsageEvent) -> None:
    metric = active_metric(compute, code="m", aggregation="percentile", property="cpu_usage_hours", percentile=50)
    take_in(compute, *(usage("eu", n) for n in range(3000)))
    with override_settings(QUANTITIES_SECONDS=0.001):
        found = [list(ask(staff, metric).context["form"].errors) for _ in range(10)]
    assert ["end"] in found


def test_metrics_that_are_not_active_say_so(staff: Client, compute: UsageEvent) -> None:
    draft = save_metric(
        Metric(organisation=compute.organisation, usage_event=compute, code="m", name="M", aggregation="count")
    )
    take_in(compute, usage("eu", 1))
    assert "The metric is a draft" in ask(staff, draft).content.decode()
    activate_metric(draft.pk)
    assert "being calculated from history" in ask(staff, draft).content.decode()
    empty = staff.get(EXPLAIN)
    assert (empty.status_code, empty.context["form"].is_bound) == (200, False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("eu", "eu"),
        (" eu ", " eu "),
        (True, "true"),
        (1, "1"),
        (Decimal("1E+2"), "100"),
        (Decimal("-0.50"), "-0.50"),
        (None, None),
        ("", None),
        ("a\nb", None),
        ({"sha256": "00"}, None),
    ],
)
def test_some_dimensions_can_be_asked_for_by_text(value: Any, text: str | None) -> None:
    assert asked_text(value) == text


# --- metrics of a record ---------------------------------------------------------------------------------------------


def test_a_record_tells_which_metrics_count_it(staff: Client, compute: UsageEvent, hours: Metric) -> None:
    active_metric(compute, code="monthly", name="Monthly", aggregation="sum", property="cpu_usage_hours_per_month")
    active_metric(compute, code="calls", name="Calls", aggregation="count")
    take_in(compute, usage("us", 2))
    stored = UsageRecord.objects.get()
    link = f"/admin/metrics/metric/records/{stored.pk}/"
    assert f'href="{link}"' in staff.get(f"/admin/usage/usagerecord/{stored.pk}/change/").content.decode()

    response = staff.get(link)

    shown = [
        (row["one"].metric.code, row["one"].counted, row["reason"], row["one"].value)
        for row in response.context["rows"]
    ]
    assert shown == [
        ("calls", True, "", "1"),
        ("hours", False, "Filtered out", "2"),
        ("monthly", False, "No value", None),
    ]
    page = response.content.decode()
    assert "not so: region is not “us”" in page
    assert "now read from the records: its batch is pending" in page
    explained = staff.get(response.context["rows"][0]["explain_url"]).context["found"]
    assert (explained.metric.code, explained.quantity, len(explained.parts)) == ("calls", 1, 1)


def test_a_record_that_nothing_counts(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, usage("us", 2))
    page = staff.get(f"/admin/metrics/metric/records/{UsageRecord.objects.get().pk}/").content.decode()
    assert "No metric counts records of Compute hours" in page


def test_records_that_are_not_there(staff: Client, compute: UsageEvent) -> None:
    other = Organisation.objects.create(name="Other")
    theirs = create_usage_event(other, name="T", slug="t", schema=COMPUTE_SCHEMA)
    take_in(theirs, record("secret_customer"))
    for pk in (UsageRecord.objects.get().pk, 10**17, 10**30):
        response = staff.get(f"/admin/metrics/metric/records/{pk}/")
        assert (response.status_code, b"secret_customer" in response.content) == (404, False)


def test_metrics_of_others_cannot_be_explained(staff: Client, compute: UsageEvent) -> None:
    other = Organisation.objects.create(name="Other")
    theirs = create_usage_event(other, name="T", slug="t", schema=COMPUTE_SCHEMA)
    metric = active_metric(theirs, code="secret_code", name="secret_name", aggregation="count")
    take_in(theirs, record("cus_1"))
    response = ask(staff, metric)
    assert (response.status_code, "found" in response.context, b"secret" in response.content) == (200, False, False)
    assert staff_of(name="nobody").get(EXPLAIN).status_code == 403
