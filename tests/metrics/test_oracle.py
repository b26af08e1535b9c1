"""The oracle: after any history, folded or not, halfway through a build or not, everything equals a recount."""

import os

import pytest

from metrics.models import Metric
from tests.metrics.counting import expected_aggregates, stored_aggregates
from tests.metrics.histories import History
from usage.models import ChangedWindow, PendingBatch

SEEDS = int(os.environ.get("ORACLE_SEEDS", "200"))
FIRST_SEED = int(os.environ.get("ORACLE_FIRST_SEED", "1"))
# Emptying the database takes longer than a history: several share one, each in an organisation of its own.
TOGETHER = 5
STEPS = 18


@pytest.mark.parametrize("first", range(FIRST_SEED, FIRST_SEED + SEEDS, TOGETHER))
def test_everything_equals_a_recount(transactional_db: None, monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    for seed in range(first, min(first + TOGETHER, FIRST_SEED + SEEDS)):
        with monkeypatch.context() as patch:
            try:
                live_through(History(seed, patch))
            except BaseException as error:
                error.add_note(f"ORACLE_FIRST_SEED={seed} ORACLE_SEEDS=1 shows this again")
                raise


def live_through(history: History) -> None:
    for _ in range(STEPS):
        history.step()
        history.check_one_answer()
    history.settle()

    usage_event = history.usage_event
    assert not PendingBatch.objects.filter(usage_event=usage_event).exists()
    assert not ChangedWindow.objects.filter(usage_event=usage_event).exists()
    for metric in Metric.objects.filter(usage_event=usage_event, status="active"):
        assert stored_aggregates(metric) == expected_aggregates(metric), vars(metric)
    history.check_one_answer()
