"""Quantities as CSV: every customer, every digit, as of one moment."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import IO, Any
from zoneinfo import ZoneInfo

from customers.exactjson import dumps
from metrics.explained_records import in_snapshot
from metrics.models import Aggregation
from metrics.quantities import active_metric, quantities, quantities_in
from metrics.questions import MAX_PAGE_SIZE, Answer, Quantity, Question
from usage.exports import FORMULA_STARTS

BEFORE = ["metric", "version", "customer_id"]
AFTER = ["start", "end", "quantity", "unit", "record_count", "as_of"]


def export_quantities(organisation_id: int, code: str, question: Question, file: IO[bytes]) -> int:
    """Write the quantities of all customers that a question is about as CSV, and return how many rows there are.

    Everything is read in one snapshot, before anything of it is sent; SQL is run for each page of customers. Instants
    are those of the question's zone; text that a spreadsheet would take for a formula gets an apostrophe before it.
    Raises what `quantities` raises.
    """
    question = replace(question, after=0, page_size=MAX_PAGE_SIZE)
    if active_metric(organisation_id, code).sql:
        return _write(_pages(question, lambda page: quantities(organisation_id, code, page)), question, file)
    return in_snapshot(
        lambda cursor: _write(
            _pages(question, lambda page: quantities_in(cursor, organisation_id, code, page)), question, file
        )
    )


def _pages(question: Question, ask: Any) -> Iterator[Answer]:
    answer: Answer = ask(question)
    yield answer
    while answer.next is not None:
        answer = ask(replace(question, after=answer.next))
        yield answer


def _write(answers: Iterator[Answer], question: Question, file: IO[bytes]) -> int:
    _write_rows(file, [[*BEFORE, *(f"dimensions.{name}" for name in question.group_by), *AFTER]])
    count, first = 0, None
    for answer in answers:
        first = first or answer.as_of
        # Pages of one snapshot hold at its moment; but SQL has a snapshot for each, and a value is held until now.
        moves_on = answer.metric.sql or answer.metric.aggregation == Aggregation.WEIGHTED_SUM
        as_of = answer.as_of if moves_on else first
        _write_rows(file, (_cells(answer, row, question, as_of) for row in answer.rows))
        count += len(answer.rows)
    return count


def _write_rows(file: IO[bytes], rows: Any) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    file.write(text.getvalue().encode())


def _cells(answer: Answer, row: Quantity, question: Question, as_of: datetime) -> Sequence[str]:
    metric = answer.metric
    return [
        _text(metric.code),
        str(metric.version),
        _text(row.customer_id),
        *(_cell(row.dimensions.get(name)) for name in question.group_by),
        _instant(row.start, question.zone),
        _instant(row.end, question.zone),
        "" if row.quantity is None else format(row.quantity, "f"),
        _text(metric.unit),
        "" if metric.sql else str(row.record_count),
        _instant(as_of, question.zone),
    ]


def _instant(moment: datetime, zone: ZoneInfo) -> str:
    return moment.astimezone(zone).isoformat()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return _text(value) if isinstance(value, str) else dumps(value)


def _text(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
