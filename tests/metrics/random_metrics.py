"""Definitions at random: expressions, filters, whole metrics, and the schemas that they are defined on."""

import random
from decimal import Decimal
from typing import Any

from metrics.models import Aggregation, Metric, Rounding
from usage.models import UsageEvent

# What a sender may send changes: at first nearly anything, later less, and of the last one's properties some anything.
SCHEMAS: list[dict[str, Any]] = [
    {
        "type": "object",
        "properties": {
            "amount": {},
            "price": {"type": ["number", "null"]},
            "input-tokens": {"type": "integer"},
            "region": {},
            "plan": {"type": "string"},
            "tags": {"type": "array"},
            "live": {"type": "boolean"},
        },
    },
    {
        "type": "object",
        "properties": {
            "amount": {"type": "number"},
            "price": {"type": "number"},
            "input-tokens": {},
            "region": {"type": "string"},
            "plan": {"type": ["string", "number"]},
            "tags": {},
            "live": {},
        },
    },
    {
        "type": "object",
        "properties": {
            "amount": {"type": ["number", "string"]},
            "price": {},
            "input-tokens": {"type": "number"},
            "region": {"type": ["string", "number", "null"]},
            "plan": {},
            "tags": {"type": ["array", "string"]},
            "live": {"type": ["boolean", "null"]},
        },
    },
]
NUMBERS = ["amount", "price", '"input-tokens"']
TEXTS = ["eu", "us", "eu-1", "", "ü", "E", "1", "true", "a\\b'c\"d%s", "x" * 300]
FEW_NUMBERS = [0, 1, Decimal("1.0"), -1, 2, Decimal("0.5"), Decimal("-0.50"), 3, Decimal("1E+1"), 10, Decimal("1e-12")]
TAGS = ["eu", 1, Decimal("1.0"), True, None, "1", ["eu"], {"eu": 1}]


class Definitions:
    """Random definitions from one source of chance."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    # --- data -----------------------------------------------------------------------------------------------------

    def number(self) -> Any:
        if self.chance.random() < 0.7:
            return self.chance.choice(FEW_NUMBERS)
        return Decimal(self.chance.randrange(-(10**9), 10**12)).scaleb(-self.chance.randrange(0, 12))

    def anything(self) -> Any:
        return self.chance.choice([self.number, self.text, self.boolean, self.tags, lambda: None, lambda: {"a": 1}])()

    def text(self) -> str:
        return self.chance.choice(TEXTS)

    def boolean(self) -> bool:
        return self.chance.random() < 0.5

    def tags(self) -> list[Any]:
        return self.chance.sample(TAGS, self.chance.randrange(4))

    def data(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return data that the schema takes; where it takes anything, mostly numbers and texts."""
        found = {}
        for name, sub in schema["properties"].items():
            if self.chance.random() < 0.85:
                found[name] = self._member(name, sub.get("type", []))
        return found

    def _member(self, name: str, types: Any) -> Any:
        names = [types] if isinstance(types, str) else types
        kind = self.chance.choice(names or [self._usual(name), self._usual(name), "any"])
        makers = {
            "number": self.number,
            "integer": lambda: self.chance.randrange(-3, 8),
            "string": self.text,
            "boolean": self.boolean,
            "array": self.tags,
            "null": lambda: None,
            "any": self.anything,
        }
        return makers[kind]()

    def _usual(self, name: str) -> str:
        return {"region": "string", "plan": "string", "tags": "array", "live": "boolean"}.get(name, "number")

    # --- formulas -------------------------------------------------------------------------------------------------

    def expression(self) -> str:
        text = self._term(3)
        return text if any(name in text for name in NUMBERS) else f"{text} + {self.chance.choice(NUMBERS)}"

    def _term(self, depth: int) -> str:
        if depth == 0 or self.chance.random() < 0.2:
            return self.chance.choice([*NUMBERS, *NUMBERS, "4", "0.25", "1e2", "0", "3"])
        kind = self.chance.choice(["+", "-", "*", "/", "/", "-x", "(x)", "min", "max", "coalesce"])
        match kind:
            case "-x":
                return f"-({self._term(depth - 1)})"
            case "(x)":
                return f"({self._term(depth - 1)})"
            case "min" | "max" | "coalesce":
                return f"{kind}({', '.join(self._term(depth - 1) for _ in range(self.chance.randrange(1, 4)))})"
        return f"{self._term(depth - 1)} {kind} {self._term(depth - 1)}"

    def filters(self) -> dict[str, Any]:
        if self.chance.random() < 0.4:
            return {}
        return {self.chance.choice(["all", "any"]): [self._condition(2) for _ in range(self.chance.randrange(1, 4))]}

    def _condition(self, depth: int) -> dict[str, Any]:
        if depth and self.chance.random() < 0.25:
            return {
                self.chance.choice(["all", "any"]): [
                    self._condition(depth - 1) for _ in range(self.chance.randrange(1, 3))
                ]
            }
        operator, value = self.chance.choice(
            [
                ("eq", self._scalar()),
                ("ne", self._scalar()),
                ("in", [self._scalar() for _ in range(self.chance.randrange(1, 4))]),
                ("not_in", [self._scalar() for _ in range(self.chance.randrange(1, 4))]),
                (self.chance.choice(["gt", "gte", "lt", "lte"]), self.chance.choice([self.number, self.text])()),
                ("exists", self.boolean()),
                ("contains", self._scalar()),
                ("starts_with", self.chance.choice(["e", "eu", "", "x", "ü"])),
            ]
        )
        names = ["amount", "price", "input-tokens", "region", "plan", "tags", "live"]
        return {"property": self.chance.choice(names), "operator": operator, "value": value}

    def _scalar(self) -> Any:
        return self.chance.choice([self.number, self.text, self.text, self.boolean])()

    def formula(self) -> dict[str, Any]:
        """Return the fields of a formula; whether the schema in force agrees is for the product to say."""
        aggregation = self.chance.choice([*Aggregation.values, Aggregation.UNIQUE_COUNT, Aggregation.WEIGHTED_SUM])
        fields: dict[str, Any] = {"aggregation": aggregation, "filters": self.filters()}
        if aggregation == Aggregation.UNIQUE_COUNT:
            fields["property"] = self.chance.choice(["amount", "region", "plan", "live", "input-tokens"])
        elif aggregation != Aggregation.COUNT:
            if self.chance.random() < 0.4:
                fields["expression"] = self.expression()
            else:
                fields["property"] = self.chance.choice(["amount", "price", "input-tokens"])
        if aggregation == Aggregation.PERCENTILE:
            fields["percentile"] = self.chance.choice([Decimal(p) for p in ("0", "50", "95", "99.9", "100", "33.3")])
        if self.chance.random() < 0.6:
            names = ["region", "plan", "live", "amount", "input-tokens"]
            fields["group_by"] = self.chance.sample(names, self.chance.randrange(1, 4))
        if self.chance.random() < 0.3:
            fields["rounding_mode"] = self.chance.choice(Rounding.values)
            fields["rounding_digits"] = self.chance.choice([0, 0, 1, 2, 5])
        return fields

    def metric(self, usage_event: UsageEvent, code: str) -> Metric:
        """Return an unsaved metric."""
        return Metric(
            organisation=usage_event.organisation, usage_event=usage_event, code=code, name=code, **self.formula()
        )
