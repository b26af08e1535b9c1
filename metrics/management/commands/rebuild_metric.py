"""manage.py rebuild_metric: compute a metric's stored hours anew, and see that they agree with the records then."""

import threading
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from metrics.drift import NotComparable, find_drift
from metrics.drift_nights import spans_in_doubt
from metrics.freshness import rebuild_progress
from metrics.materialization import rebuild, request_rebuild
from metrics.models import DriftCheck, Metric

SECONDS_BETWEEN_LINES = 2.0


class Command(BaseCommand):
    help = "Compute the stored hours of an active metric anew from its records. It goes on answering meanwhile."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("code", help="the metric's code")
        parser.add_argument("--organisation", type=UUID, required=True, help="the organisation's key")

    def handle(self, *args: Any, **options: Any) -> None:
        same_code = Metric.objects.filter(organisation__key=options["organisation"], code=options["code"])
        metric = same_code.filter(status=Metric.Status.ACTIVE).first()
        if metric is None:
            raise CommandError(f"an active metric's code was expected, got '{options['code']}'")
        if not request_rebuild(metric.pk):
            raise CommandError("a metric of SQL stores nothing: it is calculated when it is asked")
        self.stdout.write(f"rebuilding {metric.code} v{metric.version}")
        with self._progress_of(metric):
            while not rebuild(metric.pk) and _goes_on(metric):
                threading.Event().wait(0.2)  # a worker is at it, or folds leave no room at this moment
        if not Metric.objects.filter(pk=metric.pk, status=Metric.Status.ACTIVE).exists():
            raise CommandError("another version came into force meanwhile; this one is retired")
        self.stdout.write("rebuilt")
        self._confirm(metric)

    @contextmanager
    def _progress_of(self, metric: Metric) -> Iterator[None]:
        """Tell every two seconds how far it is; from a thread, because a rebuild says nothing until it is done."""
        done = threading.Event()

        def tell() -> None:
            try:
                while not done.wait(SECONDS_BETWEEN_LINES):
                    share = rebuild_progress(Metric.objects.get(pk=metric.pk))
                    if share is not None:
                        self.stdout.write(f"{share:.1%} of the customers")
            finally:
                connection.close()

        thread = threading.Thread(target=tell, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _confirm(self, metric: Metric) -> None:
        """Look again where the metric had differed."""
        differences = 0
        for span in spans_in_doubt(metric.pk):
            try:
                checks = find_drift(metric.pk, span.start, span.end, DriftCheck.Kind.BY_HAND)
            except NotComparable as error:
                raise CommandError(str(error)) from error
            differences += sum(check.differences for check in checks)
            self.stdout.write(f"compared again from {span.start:%Y-%m-%d %H:%M} until {span.end:%Y-%m-%d %H:%M} UTC")
        if differences:
            raise CommandError(f"{differences} stored rows differ still")


def _goes_on(metric: Metric) -> bool:
    return Metric.objects.filter(pk=metric.pk, status=Metric.Status.ACTIVE, rebuilt_customer_id__isnull=False).exists()
