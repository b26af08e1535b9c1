"""What may stand in filters: their shape, their size, and values that can match what the schema allows."""

from decimal import Decimal
from typing import Any, NoReturn

from metrics.expression_text import MAX_DIGITS, MAX_EXPONENT
from usage.schemas import properties_of, types_of

GROUPS = ("all", "any")
OPERATORS = ("eq", "ne", "in", "not_in", "gt", "gte", "lt", "lte", "exists", "contains", "starts_with")
MEMBERSHIP = ("in", "not_in")
ORDER = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
MAX_DEPTH = 5
MAX_CONDITIONS = 50
MAX_VALUES = 100
MAX_TEXT = 1000
MAX_SHOWN = 80

_KINDS = {"string": "text", "number": "a number", "boolean": "true or false"}


class FilterCheck:
    """One walk over filters of records of a schema; it keeps count, and descends no deeper than it may."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._properties = properties_of(schema)
        self._conditions = self._groups = 0

    def group(self, group: Any, place: str = "", depth: int = 1) -> None:
        """Raise ValueError, with the place, for what is no group of conditions that fit the schema."""
        if not isinstance(group, dict) or len(group) != 1 or next(iter(group)) not in GROUPS:
            _refuse(place, 'an object with one member, "all" or "any", was expected', group)
        self._groups += 1
        if depth > MAX_DEPTH:
            _refuse(place, f"groups nested at most {MAX_DEPTH} deep were expected")
        if self._groups > MAX_CONDITIONS:
            _refuse(place, f"at most {MAX_CONDITIONS} groups were expected")
        ((name, members),) = group.items()
        place = f"{place}.{name}" if place else name
        if not isinstance(members, list):
            _refuse(place, "a list of conditions was expected", members)
        if name == "any" and not members:
            _refuse(place, "at least one condition was expected, because no record would pass", members)
        for index, member in enumerate(members):
            self._member(member, f"{place}[{index}]", depth)

    def _member(self, member: Any, place: str, depth: int) -> None:
        if isinstance(member, dict) and not member.keys().isdisjoint(GROUPS):
            self.group(member, place, depth + 1)
            return
        if not isinstance(member, dict) or not member:
            _refuse(place, "a condition or a group was expected", member)
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            _refuse(place, f"at most {MAX_CONDITIONS} conditions were expected")
        for field in ("property", "operator", "value"):
            if field not in member:
                _refuse(f"{place}.{field}", "property, operator and value were expected, this is missing")
        for field in member:
            if field not in ("property", "operator", "value"):
                _refuse(place, "property, operator and value were expected", field)
        self._condition(member["property"], member["operator"], member["value"], place)

    def _condition(self, name: Any, operator: Any, value: Any, place: str) -> None:
        if not isinstance(name, str) or name not in self._properties:
            known = [_shown(known) for known in self._properties]
            shown = ", ".join(known[:20] + ["…"] * (len(known) > 20)) or "none is there"
            _refuse(f"{place}.property", f"a property of the usage event's schema was expected ({shown})", name)
        if not isinstance(operator, str) or operator not in OPERATORS:
            _refuse(f"{place}.operator", f"one of {', '.join(OPERATORS)} was expected", operator)
        if operator == "exists":
            if not isinstance(value, bool):
                _refuse(f"{place}.value", "true or false was expected", value)
            return
        kinds = _kinds(self._properties[name], operator)
        if not kinds:
            types = " or ".join(types_of(self._properties[name]))
            _refuse(f"{place}.operator", f"an operator for a property of type {types} was expected", operator)
        place = f"{place}.value"
        if operator not in MEMBERSHIP:
            _check_value(value, kinds, place)
            return
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_VALUES:
            _refuse(place, f"a list of 1 to {MAX_VALUES} values was expected", value)
        for index, one in enumerate(value):
            _check_value(one, kinds, f"{place}[{index}]")


def _kinds(subschema: dict[str, Any], operator: str) -> list[str]:
    """The kinds of value that a condition on a property may hold, such that some record can match."""
    fitting = {"starts_with": ["string"]} | {name: ["string", "number"] for name in ORDER}
    possible = _scalars(types_of(subschema))
    if operator == "contains":
        types = types_of(subschema)
        possible = ["string"] if not types or "string" in types else []
        if not types or "array" in types:
            items = subschema.get("items") if "prefixItems" not in subschema else None
            possible += _scalars(types_of(items) if isinstance(items, dict) else [])
    return [kind for kind in fitting.get(operator, list(_KINDS)) if kind in possible]


def _scalars(types: list[str]) -> list[str]:
    """The kinds of scalar that a schema's types allow; no types allow any."""
    return ["number" if kind == "integer" else kind for kind in types or _KINDS if kind in {*_KINDS, "integer"}]


def _check_value(value: Any, kinds: list[str], place: str) -> None:
    expected = " or ".join(_KINDS[kind] for kind in kinds)
    kind = _kind(value)
    if value is None:
        _refuse(place, f"{expected} was expected, got null; exists tells what is null or missing")
    if kind not in kinds:
        _refuse(place, f"{expected} was expected", value)
    if kind == "string":
        _check_text(value, place)
    elif kind == "number" and not _is_storable(value):
        _refuse(place, f"a number of at most {MAX_DIGITS} digits, within 1e±{MAX_EXPONENT}, was expected", value)


def _check_text(text: str, place: str) -> None:
    if len(text) > MAX_TEXT:
        _refuse(place, f"text of at most {MAX_TEXT} characters was expected, got {len(text)}")
    if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text):
        _refuse(place, "text without null characters and halves of surrogate pairs was expected")


def _kind(value: Any) -> str | None:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    return "number" if isinstance(value, int | Decimal | float) else None


def exact(number: int | Decimal | float) -> int | Decimal:
    """Return a number with the digits that it is written with."""
    return Decimal(repr(number)) if isinstance(number, float) else number


def _is_storable(number: int | Decimal | float) -> bool:
    decimal = exact(number)
    if isinstance(decimal, int):
        return abs(decimal) < 10**MAX_DIGITS  # Python refuses to write a very long one
    if not decimal.is_finite() or len(decimal.as_tuple().digits) > MAX_DIGITS:
        return False
    return abs(decimal.adjusted()) <= MAX_EXPONENT


_NOTHING_CAME = object()


def _refuse(place: str, message: str, came: Any = _NOTHING_CAME) -> NoReturn:
    """Raise the ValueError that says where, what was expected and what came."""
    got = "" if came is _NOTHING_CAME else f", got {_shown(came)}"
    raise ValueError(f"at {place}: {message}{got}" if place else f"{message}{got}")


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        # Never written out: its depth is the sender's choice.
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    if isinstance(value, int) and abs(value) >= 10**MAX_SHOWN:
        return "an absurdly long one"
    written = repr(value) if isinstance(value, str) else "null" if value is None else str(value)
    text = written.lower() if isinstance(value, bool) else written
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"
