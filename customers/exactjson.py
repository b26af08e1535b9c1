"""JSON that keeps every digit: numbers are read as int or Decimal and written back as they were."""

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

import msgspec
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.functional import Promise
from psycopg.types.json import Json


def _plain(value: Any) -> Any:
    """Django's and DRF's own kinds of text, mapping and list are written as what they are."""
    for kind in (str, Mapping, Sequence):
        if isinstance(value, kind):
            return {str: str, Mapping: dict, Sequence: list}[kind](value)
    if isinstance(value, Promise):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


_encoder = msgspec.json.Encoder(decimal_format="number", enc_hook=_plain)


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text[:40]} is beyond every number that can be stored") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


class ExactDecoder(json.JSONDecoder):
    """Reads numbers with a fraction or an exponent as Decimal; NaN, Infinity and absurd exponents raise ValueError."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "parse_float": _decimal, "parse_constant": _refuse_constant})


class ExactEncoder(json.JSONEncoder):
    """Writes what ExactDecoder reads; Decimals become JSON numbers with all their digits."""

    def encode(self, o: Any) -> str:
        return _encoder.encode(o).decode()


def loads(text: str | bytes, *, once: bool = False) -> Any:
    """Return the value of a JSON text; raises json.JSONDecodeError (with line and column) or ValueError.

    With `once` an object that has a member twice is refused too: nobody could say which of the two is meant.
    """
    return json.loads(text, cls=ExactDecoder, object_pairs_hook=_each_once if once else None)


def _each_once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        names = [name for name, _ in members]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the member {json.dumps(twice[:60])} is there twice in one object")
    return found


def dumps(value: Any, *, indent: int | None = None) -> str:
    """Return the JSON text of a value made of dict, list, str, int, Decimal, bool and None."""
    compact = _encoder.encode(value)
    return (msgspec.json.format(compact, indent=indent) if indent else compact).decode()


def same_json(left: Any, right: Any) -> bool:
    """Tell whether two values mean the same, as jsonb compares them: 1 equals 1.0, but true does not equal 1."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_json(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same_json, left, right))
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


class ExactJSONField(models.JSONField):
    """A jsonb column whose numbers come back as int and Decimal, never as float."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "encoder": ExactEncoder, "decoder": ExactDecoder})

    def deconstruct(self) -> Any:
        name, path, args, options = super().deconstruct()
        options.pop("encoder", None)
        options.pop("decoder", None)
        return name, path, args, options


class OrderedJSONField(ExactJSONField):
    """A json column, which keeps the order of an object's members as they were written; read whole, never searched."""

    def db_type(self, connection: BaseDatabaseWrapper) -> str:
        return "json"

    def get_db_prep_value(self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False) -> Any:
        # As json: Django would send jsonb, and lose the order on the way.
        return Json(value, dumps=dumps)

    def select_format(self, compiler: Any, sql: str, params: Any) -> Any:
        # As text: the driver would parse json itself, with floats.
        return f"({sql})::text", params
