"""Records that passed every check that needs no database: one, and all of a request."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec


class ReceivedRecord(msgspec.Struct, gc=False):
    """One such record. `data` is JSON text, `timestamp` is UTC."""

    index: int
    customer_id: str
    timestamp: datetime
    key: str | None
    data: bytes


@dataclass(frozen=True, slots=True, eq=False)
class ReceivedRecords:
    """Such records column by column: what is done to all of them needs no object for each."""

    indexes: Sequence[int]
    customer_ids: list[str]
    timestamps: list[datetime]
    keys: list[str | None]
    data: list[bytes]

    @classmethod
    def of(cls, records: Iterable[ReceivedRecord]) -> "ReceivedRecords":
        """Return records that are known one by one."""
        rows = [(one.index, one.customer_id, one.timestamp, one.key, one.data) for one in records]
        return cls(*map(list, zip(*rows, strict=True))) if rows else cls([], [], [], [], [])

    def __len__(self) -> int:
        return len(self.indexes)

    def __iter__(self) -> Iterator[ReceivedRecord]:
        return map(ReceivedRecord, self.indexes, self.customer_ids, self.timestamps, self.keys, self.data)
