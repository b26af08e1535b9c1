"""Drift: whatever is wrong in the stored hours is found and recorded; what only waits for a fold is not."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from pytest_django import Settings

from metrics import drift, drift_nights
from metrics.definitions import activate_metric, save_metric
from metrics.drift import CheckTookTooLong, NotComparable, Span, find_drift, forget_old_checks, unresolved
from metrics.drift_nights import check_sample, check_spans, metrics_to_check, night_plan, spans_in_doubt
from metrics.materialization import fold, rebuild, request_rebuild
from metrics.models import DriftCheck, Metric, MetricAggregate, MetricDistinctValue
from metrics.periods import PeriodError
from tests.conftest import active_metric, record, take_in
from tests.metrics.counting import expected_aggregates, stored_aggregates
from tests.metrics.scenes import metrics_of_each_kind
from tests.threads import run_together
from usage.corrections import Actor, correct_record, void_records
from usage.models import UsageEvent, UsageRecord

ACTOR = Actor(None, "someone")
START, END = datetime(2025, 6, 16, tzinfo=UTC), datetime(2025, 6, 20, tzinfo=UTC)
BY_HAND = DriftCheck.Kind.BY_HAND
KEY = "usage_event_id, metric_id, customer_id, window_start, dimensions"


def run_sql(statement: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.rowcount


def outcome(metric: Metric, start: datetime = START, end: datetime = END) -> list[tuple[str, str, int, int]]:
    """Check by hand: first day, day after the last, stored hours compared, differences of each run."""
    checks = find_drift(metric.pk, start, end, BY_HAND)
    assert checks == list(DriftCheck.objects.filter(metric=metric).order_by("pk"))[-len(checks) :]
    return [(f"{one.start:%m-%d}", f"{one.end:%m-%d}", one.windows, one.differences) for one in checks]


@pytest.fixture
def stored(compute: UsageEvent) -> UsageEvent:
    """Records of two customers in three days, which metrics made later are built from."""
    take_in(
        compute,
        record("cus_1", "2025-06-17T14:03:12Z", Decimal("1.5")),
        record("cus_1", "2025-06-17T14:30:00Z", Decimal("1.50")),
        record("cus_1", "2025-06-17T15:00:00Z", 3),
        record("cus_2", "2025-06-18T00:00:00Z", 4),
        {"customer_id": "cus_2", "timestamp": "2025-06-19T23:59:59Z", "data": {"region": "eu"}},
    )
    return compute


FORMULAS: dict[str, dict[str, Any]] = {
    "count": {"aggregation": "count", "group_by": ["region"]},
    "sum": {"aggregation": "sum", "property": "cpu_usage_hours"},
    "avg": {"aggregation": "avg", "expression": "cpu_usage_hours * 2"},
    "min": {"aggregation": "min", "property": "cpu_usage_hours"},
    "max": {"aggregation": "max", "property": "cpu_usage_hours"},
    "latest": {"aggregation": "latest", "property": "cpu_usage_hours"},
    "unique_count": {"aggregation": "unique_count", "property": "cpu_usage_hours", "group_by": ["region"]},
    "percentile": {"aggregation": "percentile", "property": "cpu_usage_hours", "percentile": 50},
    "weighted_sum": {"aggregation": "weighted_sum", "property": "cpu_usage_hours"},
}


@pytest.mark.parametrize("name", list(FORMULAS))
def test_healthy_hours_agree(stored: UsageEvent, name: str) -> None:
    metric = active_metric(stored, code="m", **FORMULAS[name])

    assert outcome(metric) == [("06-16", "06-20", 4, 0)]
    check = DriftCheck.objects.get()
    assert (check.kind, check.samples, check.start, check.end) == ("by_hand", [], START, END)
    assert unresolved([metric.pk]) == []


AT_14 = "window_start = '2025-06-17T14:00Z'"
WRONG: list[tuple[str, str]] = [
    ("sum", f"UPDATE metrics_metricaggregate SET sum = sum + 0.00000001 WHERE {AT_14}"),
    ("sum", f"UPDATE metrics_metricaggregate SET sum = null WHERE {AT_14}"),
    ("sum", f"UPDATE metrics_metricaggregate SET sum = 'NaN' WHERE {AT_14}"),
    ("sum", f"DELETE FROM metrics_metricaggregate WHERE {AT_14}"),
    ("sum", f"UPDATE metrics_metricaggregate SET dimensions = '[\"eu\"]' WHERE {AT_14}"),
    ("count", f"UPDATE metrics_metricaggregate SET record_count = record_count + 1 WHERE {AT_14}"),
    ("avg", f"UPDATE metrics_metricaggregate SET value_count = value_count - 1 WHERE {AT_14}"),
    ("min", f"UPDATE metrics_metricaggregate SET min = 1 WHERE {AT_14}"),
    ("max", f"UPDATE metrics_metricaggregate SET max = 1.6 WHERE {AT_14}"),
    ("latest", f"UPDATE metrics_metricaggregate SET latest_value = 7 WHERE {AT_14}"),
    ("latest", f"UPDATE metrics_metricaggregate SET latest_timestamp = '2025-06-17T14:03:12Z' WHERE {AT_14}"),
    ("latest", f"UPDATE metrics_metricaggregate SET latest_record_id = latest_record_id - 1 WHERE {AT_14}"),
    ("percentile", f"UPDATE metrics_metricaggregate SET record_count = 3 WHERE {AT_14}"),
    ("unique_count", f"UPDATE metrics_metricdistinctvalue SET record_count = 1 WHERE {AT_14}"),
    ("unique_count", f"UPDATE metrics_metricdistinctvalue SET value_hash = gen_random_uuid() WHERE {AT_14}"),
    ("unique_count", f"DELETE FROM metrics_metricdistinctvalue WHERE {AT_14}"),
]


@pytest.mark.parametrize(("name", "statement"), WRONG, ids=lambda text: text[:60])
def test_whatever_is_wrong_is_found_recorded_and_mended_by_a_rebuild(
    stored: UsageEvent, name: str, statement: str, caplog: pytest.LogCaptureFixture
) -> None:
    metric = active_metric(stored, code="m", **FORMULAS[name])
    healthy = active_metric(stored, code="other", **FORMULAS[name])
    assert run_sql(f"{statement} AND metric_id = {metric.pk}") == 1

    assert [(start, end, bool(wrong)) for start, end, _, wrong in outcome(metric)] == [
        ("06-16", "06-17", False),
        ("06-17", "06-18", True),
        ("06-18", "06-20", False),
    ]
    errors = [entry for entry in caplog.records if entry.levelno == logging.ERROR]
    assert [f"metric={metric.pk} kind=by_hand from=2025-06-17" in entry.getMessage() for entry in errors] == [True]
    assert outcome(healthy) == [("06-16", "06-20", 4, 0)]
    found = [(one.metric, one.start.day, one.end.day) for one in unresolved([metric.pk, healthy.pk])]
    assert found == [(metric, 17, 18)]

    assert request_rebuild(metric.pk)
    with pytest.raises(NotComparable, match="being rebuilt"):
        find_drift(metric.pk, START, END, BY_HAND)
    assert rebuild(metric.pk)
    assert stored_aggregates(metric) == expected_aggregates(metric)
    assert len(unresolved([metric.pk])) == 1, "a rebuild is believed once it was checked"
    assert outcome(metric, START + timedelta(days=1), START + timedelta(days=2)) == [("06-17", "06-18", 2, 0)]
    assert unresolved([metric.pk]) == []


def test_a_sample_shows_both_sides(stored: UsageEvent) -> None:
    metric = active_metric(stored, code="m", **FORMULAS["sum"])
    run_sql(f"UPDATE metrics_metricaggregate SET sum = 3.10 WHERE {AT_14}")
    run_sql("DELETE FROM metrics_metricaggregate WHERE window_start = '2025-06-17T15:00Z'")

    find_drift(metric.pk, START, END, BY_HAND)

    assert DriftCheck.objects.get(differences__gt=0).samples == [
        {
            "customer_id": "cus_1",
            "window_start": "2025-06-17T14:00:00Z",
            "dimensions": [],
            "stored": {"record_count": 2, "value_count": 2, "sum": Decimal("3.10")},
            "recounted": {"record_count": 2, "value_count": 2, "sum": Decimal("3.00")},
        },
        {
            "customer_id": "cus_1",
            "window_start": "2025-06-17T15:00:00Z",
            "dimensions": [],
            "stored": None,
            "recounted": {"record_count": 1, "value_count": 1, "sum": 3},
        },
    ]


def test_samples_of_distinct_values_name_the_hash(stored: UsageEvent) -> None:
    metric = active_metric(stored, code="m", **FORMULAS["unique_count"])
    row = MetricDistinctValue.objects.get(window_start=datetime(2025, 6, 17, 14, tzinfo=UTC))
    run_sql(f"UPDATE metrics_metricdistinctvalue SET record_count = 5 WHERE {AT_14}")

    assert outcome(metric)[1] == ("06-17", "06-18", 2, 1)
    (sample,) = DriftCheck.objects.get(differences__gt=0).samples
    assert (sample["value_hash"], sample["dimensions"]) == (str(row.value_hash), [[]])
    assert (sample["stored"], sample["recounted"]) == ({"record_count": 5}, {"record_count": 2})


def test_rows_that_nothing_accounts_for_are_found_also_where_there_is_no_record(stored: UsageEvent) -> None:
    metric = active_metric(stored, code="m", **FORMULAS["count"])
    customer = UsageRecord.objects.earliest("id").customer_id
    for moment in ("2025-06-19T05:00Z", "2003-01-01T00:00Z"):
        run_sql(
            f"INSERT INTO metrics_metricaggregate ({KEY}, record_count, value_count)"
            f" VALUES ({stored.pk}, {metric.pk}, {customer}, '{moment}', '[[]]', 1, 1)"
        )

    assert outcome(metric, datetime(2000, 1, 1, tzinfo=UTC), datetime(2101, 1, 1, tzinfo=UTC)) == [
        ("01-01", "06-17", 1, 1),
        ("06-17", "06-19", 3, 0),
        ("06-19", "06-20", 2, 1),
        ("06-20", "01-01", 0, 0),
    ]
    assert DriftCheck.objects.order_by("pk")[0].samples[0]["recounted"] is None


def test_at_most_twenty_samples_are_kept(compute: UsageEvent, cpu_hours: Metric) -> None:
    take_in(compute, *(record(f"c{number}", "2025-06-17T00:00:00Z") for number in range(15)))
    take_in(compute, *(record(f"c{number}", "2025-06-18T00:00:00Z") for number in range(15)))
    fold(compute.pk)
    run_sql("UPDATE metrics_metricaggregate SET sum = 9")

    assert outcome(cpu_hours)[1:-1] == [("06-17", "06-19", 30, 30)]
    assert len(DriftCheck.objects.get(differences=30).samples) == 20


# --- what is no drift -------------------------------------------------------------------------------------------------


def test_what_waits_for_a_fold_is_no_drift(stored: UsageEvent) -> None:
    metrics = metrics_of_each_kind(stored)
    take_in(stored, record("cus_2", "2025-06-18T00:59:59Z", 9), record("cus_3", "2025-06-18T02:00:00Z", 9))
    for metric in metrics:
        assert [wrong for *_, wrong in outcome(metric)] == [0], metric.code
    take_in(stored, record("cus_1", "2025-06-17T14:59:59Z", 9), record("cus_3", "2025-06-18T01:00:00Z", 9))
    first = UsageRecord.objects.earliest("id")
    correct_record(first.pk, customer_id="cus_4", data={"cpu_usage_hours": 8}, revision=1, reason="r", actor=ACTOR)
    void_records(stored.pk, [UsageRecord.objects.latest("id").pk], reason="r", actor=ACTOR)

    for metric in metrics:
        assert [wrong for *_, wrong in outcome(metric)] == [0], metric.code
    fold(stored.pk)
    for metric in metrics:
        assert [wrong for *_, wrong in outcome(metric)] == [0], metric.code


def test_a_difference_beside_marks_and_pending_batches_is_found(stored: UsageEvent) -> None:
    metric = active_metric(stored, code="m", **FORMULAS["sum"])
    take_in(stored, record("cus_1", "2025-06-17T15:00:00Z", 9))
    void_records(stored.pk, [UsageRecord.objects.earliest("id").pk], reason="r", actor=ACTOR)
    run_sql("UPDATE metrics_metricaggregate SET sum = 9 WHERE window_start = '2025-06-17T15:00Z'")

    assert [wrong for *_, wrong in outcome(metric)] == [0, 1, 0]


def test_nothing_differs_while_others_write_correct_and_fold(compute: UsageEvent) -> None:
    metrics = metrics_of_each_kind(compute)
    working = [2]

    def at_work(job: Callable[[int], Any]) -> Callable[[], None]:
        def run() -> None:
            try:
                for number in range(25):
                    job(number)
            finally:
                working[0] -= 1

        return run

    def write(number: int) -> None:
        take_in(compute, *(record(f"c{i % 3}", f"2025-06-17T0{i % 5}:00:00Z", number + i) for i in range(6)))

    def change(number: int) -> None:
        for one in UsageRecord.objects.order_by("?")[:2]:
            void_records(compute.pk, [one.pk], reason="r", actor=ACTOR)

    def fold_all() -> None:
        while working[0] > 0:
            fold(compute.pk)

    def check() -> None:
        rounds = 0
        while working[0] > 0 or not rounds:
            for metric in metrics:
                assert [one.differences for one in find_drift(metric.pk, START, END, BY_HAND)] == [0]
            rounds += 1

    run_together(at_work(write), at_work(change), fold_all, check)
    fold(compute.pk)
    assert [check.windows for check in find_drift(metrics[0].pk, START, END, BY_HAND)] == [6]
    assert not DriftCheck.objects.filter(differences__gt=0).exists()


# --- what cannot be checked -------------------------------------------------------------------------------------------


def test_only_complete_stored_hours_are_compared(stored: UsageEvent) -> None:
    metric = Metric(organisation=stored.organisation, usage_event=stored, code="m", name="M", aggregation="count")
    save_metric(metric)
    with pytest.raises(NotComparable, match="draft"):
        find_drift(metric.pk, START, END, BY_HAND)
    activate_metric(metric.pk)
    with pytest.raises(NotComparable, match="building"):
        find_drift(metric.pk, START, END, BY_HAND)
    Metric.objects.filter(pk=metric.pk).update(status="active", usage_event=None, activated_at=START)
    with pytest.raises(NotComparable, match="SQL"):
        find_drift(metric.pk, START, END, BY_HAND)
    assert (metrics_to_check(), night_plan(metric.pk)) == ([], [])
    assert not DriftCheck.objects.exists()


@pytest.mark.parametrize(
    ("start", "end"),
    [(START, START), (END, START), (START + timedelta(minutes=30), END), (START, END + timedelta(microseconds=1))],
)
def test_bounds_are_whole_hours(cpu_hours: Metric, start: datetime, end: datetime) -> None:
    with pytest.raises(PeriodError):
        find_drift(cpu_hours.pk, start, end, BY_HAND)
    assert not DriftCheck.objects.exists()


def test_hours_of_a_day_can_be_checked(stored: UsageEvent) -> None:
    metric = active_metric(stored, code="m", **FORMULAS["sum"])
    run_sql(f"UPDATE metrics_metricaggregate SET sum = 9 WHERE {AT_14}")
    at_15 = datetime(2025, 6, 17, 15, tzinfo=UTC)

    assert [(one.windows, one.differences) for one in find_drift(metric.pk, at_15, END, BY_HAND)] == [(3, 0)]
    (found,) = find_drift(metric.pk, at_15 - timedelta(hours=1), at_15, BY_HAND)
    assert (found.windows, found.differences, found.start, found.end) == (1, 1, at_15 - timedelta(hours=1), at_15)


def test_what_was_compared_before_the_time_was_over_is_recorded(stored: UsageEvent) -> None:
    metric = active_metric(stored, code="m", **FORMULAS["sum"])
    (check,) = find_drift(metric.pk, START, END, BY_HAND, seconds=0)
    assert (check.start, check.end) == (START, START + timedelta(days=1))


def test_a_day_that_takes_too_long_is_named(
    stored: UsageEvent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    metric = active_metric(stored, code="m", **FORMULAS["sum"])
    real = drift.drift_sql.compare

    def slow_on_the_18th(cursor: Any, metric: Metric, place: Any, samples: int) -> Any:
        if place.start.day == 18:
            cursor.execute("SELECT pg_sleep(5)")
        return real(cursor, metric, place, samples)

    monkeypatch.setattr(drift.drift_sql, "compare", slow_on_the_18th)
    with pytest.raises(CheckTookTooLong, match=r"comparing 2025-06-18 takes longer than 0\.2 s") as refused:
        find_drift(metric.pk, START, END, BY_HAND, statement_seconds=0.2)
    assert (refused.value.start.day, refused.value.end.day) == (18, 19)
    check = DriftCheck.objects.get()
    assert (check.start.day, check.end.day, check.windows) == (16, 18, 2)

    with monkeypatch.context() as patch:
        patch.setattr(drift.settings, "DRIFT_SECONDS", 0.2)
        assert check_spans(metric.pk, [Span(START, END)], seconds=60) == []
    assert "comparing 2025-06-18 takes longer" in caplog.text
    assert [(one.start.day, one.end.day) for one in DriftCheck.objects.order_by("pk")[1:]] == [(16, 18), (19, 20)]


# --- nights -----------------------------------------------------------------------------------------------------------

NIGHT = datetime(2025, 9, 1, 3, 10, tzinfo=UTC)
RECENT = Span(datetime(2025, 7, 28, tzinfo=UTC), datetime(2025, 9, 1, tzinfo=UTC))


def compared(metric: Metric, start: datetime, end: datetime, *, differences: int = 0, **more: Any) -> DriftCheck:
    fields = {"kind": DriftCheck.Kind.CLOSED_DAY, "windows": 1, "milliseconds": 1, **more}
    return DriftCheck.objects.create(metric=metric, start=start, end=end, differences=differences, **fields)


def test_a_night_compares_the_last_weeks_and_some_of_history(stored: UsageEvent) -> None:
    metric = active_metric(stored, code="m", **FORMULAS["sum"])
    first, behind = datetime(2000, 1, 1, tzinfo=UTC), datetime(2025, 7, 22, tzinfo=UTC)

    assert night_plan(metric.pk, NIGHT) == [RECENT, Span(first, behind)]
    assert night_plan(metric.pk, NIGHT.replace(hour=1, minute=59))[0].end == RECENT.end - timedelta(days=1)
    compared(metric, first, behind)
    assert night_plan(metric.pk, NIGHT) == [RECENT, Span(behind, RECENT.start)]
    compared(metric, behind, RECENT.end)
    assert night_plan(metric.pk, NIGHT) == [RECENT]
    # What was compared before the metric was in force says nothing of it, and a sample little.
    DriftCheck.objects.update(checked_at=metric.activated_at - timedelta(seconds=1))  # type: ignore[operator]
    compared(metric, first, RECENT.end, kind=DriftCheck.Kind.SAMPLE)
    assert night_plan(metric.pk, NIGHT) == [RECENT, Span(first, behind)]


def test_what_differed_is_compared_again_every_night_until_it_agrees(stored: UsageEvent) -> None:
    metric = active_metric(stored, code="m", **FORMULAS["sum"])
    compared(metric, datetime(2000, 1, 1, tzinfo=UTC), RECENT.end)
    run_sql(f"UPDATE metrics_metricaggregate SET sum = 9 WHERE {AT_14}")
    on_17, on_18, on_19 = (datetime(2025, 6, day, tzinfo=UTC) for day in (17, 18, 19))
    compared(metric, on_17, on_19, differences=2)

    plan = night_plan(metric.pk, NIGHT)
    assert plan == [Span(on_17, on_19), RECENT]
    assert check_spans(metric.pk, plan, seconds=60) == []
    assert spans_in_doubt(metric.pk) == [Span(on_17, on_18)]
    assert night_plan(metric.pk, NIGHT) == [Span(on_17, on_18), RECENT]

    request_rebuild(metric.pk)
    rebuild(metric.pk)
    check_spans(metric.pk, night_plan(metric.pk, NIGHT), seconds=60)
    assert night_plan(metric.pk, NIGHT) == [RECENT]


def test_a_difference_within_the_last_weeks_is_not_compared_twice(cpu_hours: Metric) -> None:
    compared(cpu_hours, datetime(2000, 1, 1, tzinfo=UTC), RECENT.end)
    compared(cpu_hours, RECENT.start - timedelta(days=1), RECENT.end + timedelta(hours=5), differences=1)

    assert night_plan(cpu_hours.pk, NIGHT) == [
        Span(RECENT.start - timedelta(days=1), RECENT.start),
        Span(RECENT.end, RECENT.end + timedelta(hours=5)),
        RECENT,
    ]


def test_slices_of_a_night_go_on_where_the_last_one_ended(stored: UsageEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = active_metric(stored, code="m", **FORMULAS["sum"])
    left = [Span(START, END), Span(END, END + timedelta(days=1))]
    slices = 0
    while left:
        left = check_spans(metric.pk, left, seconds=0.0001)
        slices += 1

    assert slices == 5
    covered = [(one.start.day, one.end.day) for one in DriftCheck.objects.order_by("pk")]
    assert covered == [(16, 17), (17, 18), (18, 19), (19, 20), (20, 21)]
    Metric.objects.filter(pk=metric.pk).update(status="retired")
    assert check_spans(metric.pk, [Span(START, END)], seconds=60) == []


def test_a_later_check_settles_only_what_it_covered(stored: UsageEvent) -> None:
    metric = active_metric(stored, code="m", **FORMULAS["sum"])
    days = [START + timedelta(days=number) for number in range(5)]
    compared(metric, days[0], days[4], differences=4)
    compared(metric, days[1], days[2])
    compared(metric, days[3], days[4], kind=DriftCheck.Kind.SAMPLE)
    found = [(one.start, one.end) for one in unresolved([metric.pk])]
    assert found == [(days[0], days[1]), (days[2], days[4])]
    compared(metric, days[0], days[1], kind=DriftCheck.Kind.BY_HAND)
    compared(metric, days[2], days[4], kind=DriftCheck.Kind.CLOSED_DAY)
    assert unresolved([metric.pk]) == []
    compared(metric, days[2], days[3], differences=1, kind=DriftCheck.Kind.SAMPLE)
    assert [(one.start, one.check.kind) for one in unresolved([metric.pk])] == [(days[2], "sample")]
    Metric.objects.filter(pk=metric.pk).update(status="retired")
    assert unresolved([metric.pk]) == [], "nobody reads what a retired version has stored"


def test_a_sample_finds_a_wrong_day_and_a_missing_one(compute: UsageEvent, cpu_hours: Metric) -> None:
    for customer in range(8):
        take_in(compute, *(record(f"c{customer}", f"2025-0{month}-17T14:00:00Z") for month in (3, 4, 5)))
    fold(compute.pk)
    (clean,) = check_sample(cpu_hours.pk, seed=1)
    assert (clean.kind, clean.differences) == ("sample", 0)
    assert 8 <= clean.windows <= 24

    run_sql("UPDATE metrics_metricaggregate SET sum = 9 WHERE window_start = '2025-03-17T14:00Z'")
    run_sql("DELETE FROM metrics_metricaggregate WHERE window_start = '2025-05-17T14:00Z'")
    agreeing, *differing = check_sample(cpu_hours.pk, seed=1)
    assert agreeing.differences == 0
    assert [(one.start.month, one.start.day, one.end.day) for one in differing] == [(3, 17, 18), (5, 17, 18)]
    assert sum(one.windows for one in (agreeing, *differing)) == clean.windows
    assert [one.start.month for one in unresolved([cpu_hours.pk])] == [5, 3]


def test_a_sample_is_the_same_for_the_same_seed_and_bounded(compute: UsageEvent, cpu_hours: Metric) -> None:
    for customer in range(12):
        take_in(compute, *(record(f"c{customer}", f"2025-05-{day}T14:00:00Z") for day in range(10, 28)))
    fold(compute.pk)
    picked = [
        drift_nights._random_days(cpu_hours, RECENT.start, drift_nights.random.Random(seed), 6) for seed in (1, 1, 2)
    ]
    assert picked[0] == picked[1] != picked[2]
    assert [len(days) for days in picked] == [6, 6, 6]
    assert sum(check.windows for check in check_sample(cpu_hours.pk, size=6)) == 6


def test_without_history_there_is_no_sample(compute: UsageEvent, cpu_hours: Metric) -> None:
    take_in(compute, record(timestamp=datetime.now(UTC).isoformat()))
    assert check_sample(cpu_hours.pk) == []
    assert not DriftCheck.objects.exists()


def test_old_checks_are_forgotten_unless_their_difference_stands(stored: UsageEvent) -> None:
    metric = active_metric(stored, code="m", **FORMULAS["sum"])
    long_ago = datetime.now(UTC) - timedelta(days=401)
    compared(metric, START, END, checked_at=long_ago)
    standing = compared(metric, START, END, differences=1, checked_at=long_ago + timedelta(hours=1))
    newer = compared(metric, END, END + timedelta(days=1))

    assert forget_old_checks([metric.pk]) == 1
    assert list(DriftCheck.objects.order_by("pk")) == [standing, newer]
    compared(metric, START, END)
    assert forget_old_checks([metric.pk]) == 1


def test_a_check_reads_and_changes_nothing(stored: UsageEvent, settings: Settings) -> None:
    metric = active_metric(stored, code="m", **FORMULAS["unique_count"])
    run_sql(f"UPDATE metrics_metricaggregate SET record_count = 9 WHERE {AT_14}")
    before = list(MetricAggregate.objects.values()), list(MetricDistinctValue.objects.values())

    assert sum(wrong for *_, wrong in outcome(metric)) == 1
    assert (list(MetricAggregate.objects.values()), list(MetricDistinctValue.objects.values())) == before
