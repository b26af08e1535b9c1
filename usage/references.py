"""The public name of an ingest batch: 26 characters that sort by time and lead back to the row."""

from datetime import UTC, datetime

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH = 26
ID_BITS = 80


def batch_reference(batch_id: int, received_at: datetime) -> str:
    """Return the batch's public name in the shape of a ULID: 48 bits of milliseconds, then 80 bits of the row's id."""
    number = (int(received_at.timestamp() * 1000) << ID_BITS) | batch_id
    return "".join(ALPHABET[(number >> shift) & 31] for shift in range(5 * (LENGTH - 1), -1, -5))


def parse_batch_reference(text: str) -> tuple[int, datetime] | None:
    """Return the row's id and its millisecond (UTC), or None for a text that names no batch."""
    if len(text) != LENGTH or not text.isascii() or not set(text.upper()) <= set(ALPHABET):
        return None
    number = 0
    for character in text.upper():
        number = number << 5 | ALPHABET.index(character)
    milliseconds, batch_id = number >> ID_BITS, number & ((1 << ID_BITS) - 1)
    if batch_id >= 1 << 63 or milliseconds >= 1 << 47:
        return None
    return batch_id, datetime.fromtimestamp(milliseconds / 1000, UTC)
