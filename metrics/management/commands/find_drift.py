"""manage.py find_drift: compare stored hours with their records, now."""

from argparse import ArgumentTypeError
from datetime import UTC, date, datetime, time
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser

from metrics.drift import CheckTookTooLong, NotComparable, find_drift
from metrics.drift_nights import RECENT, closed_until
from metrics.models import DriftCheck, Metric
from usage.timestamps import END_MOMENT, FIRST_MOMENT


def day(text: str) -> datetime:
    """Return the UTC midnight that a date begins with."""
    try:
        moment = datetime.combine(date.fromisoformat(text), time(), UTC)
    except ValueError:
        raise ArgumentTypeError(f"a date such as 2025-06-17 was expected, got '{text}'") from None
    if not FIRST_MOMENT <= moment <= END_MOMENT:
        raise ArgumentTypeError(f"a year from 2000 to 2100 was expected, got '{text}'")
    return moment


class Command(BaseCommand):
    help = (
        "Compare the stored hours of active metrics with a recount of the records and print a line for each run of days"
        " that agree or differ. Ends with 1 if anything differs. Without dates: the last 35 closed days."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--organisation", type=UUID, help="an organisation's key; without it, every organisation")
        parser.add_argument("--metric", help="a metric's code; without it, every metric")
        parser.add_argument("--start", type=day, help="the first day (UTC)")
        parser.add_argument("--end", type=day, help="the day after the last one (UTC)")
        parser.add_argument("--all", action="store_true", help="the whole history")

    def handle(self, *args: Any, **options: Any) -> None:
        start, end = _period(options)
        differences = failures = 0
        for metric in _metrics(options):
            try:
                checks = find_drift(metric.pk, start, end, DriftCheck.Kind.BY_HAND)
            except (NotComparable, CheckTookTooLong) as error:
                self.stdout.write(f"{metric.code} v{metric.version}  {error}")
                failures += 1
                continue
            for check in checks:
                self.stdout.write(_line(metric, check))
            differences += sum(check.differences for check in checks)
        if differences:
            raise CommandError(f"{differences} stored rows differ from their records; `manage.py rebuild_metric` mends")
        if failures:
            raise CommandError("not every metric could be compared")


def _period(options: dict[str, Any]) -> tuple[datetime, datetime]:
    start, end = options["start"], options["end"]
    if options["all"]:
        if start or end:
            raise CommandError("--all goes without --start and --end")
        return FIRST_MOMENT, END_MOMENT
    end = end or closed_until()
    start = start or end - RECENT
    if end <= start:
        raise CommandError(f"--end must be after --start, got {start:%Y-%m-%d} to {end:%Y-%m-%d}")
    return start, end


def _metrics(options: dict[str, Any]) -> list[Metric]:
    active = Metric.objects.filter(status=Metric.Status.ACTIVE, usage_event__isnull=False)
    if options["organisation"]:
        active = active.filter(organisation__key=options["organisation"])
    if options["metric"]:
        active = active.filter(code=options["metric"])
    found = list(active.select_related("organisation").order_by("organisation__name", "code"))
    if not found and (options["metric"] or options["organisation"]):
        raise CommandError("there is no such active metric with stored hours")
    return found


def _line(metric: Metric, check: DriftCheck) -> str:
    outcome = f"{check.differences} DIFFER" if check.differences else "agree"
    return (
        f"{metric.organisation} {metric.code} v{metric.version}  {check.start:%Y-%m-%dT%H:%MZ} to"
        f" {check.end:%Y-%m-%dT%H:%MZ}  {check.windows} stored hours compared, {outcome}"
    )
