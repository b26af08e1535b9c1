"""Every cause of refusal in words: what happened, and what an operator can do about it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CauseWords:
    """What a code means; `remedy` ends the sentence that the quarantine's pages show."""

    title: str
    remedy: str


CAUSES = {
    "schema": CauseWords(
        "The data does not fit the schema",
        "If the records are right, publish a schema that takes them and replay. If they are wrong, mend the payload, or"
        " discard and let the sender send them again.",
    ),
    "unknown_customer": CauseWords(
        "Nobody knows this customer",
        "Add the customer, or add the sent id as an alias of one, then replay.",
    ),
    "conflict": CauseWords(
        "The record id is taken, with other content",
        "What was stored first stands. If the new content is right, correct the stored record and discard this one. If"
        " these are two records, give this one another id in the payload and replay.",
    ),
    "duplicate_in_batch": CauseWords(
        "Two records of one request had the same id and other content",
        "The first one was taken. Give this one another id in the payload and replay, or discard it.",
    ),
    "timestamp": CauseWords(
        "The timestamp cannot be read", "Mend the timestamp in the payload and replay; tell the sender of the format."
    ),
    "too_old": CauseWords(
        "The timestamp is older than the usage event accepts",
        "To take late records, raise the accepted age of the usage event and replay; you can lower it again after.",
    ),
    "too_new": CauseWords(
        "The timestamp lies further ahead than the usage event accepts",
        "Often a clock that is wrong. Replay when the time has come, raise the accepted lead, or mend the timestamp.",
    ),
    "customer_id": CauseWords(
        "The customer_id cannot be used", "Mend it in the payload (1 to 255 characters), then replay."
    ),
    "missing_field": CauseWords("A field is missing", "Add the field in the payload and replay."),
    "unknown_field": CauseWords(
        "There is a field beside the four of a record",
        "Often a mistyped “id”, or a property outside “data”. Mend the payload and replay.",
    ),
    "number": CauseWords(
        "A number is too long or too large to be kept exactly", "Mend the number in the payload and replay."
    ),
    "null_character": CauseWords("There is a null character in a text", "Take it out of the payload and replay."),
    "malformed": CauseWords("This is not a record", "Mend the JSON and replay, or discard it."),
}
_OTHER = CauseWords("The record was refused", "Look at the message, mend the payload and replay.")


def words_for(code: str) -> CauseWords:
    """Return what a code means; a code without words of its own gets general ones."""
    return CAUSES.get(code, _OTHER)
