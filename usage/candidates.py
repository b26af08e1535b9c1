"""What is to be stored as one batch, and what became of it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from usage.envelopes import Problem
from usage.received import ReceivedRecords


class Contradicted(Exception):
    """A strict batch holds known identities with other content; nothing was stored."""

    def __init__(self, duplicates: int, conflicts: list[Problem]) -> None:
        super().__init__(f"{len(conflicts)} conflicts")
        self.duplicates, self.conflicts = duplicates, conflicts


class BatchHead(NamedTuple):
    """Where a batch comes from, and what it was checked against."""

    organisation_id: int
    usage_event_id: int
    definition_revision: int
    aliases_revision: int
    schema_version: int
    source: str
    api_key_id: int | None
    user_id: int | None
    upload_id: int | None = None


class Counts(NamedTuple):
    """What becomes of the records of a batch."""

    accepted: int
    duplicates: int
    conflicts: int
    rejected: int


@dataclass(frozen=True, slots=True)
class Candidates:
    """Records to store, each identity once, and what is to be done with the others.

    `repeats` holds the indexes of equal later records by the first's index; `problems` are those refused already.
    """

    records: ReceivedRecords
    customers: dict[str, int]
    repeats: dict[int, list[int]]
    problems: list[Problem]
    payload_of: Callable[[int], str]
    keep_rejected: bool = True
    strict: bool = False


@dataclass(slots=True)
class Stored:
    """What became of the records of a batch; `problems` are all refusals, conflicts among them."""

    batch_id: int
    received_at: datetime
    accepted: int
    duplicates: int
    problems: list[Problem]
    not_kept: int
