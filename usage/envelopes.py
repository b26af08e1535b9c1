"""From the texts of a request to records: the four fields, each checked, `data` kept as it was sent."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec

from customers.exactjson import dumps
from usage.bodies import MAX_DEPTH, MAX_TEXT, PlainEnvelope, Submission
from usage.received import ReceivedRecord, ReceivedRecords
from usage.schemas import DataSchema
from usage.storable import (
    Refused,
    check_characters,
    check_depth,
    check_storable,
    decode_bounded,
    has_escapes,
    is_suspicious,
    plain_objects,
)
from usage.timestamps import parse_plain_timestamps, parse_timestamp


class Envelope(msgspec.Struct, forbid_unknown_fields=True):
    """The wire form of a record; `data` stays text, so that no digit is lost."""

    customer_id: str
    timestamp: str
    data: msgspec.Raw
    id: str | None = None


@dataclass(slots=True)
class Problem:
    """Why a record was refused: a stable code, a JSON Pointer (RFC 6901) to the place, a sentence."""

    index: int
    id: str | None
    code: str
    pointer: str
    message: str
    rejected_record: str | None = None


_envelope = msgspec.json.Decoder(Envelope)
_plain_envelope = msgspec.json.Decoder(PlainEnvelope)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """The instants that a usage event accepts, both included; None is no limit."""

    oldest: datetime | None = None
    newest: datetime | None = None


NO_LIMITS = TimeLimits()


def read_records(
    submission: Submission, schema: DataSchema, limits: TimeLimits = NO_LIMITS
) -> tuple[ReceivedRecords, list[Problem]]:
    """Return the good records of a request and the problems of the others, both in the order sent.

    Each record yields exactly one of the two.
    """
    together = _read_together(submission, schema, limits)
    if together is not None:
        return together, []
    records, problems = _read_each(submission, schema, limits)
    return ReceivedRecords.of(records), problems


def _read_together(submission: Submission, schema: DataSchema, limits: TimeLimits) -> ReceivedRecords | None:
    """Read records of which every one is plainly good, each step for all of them; None if one needs a closer look.

    It takes nothing that `_read_each` would refuse or read otherwise, at less than half of its cost.
    """
    if submission.faults or has_escapes(submission.body):
        return None
    try:
        envelopes = submission.plain or [_plain_envelope.decode(raw) for raw in submission.raws]
        texts = [bytes(envelope.data) for envelope in envelopes]
        data = plain_objects(texts, exact=schema.asks_which_number)
    except (msgspec.DecodeError, Refused, RecursionError):
        return None
    moments = parse_plain_timestamps([envelope.timestamp for envelope in envelopes])
    if data is None or moments is None or not schema.are_valid(data):
        return None
    if (limits.oldest and min(moments) < limits.oldest) or (limits.newest and max(moments) > limits.newest):
        return None
    return ReceivedRecords(
        range(len(envelopes)),
        [envelope.customer_id for envelope in envelopes],
        moments,
        [envelope.id or submission.key_of(index) for index, envelope in enumerate(envelopes)],
        texts,
    )


def _read_each(
    submission: Submission, schema: DataSchema, limits: TimeLimits
) -> tuple[list[ReceivedRecord], list[Problem]]:
    """Read records one by one, so that each that is refused has its reason."""
    suspicious = is_suspicious(submission.body)
    records: list[ReceivedRecord] = []
    problems: list[Problem] = []
    is_valid, faults = schema.is_valid, submission.faults
    unlimited = limits.oldest is None and limits.newest is None
    for index, raw in enumerate(submission.raws):
        try:
            if index in faults:
                raise Refused(*faults[index])
            envelope = _envelope.decode(raw)
            key, customer_id, text = envelope.id, envelope.customer_id, bytes(envelope.data)
            if not (_names(customer_id) and (key is None or _names(key))):
                _check_identity(customer_id, key)
            if suspicious:
                check_storable(text)
            if len(text) > 2 * MAX_DEPTH:
                check_depth(text)
            timestamp = _timestamp(envelope.timestamp)
            if not unlimited:
                _check_limits(timestamp, limits)
            data = decode_bounded(text)
            if type(data) is not dict or not is_valid(data):
                _check_schema(data, schema)
        except Refused as refused:
            problems.append(_problem(refused, index, raw))
        except (msgspec.DecodeError, RecursionError) as error:
            cause = error.__cause__
            if isinstance(cause, Refused):
                problems.append(_problem(cause, index, raw))
            elif (mended := _last_of_each(raw)) is not None:
                alone = Submission(mended, [msgspec.Raw(mended)], True, submission.key_of(index))
                taken, refused_again = read_records(alone, schema, limits)
                records += [msgspec.structs.replace(record, index=index) for record in taken]
                problems += [replace(problem, index=index) for problem in refused_again]
            else:
                problems.append(_explain(index, raw))
        else:
            records.append(ReceivedRecord(index, customer_id, timestamp, key or submission.key_of(index), text))
    return records, problems


def _names(text: str) -> bool:
    return 0 < len(text) <= MAX_TEXT and "\0" not in text


def check_text(text: str) -> None:
    """Raise ValueError for what cannot be a customer id or a record id."""
    if not 0 < len(text) <= MAX_TEXT:
        raise ValueError(f"a string of 1 to {MAX_TEXT} characters was expected, got {len(text)} characters")
    check_characters(text)


def check_data(data: Any, schema: DataSchema) -> None:
    """Raise ValueError for data that ingestion would refuse: not storable, or against the schema."""
    try:
        text = dumps(data).encode()
    except UnicodeEncodeError:
        raise ValueError("data holds text that is not Unicode: a surrogate without its pair") from None
    check_storable(text)
    check_depth(text)
    _check_schema(data, schema)


def _timestamp(text: str) -> datetime:
    try:
        return parse_timestamp(text)
    except ValueError as error:
        raise Refused("timestamp", "/timestamp", str(error)) from None


def _check_limits(moment: datetime, limits: TimeLimits) -> None:
    if limits.oldest is not None and moment < limits.oldest:
        message = f"this usage event takes records from {limits.oldest.isoformat()} on, got {moment.isoformat()}"
        raise Refused("too_old", "/timestamp", message)
    if limits.newest is not None and moment > limits.newest:
        message = f"this usage event takes records up to {limits.newest.isoformat()}, got {moment.isoformat()}"
        raise Refused("too_new", "/timestamp", message)


def _check_identity(customer_id: str, key: str | None) -> None:
    try:
        pointer = "/customer_id"
        check_text(customer_id)
        if key is not None:
            pointer = "/id"
            check_text(key)
    except ValueError as error:
        null = "\0" in (customer_id if pointer == "/customer_id" else key or "")
        code = "null_character" if null else "customer_id" if pointer == "/customer_id" else "malformed"
        raise Refused(code, pointer, str(error)) from None


def _check_schema(data: Any, schema: DataSchema) -> None:
    if not isinstance(data, dict):
        raise Refused("schema", "/data", f"{dumps(data)[:60]} is not of type 'object'")
    for violation in schema.violations(data):
        raise Refused("schema", "/data" + violation.pointer, violation.message)


def _problem(refused: Refused, index: int, raw: msgspec.Raw) -> Problem:
    return Problem(index, _id_of(raw), refused.code, refused.pointer, refused.message)


def _id_of(raw: msgspec.Raw) -> str | None:
    """The sender's id of a refused record, where it can be told."""
    try:
        value = msgspec.json.decode(_fields.decode(raw).get("id", b"null"))
    except (msgspec.DecodeError, RecursionError):
        return None
    return value if isinstance(value, str) and len(value) <= MAX_TEXT and "\0" not in value else None


def _explain(index: int, raw: msgspec.Raw) -> Problem:
    """Find the one field that made the fast way give up."""
    try:
        fields = _fields.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        came = type(error).__name__ if isinstance(error, RecursionError) else str(error)
        return Problem(index, None, "malformed", "", f"a record, that is a JSON object, was expected: {came}")
    code, pointer, message = _first_fault(fields) or ("malformed", "", "a record was expected")
    return Problem(index, _id_of(raw), code, pointer, message)


def _last_of_each(raw: msgspec.Raw) -> bytes | None:
    """Where only the earlier one of two equal fields is at fault: the record with the last of each, which counts."""
    try:
        fields = _fields.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None
    mended = msgspec.json.encode(fields)
    return mended if _first_fault(fields) is None and len(mended) < len(bytes(raw)) else None


def _first_fault(fields: dict[str, msgspec.Raw]) -> tuple[str, str, str] | None:
    for name in ("customer_id", "timestamp", "data"):
        if name not in fields:
            return "missing_field", f"/{name}", f"'{name}' is required, but is missing"
    for name in fields:
        if name not in Envelope.__struct_fields__:
            expected = "'customer_id', 'timestamp', 'data' and 'id' are the fields of a record"
            return "unknown_field", f"/{name.replace('~', '~0').replace('/', '~1')}", f"{expected}, got '{name[:60]}'"
    for name, code in (("customer_id", "customer_id"), ("timestamp", "timestamp"), ("id", "malformed")):
        fault = _text_fault(fields.get(name), nullable=name == "id")
        if fault:
            return code, f"/{name}", fault
    return None


def _text_fault(raw: msgspec.Raw | None, *, nullable: bool) -> str | None:
    text = b'""' if raw is None else bytes(raw)
    if text.startswith(b'"') or (nullable and text == b"null"):
        return None
    return f"a string was expected, got {text.decode()[:60]}"
