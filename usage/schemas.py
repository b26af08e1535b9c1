"""Data schemas: checked when they are defined, compiled once per version, violations worded for the sender."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jsonschema_rs
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from customers.exactjson import dumps
from usage.schema_cost import DIALECT, check_cost

MAX_SCHEMA_BYTES = 100_000
MAX_DEPTH = 64
MAX_SHOWN = 80
# Words of a schema that ask which number it is, and not only whether it is one.
ASKS_WHICH_NUMBER = (
    "integer", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "enum", "const",
    "uniqueItems",
)  # fmt: skip
TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")


@dataclass(frozen=True, slots=True)
class Violation:
    """One way in which data breaks its schema; `pointer` is a JSON Pointer (RFC 6901) below `data`."""

    pointer: str
    message: str


class DataSchema:
    """A compiled schema of records' data. Thread-safe; compile once per version and keep.

    `asks_which_number`: whether the verdict may depend on a digit, so that numbers must be handed over exact.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self._validator = self._compiled(schema)
        self.is_valid = self._validator.is_valid
        text = dumps(schema)
        self._validator_of_many = None if '"$' in text else self._compiled({"items": schema})
        # What a $ref leads to beyond this text (the dialect's own schema, say) may ask as well.
        leads_elsewhere = text.count('"$ref":') != text.count('"$ref":"#')
        self.asks_which_number = leads_elsewhere or any(f'"{word}"' in text for word in ASKS_WHICH_NUMBER)

    @staticmethod
    def _compiled(schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
        return jsonschema_rs.Draft202012Validator(
            schema,
            validate_formats=False,
            offline=True,  # a remote $ref must never be fetched
            pattern_options=jsonschema_rs.RegexOptions(),  # the linear engine: no pattern can run away
        )

    def are_valid(self, many: list[dict[str, Any]]) -> bool:
        """Tell whether all of them are valid: at once, unless the schema names places in itself ($ref, $defs, …)."""
        if self._validator_of_many is None:
            return all(map(self.is_valid, many))
        return self._validator_of_many.is_valid(many)

    def violations(self, data: Any) -> Iterator[Violation]:
        """Yield what is wrong with the data, in the schema's order; nothing for valid data."""
        for error in self._validator.iter_errors(data):
            yield Violation(_pointer(error.instance_path), _message(error))


def check_schema(schema: Any) -> None:
    """Refuse what cannot serve as a schema of data; raises ValueError with the place of the mistake.

    Both validators have a say: the one that words mistakes well, and the one that will do the work.
    """
    if not isinstance(schema, dict):
        raise ValueError(f'a JSON object was expected, such as {{"type": "object"}}, got {_shown(schema)}')
    _check_depth(schema)
    properties = schema.get("properties")
    if isinstance(properties, dict) and any("\0" in name for name in properties):
        raise ValueError("at /properties: names without null characters were expected; such data cannot be stored")
    size = _size(schema)
    if size > MAX_SCHEMA_BYTES:
        raise ValueError(f"a schema of at most {MAX_SCHEMA_BYTES} bytes was expected, got {size}")
    if schema.get("$schema", DIALECT) not in (DIALECT, f"{DIALECT}#"):
        raise ValueError(f"at /$schema: {DIALECT} was expected, got {_shown(schema['$schema'])}")
    mistake = best_match(Draft202012Validator(Draft202012Validator.META_SCHEMA).iter_errors(_plain(schema)))
    if mistake is not None:
        raise ValueError(f"at {_pointer(mistake.absolute_path) or '/'}: {_definition_message(mistake)}")
    if schema.get("type") != "object":
        raise ValueError(
            f'at /type: "object" was expected, because data is an object, got {_shown(schema.get("type"))}'
        )
    try:
        DataSchema(schema)
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        raise ValueError(_compile_message(error)) from error
    check_cost(schema)


def properties_of(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the schema's own top-level properties, name to subschema (a boolean subschema reads as {})."""
    return {name: sub if isinstance(sub, dict) else {} for name, sub in (schema.get("properties") or {}).items()}


def types_of(subschema: dict[str, Any]) -> list[str]:
    """Return the JSON types that a subschema names; an empty list means any type."""
    types = subschema.get("type", [])
    return [types] if isinstance(types, str) else list(types)


def _size(schema: Any) -> int:
    try:
        return len(dumps(schema).encode())
    except UnicodeEncodeError:
        raise ValueError("text without halves of surrogate pairs was expected") from None


def _check_depth(schema: Any) -> None:
    """The Python validator recurses, and so does whatever renders a schema; a loop, so that no depth can hurt."""
    level, depth = [schema], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"a schema nested at most {MAX_DEPTH} levels deep was expected")
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]


def _plain(schema: Any) -> Any:
    # The Python validator knows float, not Decimal.
    return json.loads(dumps(schema))


def _definition_message(mistake: Any) -> str:
    if list(mistake.absolute_path)[-1:] == ["type"]:
        return f"one of {', '.join(TYPES)}, or a list of them, was expected, got {_shown(mistake.instance)}"
    return str(mistake.message)


def _compile_message(error: Exception) -> str:
    path = getattr(error, "instance_path", None) or getattr(error, "schema_path", None)
    message = getattr(error, "message", str(error))
    return f"at {_pointer(path)}: {message}" if path else message


def _pointer(path: Any) -> str:
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else dumps(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def _message(error: jsonschema_rs.ValidationError) -> str:
    """Say what was expected and what came; the library's own words only where it has more to say."""
    came, kind = _shown(error.instance), error.kind
    match kind:
        case jsonschema_rs.ValidationErrorKind.Type():
            names = " or ".join(f"'{name}'" for name in _names(kind.types))
            return f"{came} is not of type {names}"
        case jsonschema_rs.ValidationErrorKind.Required():
            return f"'{kind.property}' is required, but is missing"
        case jsonschema_rs.ValidationErrorKind.AdditionalProperties():
            unexpected = ", ".join(f"'{name}'" for name in kind.unexpected[:5])
            return f"{unexpected} is not in the schema, which allows no additional properties"
        case jsonschema_rs.ValidationErrorKind.Enum():
            return f"{came} is not one of {_shown(kind.options)}"
        case jsonschema_rs.ValidationErrorKind.Minimum():
            return f"{came} is less than the minimum of {_shown(kind.limit)}"
        case jsonschema_rs.ValidationErrorKind.Maximum():
            return f"{came} is greater than the maximum of {_shown(kind.limit)}"
        case jsonschema_rs.ValidationErrorKind.FalseSchema():
            return f"{came} is not in the schema, which allows nothing here"
        case _:
            return error.message if len(error.message) <= 300 else error.message[:299] + "…"


def _names(types: Any) -> list[str]:
    return [types] if isinstance(types, str) else [str(name) for name in types]
