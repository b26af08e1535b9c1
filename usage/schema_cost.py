"""How often a schema would look at one value: a short schema with `$ref` can ask for more looks than there is time."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_LOOKS = 10_000
DATA_DEPTH = 64

# Keywords by what their schemas look at: the same value, or what is inside of it.
SAME_ONE = ("not", "if", "then", "else")
SAME_MANY = ("allOf", "anyOf", "oneOf")
INSIDE_ONE = ("additionalProperties", "propertyNames", "items", "contains", "unevaluatedProperties", "unevaluatedItems")
INSIDE_EITHER = ("properties", "prefixItems")  # of these schemas one looks at each member

_PLACE = re.compile(r"#(?:/[^#]*)?")


class TooCostly(ValueError):
    """Validation by this schema could run away."""


def check_cost(schema: dict[str, Any]) -> None:
    """Refuse a schema that would look at one value of the data more than MAX_LOOKS times, or for ever.

    It has been compiled before, so what it refers to is there. A schema without `$ref` looks at each value at most as
    often as it has parts. One with `$ref` is expanded, each part once, as deep as data may be nested: looks double with
    every level where a part refers to itself twice. Raises TooCostly (a ValueError), naming the place.
    """
    for keyword in ("$dynamicRef", "$recursiveRef"):
        if _holds(schema, keyword):
            raise TooCostly(f"{keyword} is not supported; use $ref")
    if not _holds(schema, "$ref"):
        return
    graph = _Graph(schema)
    looks = [0] * len(graph.same)
    for _ in range(DATA_DEPTH + 1):
        looks = graph.deeper(looks)
        if looks[0] > MAX_LOOKS:
            raise TooCostly(f"at most {MAX_LOOKS} looks at one value were expected; its $ref multiply")


class _Graph:
    """The parts of a schema and which part hands a value, or what is inside of it, to which others."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.schema = schema
        self.numbers: dict[int, int] = {}
        self.parts: list[dict[str, Any]] = []
        self.same: list[list[int]] = []
        # For each part groups of parts: all groups look at a member, and of one group the most costly part does.
        self.inside: list[list[list[int]]] = []
        self._number(schema)
        for part in self.parts:  # grows while it is walked
            self.same.append([self._number(other) for other in self._same(part)])
            self.inside.append([[self._number(other) for other in group] for group in _inside(part)])
        self.order = self._order()

    def deeper(self, looks: list[int]) -> list[int]:
        """From the looks at the worst value up to some depth, by part, to those up to one level more."""
        here, below = [0] * len(self.parts), [0] * len(self.parts)
        for part in self.order:
            here[part] = 1 + sum(here[other] for other in self.same[part])
            below[part] = sum(below[other] for other in self.same[part])
            below[part] += sum(max(looks[other] for other in group) for group in self.inside[part])
            here[part], below[part] = min(here[part], MAX_LOOKS + 1), min(below[part], MAX_LOOKS + 1)
        return [max(pair) for pair in zip(here, below, strict=True)]

    def _number(self, part: dict[str, Any]) -> int:
        number = self.numbers.setdefault(id(part), len(self.parts))
        if number == len(self.parts):
            self.parts.append(part)
        return number

    def _same(self, part: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if isinstance(part.get("$ref"), str):
            yield from _schemas([self._target(part["$ref"])])
        for keyword in SAME_ONE:
            yield from _schemas([part.get(keyword)])
        for keyword in SAME_MANY:
            yield from _schemas(part.get(keyword))
        yield from _schemas(part.get("dependentSchemas"))

    def _target(self, reference: str) -> Any:
        if reference == DIALECT:
            return {}  # what describes schemas looks at a value a few times and has no parts of ours
        if not _PLACE.fullmatch(reference):
            expected = "a place in this schema such as '#/$defs/name' was expected"
            raise TooCostly(f"at $ref: {expected}, got '{reference[:60]}'")
        found: Any = self.schema
        for step in reference.split("/")[1:]:
            step = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and step.isascii() and step.isdigit() and int(step) < len(found):
                found = found[int(step)]
            elif isinstance(found, dict) and step in found:
                found = found[step]
            else:
                raise TooCostly(f"at $ref: nothing is at '{reference[:60]}'")
        return found

    def _order(self) -> list[int]:
        """Parts after those that they hand their own value to; a loop of such parts would never end."""
        waiting = [len(others) for others in self.same]
        users: list[list[int]] = [[] for _ in self.same]
        for part, others in enumerate(self.same):
            for other in others:
                users[other].append(part)
        order = [part for part, number in enumerate(waiting) if not number]
        for part in order:  # grows while it is walked
            for user in users[part]:
                waiting[user] -= 1
                if not waiting[user]:
                    order.append(user)
        if len(order) < len(self.parts):
            raise TooCostly("a $ref leads back to itself without going deeper into the data")
        return order


def _inside(part: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    for keyword in INSIDE_ONE:
        yield from ([schema] for schema in _schemas([part.get(keyword)]))
    yield from ([schema] for schema in _schemas(part.get("patternProperties")))
    for keyword in INSIDE_EITHER:
        group = list(_schemas(part.get(keyword)))
        if group:
            yield group


def _schemas(value: Any) -> Iterator[dict[str, Any]]:
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    yield from (member for member in members if isinstance(member, dict))


def _holds(schema: Any, keyword: str) -> bool:
    """Tell whether the keyword stands anywhere with a text, as a reference does."""
    waiting = [schema]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if isinstance(item.get(keyword), str):
                return True
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return False
