"""The statements of a fold: what waits for it, what it claims, and how that is added to the windows of all metrics."""

from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import groupby
from typing import NamedTuple

from django.db.backends.utils import CursorWrapper
from psycopg import sql

from customers.exactjson import dumps
from metrics.calculation import HOUR_OF_RECORD, dimension_part, dimensions_text, value_of
from metrics.filters import compiled_filters
from metrics.formulas import state_columns
from metrics.models import Aggregation, Metric
from metrics.parameters import Parameters
from metrics.sql import AGGREGATES_KEY, CustomerHour, add_distinct_values

TOGETHER = 40  # metrics in one statement: PostgreSQL takes no more than 1,664 columns


class Claim(NamedTuple):
    """What a fold has taken: batches, how many records they brought, changed windows (each once, in key order).

    `complete`: all batches that its snapshot sees; marks are taken only then.
    """

    batch_ids: list[int]
    records: int
    complete: bool
    windows: list[CustomerHour]


def claim(cursor: CursorWrapper, usage_event_id: int, *, batches: int, records: int, windows: int) -> Claim:
    """Take the oldest visible pending batches, and with the last of them the marks of changed windows.

    At most so many batches (at least one, if there is one), and no further ones once they hold so many records; every
    mark of at most so many windows. Primary keys of pending batches, of batches, and of marks.
    """
    cursor.execute(
        """
        WITH oldest AS MATERIALIZED (
            SELECT pending.batch_id, batch.accepted,
                   sum(batch.accepted) OVER (ORDER BY pending.batch_id) - batch.accepted AS records_before
            FROM (SELECT batch_id FROM usage_pendingbatch WHERE usage_event_id = %(usage_event_id)s
                  ORDER BY batch_id LIMIT %(batches)s + 1) AS pending
            JOIN usage_ingestbatch AS batch ON batch.id = pending.batch_id
        ), chosen AS MATERIALIZED (
            SELECT batch_id, accepted FROM oldest WHERE records_before < %(records)s
            ORDER BY batch_id LIMIT %(batches)s
        ), taken AS (
            DELETE FROM usage_pendingbatch
            WHERE usage_event_id = %(usage_event_id)s AND batch_id = ANY (ARRAY (SELECT batch_id FROM chosen))
            RETURNING batch_id
        )
        SELECT ARRAY (SELECT batch_id FROM taken), (SELECT coalesce(sum(accepted), 0)::bigint FROM chosen),
               (SELECT count(*) FROM oldest) = (SELECT count(*) FROM chosen),
               EXISTS (SELECT FROM usage_changedwindow WHERE usage_event_id = %(usage_event_id)s)
        """,
        {"usage_event_id": usage_event_id, "batches": batches, "records": records},
    )
    batch_ids, count, complete, marked = cursor.fetchone()
    changed = _claim_windows(cursor, usage_event_id, windows) if complete and marked else []
    return Claim(batch_ids, count, complete, changed)


def _claim_windows(cursor: CursorWrapper, usage_event_id: int, windows: int) -> list[CustomerHour]:
    """Take every visible mark of at most so many windows; each window once, in key order. Primary key."""
    cursor.execute(
        """
        DELETE FROM usage_changedwindow WHERE usage_event_id = %(usage_event_id)s AND (customer_id, window_start) IN (
            SELECT DISTINCT customer_id, window_start FROM usage_changedwindow
            WHERE usage_event_id = %(usage_event_id)s ORDER BY customer_id, window_start LIMIT %(windows)s)
        RETURNING customer_id, window_start
        """,
        {"usage_event_id": usage_event_id, "windows": windows},
    )
    return sorted(set(cursor.fetchall()))


def usage_events_to_fold(cursor: CursorWrapper) -> list[int]:
    """Return the usage events with something pending. Both tables are small."""
    cursor.execute(
        "SELECT usage_event_id FROM usage_pendingbatch UNION SELECT usage_event_id FROM usage_changedwindow ORDER BY 1"
    )
    return [usage_event_id for (usage_event_id,) in cursor.fetchall()]


def pending_work(
    cursor: CursorWrapper, usage_event_ids: Sequence[int], limit: int
) -> dict[int, tuple[int, int, datetime | None, int]]:
    """Return by usage event: batches that no fold has claimed, their records, the first one's arrival; marked windows.

    Each counted up to a limit. Primary keys (usage_event, batch) and (usage_event, customer, window_start, id).
    """
    cursor.execute(
        """
        SELECT wanted.id, pending.batches, pending.records, pending.oldest, changed.windows
        FROM unnest(%(usage_event_ids)s::bigint[]) AS wanted (id)
        CROSS JOIN LATERAL (
            SELECT count(*), coalesce(sum(batch.accepted), 0), min(batch.received_at)
            FROM (SELECT batch_id FROM usage_pendingbatch WHERE usage_event_id = wanted.id
                  ORDER BY batch_id LIMIT %(limit)s) AS first
            JOIN usage_ingestbatch AS batch ON batch.id = first.batch_id) AS pending (batches, records, oldest)
        CROSS JOIN LATERAL (
            SELECT count(*) FROM (
                SELECT DISTINCT customer_id, window_start FROM usage_changedwindow
                WHERE usage_event_id = wanted.id LIMIT %(limit)s) AS marked) AS changed (windows)
        """,
        {"usage_event_ids": list(usage_event_ids), "limit": limit},
    )
    return {row[0]: row[1:] for row in cursor.fetchall()}


def report_fold(
    cursor: CursorWrapper, usage_event_id: int, *, milliseconds: int, batches: int, windows: int, records: int
) -> None:
    """Write down what the last fold of a usage event claimed, and how long it took."""
    cursor.execute(
        """
        INSERT INTO metrics_foldreport (usage_event_id, folded_at, milliseconds, batches, windows, records)
        VALUES (%s, clock_timestamp(), %s, %s, %s, %s)
        ON CONFLICT (usage_event_id) DO UPDATE
        SET folded_at = excluded.folded_at, milliseconds = excluded.milliseconds, batches = excluded.batches,
            windows = excluded.windows, records = excluded.records
        """,
        [usage_event_id, milliseconds, batches, windows, records],
    )


# --- claimed batches -------------------------------------------------------------------------------------------------

# Through the index of batches, whatever the planner believes: OFFSET 0 keeps it from looking at the conditions around.
_OF_BATCHES = "(SELECT * FROM usage_usagerecord WHERE batch_id = ANY (%(batch_ids)s) OFFSET 0) AS record"
# The records are looked at once for all metrics with the same dimensions; each has its columns of states in `grouped`.
_ADD = sql.SQL(
    f"""
    WITH grouped AS MATERIALIZED (
        SELECT record.customer_id, {HOUR_OF_RECORD} AS window_start, {{dimensions}} AS dimensions, {{states}}
        FROM {_OF_BATCHES} CROSS JOIN LATERAL (SELECT {{looked_at}} OFFSET 0) AS counted
        WHERE record.usage_event_id = %(usage_event_id)s AND record.voided_at IS NULL
        GROUP BY 1, 2, 3)
    INSERT INTO metrics_metricaggregate AS aggregate ({AGGREGATES_KEY}, {{names}})
    SELECT %(usage_event_id)s, one.metric_id, customer_id, window_start, dimensions, {{given}}
    FROM grouped CROSS JOIN LATERAL (VALUES {{rows}}) AS one (metric_id, {{names}})
    WHERE one.record_count > 0
    ON CONFLICT ({AGGREGATES_KEY}) DO UPDATE SET {{added}}
    """
)
_COMMA = sql.SQL(", ")


def add_batches(cursor: CursorWrapper, metrics: Sequence[Metric], batch_ids: list[int]) -> None:
    """Add the records of batches to the windows of a usage event's metrics, leaving out what is not built yet.

    Index (batch); the ids go in as an array, because a join on the claim is guessed badly. Primary key of aggregates.
    """

    def dimensions(metric: Metric) -> list[str]:
        return metric.group_by

    for _, same in groupby(sorted(metrics, key=dimensions), key=dimensions):
        alike = list(same)
        for start in range(0, len(alike), TOGETHER):
            _add_together(cursor, alike[start : start + TOGETHER], batch_ids)
    for metric in metrics:
        if metric.aggregation == Aggregation.UNIQUE_COUNT:
            parameters = Parameters(usage_event_id=metric.usage_event_id, metric_id=metric.pk, batch_ids=batch_ids)
            add_distinct_values(cursor, metric, _built(metric, parameters), sql.SQL(_OF_BATCHES), parameters)


def _add_together(cursor: CursorWrapper, metrics: Sequence[Metric], batch_ids: list[int]) -> None:
    parameters = Parameters(usage_event_id=metrics[0].usage_event_id, batch_ids=batch_ids)
    looked = _LookedAt(parameters)
    columns = list({column.name: column for metric in metrics for column in state_columns(metric)}.values())
    states, rows = [], []
    for number, metric in enumerate(metrics):
        value, passes = looked.value(metric), looked.passes(metric)
        row: list[sql.Composable] = [sql.Literal(metric.pk)]
        for column in columns:
            if column in state_columns(metric):
                name = sql.Identifier(f"{column.name}_{number}")
                states.append(sql.SQL("{} AS {}").format(column.of(value, passes), name))
                row.append(name)
            else:
                row.append(sql.SQL("NULL"))
        rows.append(sql.SQL("({})").format(_COMMA.join(row)))
    statement = _ADD.format(
        dimensions=looked.dimensions(metrics[0]),
        states=_COMMA.join(states),
        looked_at=_COMMA.join(looked.columns),
        names=_COMMA.join(sql.Identifier(column.name) for column in columns),
        given=_COMMA.join(sql.Identifier("one", column.name) for column in columns),
        rows=_COMMA.join(rows),
        added=_COMMA.join(sql.SQL("{} = {}").format(sql.Identifier(column.name), column.added) for column in columns),
    )
    cursor.execute(statement, parameters)


class _LookedAt:
    """What is looked up in a record, once for all metrics that need the same: values, and whether it passes filters."""

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.columns: list[sql.Composable] = []
        self._names: dict[tuple[str, ...], sql.Identifier] = {}

    def value(self, metric: Metric) -> sql.Composable:
        """Return the column of a metric's value."""
        kind = metric.aggregation if metric.aggregation in (Aggregation.COUNT, Aggregation.UNIQUE_COUNT) else "number"
        return self._column(
            ("value", kind, metric.property, metric.expression), lambda: value_of(metric, self.parameters)
        )

    def passes(self, metric: Metric) -> sql.Composable | None:
        """Return the column that tells whether a record counts for a metric; None if all do."""
        if metric.status == Metric.Status.BUILDING:
            position: tuple[str, ...] = (str(metric.built_customer_id), str(metric.built_window_start))
        elif metric.filters:
            position = ()
        else:
            return None

        def condition() -> sql.Composable:
            filters = compiled_filters(metric.filters, self.parameters)
            return sql.SQL("({} AND {})").format(filters, _built(metric, self.parameters))

        return self._column(("passes", dumps(metric.filters), *position), condition)

    def dimensions(self, metric: Metric) -> sql.Composable:
        """Return the text of a record's dimensions."""
        return dimensions_text([dimension_part(name, self.parameters) for name in metric.group_by])

    def _column(self, key: tuple[str, ...], compiled: Callable[[], sql.Composable]) -> sql.Identifier:
        if key not in self._names:
            name = f"{key[0]}_{len(self._names)}"
            self._names[key] = sql.Identifier("counted", name)
            self.columns.append(sql.SQL("{} AS {}").format(compiled(), sql.Identifier(name)))
        return self._names[key]


def _built(metric: Metric, parameters: Parameters) -> sql.Composable:
    """The condition on a record that its window is built."""
    if metric.status != Metric.Status.BUILDING:
        return sql.SQL("true")
    position = parameters.take(metric.built_customer_id), parameters.take(metric.built_window_start)
    return sql.SQL(f"(record.customer_id, {HOUR_OF_RECORD}) < ({{}}, {{}})").format(*position)
