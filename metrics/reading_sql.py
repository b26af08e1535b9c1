"""The statements that read states of windows, and which customers have any."""

from collections.abc import Callable

from django.db.backends.utils import CursorWrapper
from psycopg import sql

from metrics.calculation import calculation
from metrics.merged_sql import Place, State, read_distinct, read_merged
from metrics.models import Aggregation, Metric
from metrics.questions import Question
from metrics.raw_sql import read_percentile, read_weighted
from metrics.reading import Reading, record_sources

_READ: dict[str, Callable[..., dict[Place, State]]] = {
    Aggregation.UNIQUE_COUNT: read_distinct,
    Aggregation.PERCENTILE: read_percentile,
    Aggregation.WEIGHTED_SUM: read_weighted,
}


def read_states(
    cursor: CursorWrapper, metric: Metric, reading: Reading, question: Question, customers: list[int], limit: int
) -> dict[Place, State]:
    """Return the state of every window with records, in the order of customer, window, dimensions.

    At most `limit` rows of each statement: as many mean that there may be more. Indexes: primary keys of aggregates
    and distinct values; (usage_event, customer, timestamp) and (batch) of records.
    """
    read = _READ.get(metric.aggregation, read_merged)
    return read(cursor, metric, reading, question, reading.parameters(metric, customers=customers, limit=limit))


def customers_with_usage(
    cursor: CursorWrapper, metric: Metric, reading: Reading, *, after: int, limit: int
) -> list[int]:
    """Return the ids of the next customers with usage in the period, ascending, at most `limit`.

    Of hours that an edge inside the period cuts, the aggregates tell as well. A customer whose last record was voided
    since the last fold is named too. Primary key of aggregates, read only as far as the limit needs; (usage_event,
    timestamp, id) and (batch) of records.
    """
    parameters = reading.parameters(metric, after=after, limit=limit)
    counted = calculation(metric, parameters)
    parts = [
        sql.SQL("(SELECT DISTINCT record.customer_id FROM {} WHERE {} ORDER BY customer_id LIMIT %(limit)s)").format(
            source, counted.condition
        )
        for source in record_sources(reading, "record.customer_id > %(after)s")
    ]
    if not reading.from_records:
        parts.insert(0, _STORED_CUSTOMERS.format())
    if not parts:
        return []
    cursor.execute(
        sql.SQL("SELECT customer_id FROM ({}) AS found ORDER BY customer_id LIMIT %(limit)s").format(
            sql.SQL(" UNION ").join(parts)
        ),
        parameters,
    )
    return [customer_id for (customer_id,) in cursor.fetchall()]


_STORED_CUSTOMERS = sql.SQL(
    """
    (SELECT DISTINCT customer_id FROM metrics_metricaggregate
     WHERE usage_event_id = %(usage_event_id)s AND metric_id = %(metric_id)s AND customer_id > %(after)s
       AND window_start >= %(first_hour)s AND window_start < %(end_hour)s
     ORDER BY customer_id LIMIT %(limit)s)
    """
)
