"""What a night compares of a metric: where it differed, the last weeks, some more of history, and days at random."""

import logging
import random
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import reduce
from operator import add

from django.conf import settings
from django.db import connection
from django.utils.timezone import now

from metrics import drift_sql
from metrics.drift import (
    DAY,
    CheckTookTooLong,
    NotComparable,
    Span,
    comparable,
    compare,
    day_of,
    find_drift,
    first_record,
    last_record,
    record,
    unresolved,
)
from metrics.drift_sql import Place
from metrics.models import DriftCheck, Metric
from metrics.sql import CustomerHour
from usage.timestamps import FIRST_MOMENT

log = logging.getLogger(__name__)

CLOSED_AFTER = timedelta(hours=2)
RECENT = 35 * DAY  # a month, and the days until it is invoiced: what late records and corrections mostly touch
CATCH_UP = 35 * DAY  # of the history that no night has come to yet
SAMPLE_SIZE = 50


def metrics_to_check() -> list[int]:
    """Return the ids of the metrics that a night compares: active ones with stored hours."""
    active = Metric.objects.filter(status=Metric.Status.ACTIVE, usage_event__isnull=False)
    return list(active.order_by("pk").values_list("pk", flat=True))


def night_plan(metric_id: int, moment: datetime | None = None) -> list[Span]:
    """Return what a night compares of a metric; nothing where it cannot be compared.

    First what is in doubt. Then the last 35 closed days, each night all of them: so every late record and every
    correction in them is compared once it is folded, with no bookkeeping that could miss one, and to find out which
    days were touched would cost as much as to compare them. Then history since the metric is in force that was not
    compared yet, 35 days of it, the oldest first: after enough nights every closed day has been compared.
    """
    try:
        metric = comparable(metric_id)
    except NotComparable:
        return []
    until = closed_until(moment)
    recent = Span(until - RECENT, until)
    differing = [part for span in spans_in_doubt(metric_id) for part in _outside(span, recent)]
    return [*differing, recent, *_catch_up(metric, recent.start)]


def spans_in_doubt(metric_id: int) -> list[Span]:
    """Return where the newest look at a metric found a difference: to be compared again once it was rebuilt."""
    return [Span(found.start, found.end) for found in unresolved([metric_id])]


def check_spans(metric_id: int, spans: Sequence[Span], *, seconds: float) -> list[Span]:
    """Compare closed days, span after span, and return what is left when the time is over.

    A day that takes too long is left out and logged; a metric that is no longer active leaves nothing to do.
    """
    deadline = time.monotonic() + seconds
    left = list(spans)
    while left and (remaining := deadline - time.monotonic()) > 0:
        span = left.pop(0)
        try:
            checks = find_drift(metric_id, span.start, span.end, DriftCheck.Kind.CLOSED_DAY, seconds=remaining)
            reached = checks[-1].end
        except CheckTookTooLong as error:
            log.error("drift check of metric=%d gave up: %s", metric_id, error)
            reached = error.end
        except NotComparable:
            return []
        if reached < span.end:
            left.insert(0, Span(reached, span.end))
    return left


def check_sample(metric_id: int, *, seed: int | None = None, size: int = SAMPLE_SIZE) -> list[DriftCheck]:
    """Compare some customers' days that are older than those of every night; the same ones for the same seed.

    Returns a check over all days that agree and one for each day that differs. Raises as `find_drift`.
    """
    metric = comparable(metric_id)
    places = _places(_random_days(metric, closed_until() - RECENT, random.Random(seed), size))
    found = [compare(metric_id, place, settings.DRIFT_SECONDS) for place in places]
    agreeing = [run for run in found if not run.differences]
    runs = [reduce(add, agreeing)] if agreeing else []
    runs += [run for run in found if run.differences]
    return [record(metric_id, DriftCheck.Kind.SAMPLE, run) for run in runs]


def closed_until(moment: datetime | None = None) -> datetime:
    """Return the end of the last UTC day that ended CLOSED_AFTER before a moment (now)."""
    return day_of((moment or now()) - CLOSED_AFTER)


def _outside(span: Span, other: Span) -> list[Span]:
    """Return the parts of a span that do not lie in another one."""
    parts = [Span(span.start, min(span.end, other.start)), Span(max(span.start, other.end), span.end)]
    return [part for part in parts if part.start < part.end]


def _catch_up(metric: Metric, end: datetime) -> list[Span]:
    """The oldest history before `end` that was not compared since the metric is in force."""
    assert metric.activated_at is not None
    with connection.cursor() as cursor:
        parts = drift_sql.not_compared(cursor, metric.pk, metric.activated_at, FIRST_MOMENT, end)
    if not parts:
        return []
    start, until = parts[0]
    first = first_record(metric, start, until)
    return [Span(start, until if first is None else min(until, day_of(first) + CATCH_UP))]


def _random_days(metric: Metric, end: datetime, chance: random.Random, size: int) -> list[CustomerHour]:
    """Choose customers, and of each the days with usage next to a random moment before `end`."""
    first, last = first_record(metric, FIRST_MOMENT, end), last_record(metric, FIRST_MOMENT, end)
    since, until = first or FIRST_MOMENT, last or end
    with connection.cursor() as cursor:
        customers = drift_sql.some_customers(cursor, metric.organisation_id, chance.getrandbits(62), 4 * size)
        near = [(customer_id, since + chance.random() * (until - since)) for customer_id in customers]
        days = drift_sql.days_with_usage(cursor, metric, near, end)
    return chance.sample(days, min(size, len(days)))


def _places(customer_days: Sequence[CustomerHour]) -> list[Place]:
    """Group customers' days by the day, the earliest first."""
    days = sorted({day for _, day in customer_days})
    return [Place(day, day + DAY, [one for one in customer_days if one[1] == day]) for day in days]
