"""Random histories of one usage event: what senders, operators and workers do to it, one deed after another."""

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core.exceptions import ValidationError

from customers.models import Customer, Organisation
from metrics import materialization, session_sql
from metrics import quantities as quantities_module
from metrics.definitions import activate_metric, revise_metric, save_metric
from metrics.formula_rules import check_formula
from metrics.materialization import build, fold, metrics_to_build, metrics_to_rebuild, rebuild, request_rebuild
from metrics.models import Metric
from metrics.periods import Window
from metrics.quantities import preview, quantities
from metrics.questions import Answer, Question
from tests.conftest import take_in
from tests.metrics.comparing import answered_rows, assert_answer
from tests.metrics.counting import expected_answer
from tests.metrics.random_metrics import SCHEMAS, TEXTS, Definitions
from usage.corrections import Actor, CorrectionError, correct_record, restore_records, void_records
from usage.definitions import create_usage_event, publish_schema
from usage.models import UsageEvent, UsageRecord

HOURS = 72
# Where clocks change inside, and one where the present is.
ERAS = [
    datetime(2025, 3, 28, tzinfo=UTC),  # Berlin loses an hour on the 30th, a month begins
    datetime(2025, 10, 25, tzinfo=UTC),  # Berlin gains one on the 26th
    datetime(2025, 4, 4, tzinfo=UTC),  # Lord Howe gains half an hour on the 5th
    datetime(2025, 10, 3, tzinfo=UTC),  # Lord Howe loses one on the 4th
    datetime(2025, 3, 8, tzinfo=UTC),  # St John's loses an hour on the 9th
    datetime(2025, 10, 31, tzinfo=UTC),  # St John's gains one on November 2nd
    datetime(2031, 12, 30, tzinfo=UTC),  # the snapshots of this one are taken in its middle
]
ZONES = [
    *("UTC", "Asia/Kolkata", "Europe/Berlin", "America/St_Johns"),
    *("Pacific/Apia", "Asia/Kathmandu", "Australia/Lord_Howe"),
]
CUSTOMERS = ["cus_a", "cus_b", "cus_c", "cus_d"]
ACTOR = Actor(None, "history")
METRICS = 4


def stop_the_clock(monkeypatch: pytest.MonkeyPatch, moment: datetime) -> None:
    """Let every snapshot say that it was taken at that moment."""
    not_folded = quantities_module.not_folded
    monkeypatch.setattr(session_sql, "moment", lambda cursor: moment)
    monkeypatch.setattr(quantities_module, "not_folded", lambda *asked: (moment, *not_folded(*asked)[1:]))


class History:
    """A random history, from one seed."""

    def __init__(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.chance = random.Random(seed)
        self.definitions = Definitions(self.chance)
        self.start = self.chance.choice(ERAS)
        self.busy_hours = self.chance.sample(range(HOURS), 4)
        self.stretch = self.chance.choice([1, 5, 20])
        monkeypatch.setattr(materialization, "STRETCH_RECORDS", self.stretch)
        monkeypatch.setattr(materialization, "STRETCH_BOUNDS", (self.stretch, self.stretch))
        monkeypatch.setattr(materialization, "CLAIM_BATCHES", self.chance.choice([1, 2, 1000]))
        monkeypatch.setattr(materialization, "CLAIM_RECORDS", self.chance.choice([1, 20, 100_000]))
        if self.start.year > 2030:
            moment = self.start + timedelta(hours=HOURS / 2, microseconds=self.chance.randrange(10**9))
            stop_the_clock(monkeypatch, moment)
        organisation = Organisation.objects.create(name=f"History {seed}", timezone="UTC")
        self.usage_event = create_usage_event(organisation, name="Usage", slug="usage", schema=SCHEMAS[0])
        self.sent: list[dict[str, Any]] = []
        self.codes = [f"metric_{number}" for number in range(METRICS)]
        for code in self.codes:
            self.activate(self.draft(code))

    def deeds(self) -> list[Callable[[], None]]:
        """Return what may happen, the frequent more than once."""
        return [
            *([self.ingest] * 4),
            *(self.replay, self.correct, self.correct, self.void, self.restore),
            *(self.fold, self.fold, self.fold_once),
            *(self.begin_version, self.build_stretch, self.build_stretch, self.finish_build),
            *(self.begin_rebuild, self.rebuild_stretch, self.rebuild_stretch, self.forget),
            *(self.publish, self.check_preview),
        ]

    def step(self) -> None:
        """Let something happen."""
        self.chance.choice(self.deeds())()

    # --- senders and operators ------------------------------------------------------------------------------------

    def ingest(self) -> None:
        size = self.chance.choice([1, 4, 15, 15])
        records = [self.record(number) for number in range(size)]
        self.sent += records
        assert take_in(self.usage_event, *records).accepted == size

    def replay(self) -> None:
        known = self.chance.sample(self.sent, min(len(self.sent), 10))
        fresh = [self.record(number) for number in range(self.chance.randrange(3))]
        # What an earlier schema took and the present one does not is a duplicate all the same.
        mixed = [record for record in known if "id" in record] + fresh
        self.chance.shuffle(mixed)
        self.sent += fresh
        if mixed:
            assert take_in(self.usage_event, *mixed).accepted == len(fresh)

    def correct(self) -> None:
        record = self.any_record(voided=False)
        if record is None:
            return
        try:
            correct_record(
                record.pk,
                customer_id=self.chance.choice([None, *CUSTOMERS, "cus_new"]),
                timestamp=self.chance.choice([None, self.moment()]),
                data=self.chance.choice([None, self.definitions.data(self.usage_event.schema)]),
                revision=record.revision,
                reason="history",
                actor=ACTOR,
            )
        except CorrectionError as error:
            if "nothing was changed" not in str(error):
                raise

    def void(self) -> None:
        self.for_some_records(void_records, voided=False)

    def restore(self) -> None:
        self.for_some_records(restore_records, voided=True)

    def publish(self) -> None:
        schema = self.chance.choice(SCHEMAS)
        self.usage_event = publish_schema(self.usage_event, schema, accept_violations=True)

    # --- workers --------------------------------------------------------------------------------------------------

    def fold(self) -> None:
        assert fold(self.usage_event.pk) is not None

    def fold_once(self) -> None:
        usage_event_id = self.usage_event.pk
        materialization._in_snapshot(lambda cursor: materialization._fold_once(cursor, usage_event_id))

    def begin_version(self) -> None:
        code = self.chance.choice(self.codes)
        if not self.of(code).exclude(status__in=["active", "retired"]).exists():
            activate_metric(self.draft(code).pk)

    def build_stretch(self) -> None:
        for metric_id in metrics_to_build_of(self.usage_event)[:1]:
            self.one_step(materialization._build_once, metric_id)

    def finish_build(self) -> None:
        for metric_id in metrics_to_build_of(self.usage_event)[:1]:
            assert build(metric_id)

    def begin_rebuild(self) -> None:
        assert request_rebuild(self.of(self.chance.choice(self.codes)).get(status="active").pk)

    def rebuild_stretch(self) -> None:
        for metric_id in metrics_to_rebuild_of(self.usage_event)[:1]:
            self.one_step(materialization._rebuild_once, metric_id)

    def forget(self) -> None:
        materialization.forget_retired()

    def one_step(self, once: Callable[..., str], metric_id: int) -> None:
        materialization._in_snapshot(lambda cursor: once(cursor, metric_id, self.stretch))

    def settle(self) -> None:
        """Finish what was begun: every build and rebuild, and a fold."""
        for metric_id in metrics_to_build_of(self.usage_event):
            assert build(metric_id)
        for metric_id in metrics_to_rebuild_of(self.usage_event):
            assert rebuild(metric_id)
        fold(self.usage_event.pk)

    # --- questions ------------------------------------------------------------------------------------------------

    def check_one_answer(self) -> None:
        """Ask something, page by page, and compare with the recount."""
        metric = self.of(self.chance.choice(self.codes)).get(status="active")
        question = self.question(metric)
        self.compare(metric, question, lambda page: quantities(metric.organisation_id, metric.code, page))

    def check_preview(self) -> None:
        metric = self.definitions.metric(self.usage_event, "unsaved")
        question = self.question(metric)
        self.compare(metric, question, lambda page: preview(metric, page))

    def compare(self, metric: Metric, question: Question, ask: Callable[[Question], Answer]) -> None:
        answers = list(pages(question, ask))
        assert all(answer.metric.pk == metric.pk for answer in answers)
        try:
            assert_answer(answered_rows(answers), expected_answer(metric, question, answers[-1].as_of))
        except AssertionError as error:
            formula = {name: value for name, value in vars(metric).items() if not name.startswith("_")}
            raise AssertionError(f"{error}\n{question}\n{formula}") from error

    def question(self, metric: Metric) -> Question:
        known = list(Customer.objects.filter(organisation=metric.organisation).values_list("external_id", flat=True))
        start = self.start + timedelta(minutes=self.chance.choice([-70, 0, 60, 61, 725, 1_441, 2_000]))
        length = self.chance.choice([1, 59, 60, 61, 1_440, 3_007, 4_500])
        odd = timedelta(microseconds=self.chance.choice([0, 0, 0, 1, 33_000_001]))
        names = metric.group_by
        filtered = self.chance.sample(names, min(len(names), self.chance.choice([0, 0, 0, 1])))
        return Question(
            start=start + odd,
            end=start + odd + timedelta(minutes=length),
            window=self.chance.choice(list(Window)),
            zone=ZoneInfo(self.chance.choice(ZONES)),
            customer_ids=self.chance.sample(known, min(len(known), self.chance.choice([0, 0, 0, 1, 3]))),
            page_size=self.chance.choice([1, 2, 100]),
            group_by=self.chance.sample(names, self.chance.randrange(len(names) + 1)),
            filter_by={name: self.chance.sample([*TEXTS, "0", "2.0", "-0.5"], 3) for name in filtered},
        )

    # --- what the deeds are made of -------------------------------------------------------------------------------

    def draft(self, code: str) -> Metric:
        """Store a new draft; what the schema in force refuses is drawn again."""
        while True:
            metric = self.definitions.metric(self.usage_event, code)
            newest = self.of(code).order_by("-version").first()
            try:
                check_formula(metric)
                if newest is None:
                    return save_metric(metric)
                changes = {
                    name: getattr(metric, name)
                    for name in ("aggregation", "property", "expression", "percentile", "filters", "group_by")
                    + ("rounding_mode", "rounding_digits")
                }
                revised = revise_metric(newest, changes)
                assert revised.version in (newest.version, newest.version + 1)
                if revised.status == "draft":
                    return revised
            except ValidationError:
                continue

    def activate(self, metric: Metric) -> None:
        activate_metric(metric.pk)
        assert build(metric.pk)

    def of(self, code: str) -> Any:
        return Metric.objects.filter(organisation=self.usage_event.organisation, code=code)

    def record(self, number: int) -> dict[str, Any]:
        record = {
            "customer_id": self.chance.choice(CUSTOMERS),
            "timestamp": self.moment().isoformat(),
            "data": self.definitions.data(self.usage_event.schema),
        }
        return record | ({"id": f"{len(self.sent)}-{number}"} if self.chance.random() < 0.7 else {})

    def moment(self) -> datetime:
        # Edges of hours are where windows go wrong, equal moments where ties do; most records come late.
        hours = self.busy_hours if self.chance.random() < 0.7 else range(HOURS)
        hour = self.start + timedelta(hours=self.chance.choice(hours))
        inside = timedelta(seconds=self.chance.random() * 3600)
        half, last = timedelta(minutes=30), timedelta(microseconds=-1)
        return hour + self.chance.choice([timedelta(0), timedelta(0), last, half, half / 2, inside])

    def any_record(self, *, voided: bool) -> UsageRecord | None:
        records = self.records(voided=voided)
        count = records.count()
        return records[self.chance.randrange(count)] if count else None

    def records(self, *, voided: bool) -> Any:
        return UsageRecord.objects.filter(usage_event=self.usage_event, voided_at__isnull=not voided).order_by("id")

    def for_some_records(self, act: Any, *, voided: bool) -> None:
        ids = list(self.records(voided=voided).values_list("id", flat=True))
        chosen = self.chance.sample(ids, min(len(ids), self.chance.randrange(1, 6)))
        assert act(self.usage_event.pk, chosen, reason="history", actor=ACTOR) == len(chosen)


def metrics_to_build_of(usage_event: UsageEvent) -> list[int]:
    """Return what a worker would build, of one usage event."""
    return [pk for pk in metrics_to_build() if Metric.objects.filter(pk=pk, usage_event=usage_event).exists()]


def metrics_to_rebuild_of(usage_event: UsageEvent) -> list[int]:
    """Return what a worker would rebuild, of one usage event."""
    return [pk for pk in metrics_to_rebuild() if Metric.objects.filter(pk=pk, usage_event=usage_event).exists()]


def pages(question: Question, ask: Callable[[Question], Answer]) -> Iterator[Answer]:
    """Yield the pages of an answer until the last."""
    after: int | None = question.after
    while after is not None:
        answer = ask(_after(question, after))
        yield answer
        after = answer.next


def _after(question: Question, after: int) -> Question:
    fields = {name: getattr(question, name) for name in question.__dataclass_fields__}
    return Question(**{**fields, "after": after})
