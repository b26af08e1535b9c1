"""Growth: what the same things cost on one, five and twenty million records, one line each."""

import statistics
from collections.abc import Callable
from datetime import timedelta

from metrics.models import Metric
from metrics.quantities import quantities
from metrics.questions import Question
from tests.benchmarks.folding import take_in, times
from tests.benchmarks.measuring import Report, seconds
from tests.benchmarks.reading import MONTH, by_usage, corrected_seconds, reading_seconds
from tests.benchmarks.scene import Scene
from usage.record_filters import RecordFilter
from usage.record_queries import list_records

SIZES = (1_000_000, 5_000_000, 20_000_000)


def measure(report: Report, scene: Scene) -> None:
    """Print the lines; each size is a usage event of its own, in the same table as the smaller ones."""
    sizes = SIZES if not report.quick else (100_000, 200_000)
    columns: list[dict[str, float]] = []
    for size in sizes:
        columns.append(figures(scene, scene.history(f"growth_{size}", size)))
        print(f"      {size:,}: {columns[-1]}", flush=True)
    print(f"{'milliseconds, medians':<66}" + "".join(f"{size:>14,}" for size in sizes))
    for name in columns[0]:
        print(f"{name:<66}" + "".join(f"{column[name]:>14,.1f}" for column in columns), flush=True)
    report.figures["growth"] = dict(zip(map(str, sizes), columns, strict=True))


def figures(scene: Scene, metric: Metric) -> dict[str, float]:
    """Return milliseconds by what was done, on a usage event with a history."""
    assert metric.usage_event is not None
    usage_event = metric.usage_event
    ranked = by_usage(metric)
    heavy, median = ranked[-1], ranked[len(ranked) // 2]
    names = {pk: name for name, pk in scene.customer_ids.items()}
    (folded,) = times(scene, [metric], 100_000, recomputes=1)
    month = Question(start=MONTH[0], end=MONTH[1], customer_ids=[names[median]])
    day = Question(start=MONTH[0], end=MONTH[0] + timedelta(days=1))
    place = RecordFilter(usage_event.organisation_id, usage_event_id=usage_event.pk)

    def typical(work: Callable[[], object]) -> float:
        work()
        return statistics.median(seconds(work) for _ in range(9)) * 1000

    return {
        "ingest a batch of 1,000": statistics.median(take_in(scene, usage_event, 1_000) for _ in range(15)) * 1000,
        "fold 100,000 new records": folded["fold"] * 1000,
        "compute all aggregates anew": folded["recompute"] * 1000,
        "correct a record": corrected_seconds(metric, ranked[-1]) * 1000,
        "read a heavy customer's month by the hour for the first time": reading_seconds(metric, heavy)[0] * 1000,
        "read it from its records": reading_seconds(metric, heavy)[1] * 1000,
        "a median customer's total of a month": typical(lambda: quantities(scene.organisation.pk, metric.code, month)),
        "100 customers' totals of a day": typical(lambda: quantities(scene.organisation.pk, metric.code, day)),
        "a page of the list of records": typical(lambda: list_records(place)),
    }
