"""The dry run of an upload: what ingestion would do with each row, found out by reading alone."""

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from customers.resolution import resolve_customers
from usage.definitions import Definition
from usage.envelopes import Problem, read_records
from usage.received import ReceivedRecord, ReceivedRecords
from usage.storage import CONFLICT, known_records
from usage.upload_chunks import Chunk, UploadReader

MAX_ERRORS = 100
# Beyond this, identities that come twice in the file are only found by ingestion itself; 100 bytes each.
REMEMBERED_KEYS = 1_000_000
REMEMBERED_CUSTOMERS = 10_000


@dataclass(slots=True)
class DryRun:
    """The counts so far, and the first errors by line."""

    rows: int = 0
    new: int = 0
    duplicates: int = 0
    conflicts: int = 0
    rejected: int = 0
    repeated: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)
    _keys: set[bytes] = field(default_factory=set)
    _customers: set[str] = field(default_factory=set)

    def add(self, definition: Definition, reader: UploadReader, chunk: Chunk) -> None:
        """Count what would become of a chunk. Identities that an earlier row of the file had are `repeated`."""
        records, problems = read_records(chunk.submission, definition.schema, definition.time_limits())
        customers = resolve_customers(definition.organisation_id, set(records.customer_ids), create=False)
        if not definition.creates_customers:
            problems += [_unknown(record) for record in records if record.customer_id not in customers]
            records = ReceivedRecords.of(record for record in records if record.customer_id in customers)
        elif len(self._customers) < REMEMBERED_CUSTOMERS:
            self._customers |= set(records.customer_ids) - customers.keys()
        fresh = ReceivedRecords.of(record for record in records if self._first(record.key))
        known = known_records(definition.usage_event_id, fresh, customers)
        conflicts = [record for record in fresh if known.get(record.index) is False]
        self.rows += len(chunk.rows)
        self.repeated += len(records) - len(fresh)
        self.new += len(fresh) - len(known)
        self.duplicates += len(known) - len(conflicts)
        self.conflicts += len(conflicts)
        self.rejected += len(problems)
        problems += [Problem(record.index, record.key, *CONFLICT) for record in conflicts]
        for problem in sorted(problems, key=lambda problem: problem.index)[: MAX_ERRORS - len(self.errors)]:
            line, code, column, message, _ = reader.error_row(chunk, problem)
            self.errors.append({"line": line, "code": code, "column": column, "message": message})

    def result(self) -> dict[str, Any]:
        """Return the counts as they are kept and shown."""
        return {
            "rows": self.rows,
            "new": self.new,
            "duplicates": self.duplicates,
            "conflicts": self.conflicts,
            "rejected": self.rejected,
            "repeated": self.repeated,
            "new_customers": min(len(self._customers), REMEMBERED_CUSTOMERS),
            "errors": self.errors,
            "errors_truncated": self.conflicts + self.rejected > len(self.errors),
        }

    def _first(self, key: str | None) -> bool:
        if key is None or len(self._keys) >= REMEMBERED_KEYS:
            return True
        mark = blake2b(key.encode(), digest_size=8).digest()
        if mark in self._keys:
            return False
        self._keys.add(mark)
        return True


def _unknown(record: ReceivedRecord) -> Problem:
    message = f"a known customer was expected, got '{record.customer_id[:60]}'; this usage event creates none"
    return Problem(record.index, record.key, "unknown_customer", "/customer_id", message)
