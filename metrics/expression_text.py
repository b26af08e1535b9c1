"""The text of expressions: the tree that it stands for, how it is read, how it is written.

expression = operand, {("+" | "-" | "*" | "/"), operand};      "*" and "/" bind tighter; from left to right
operand    = {"-"}, (number | property | function, "(", expression, {",", expression}, ")" | "(", expression, ")");
function   = "min" | "max" | "coalesce";                       a name that no "(" follows is a property's
property   = identifier | '"', characters with '"' doubled, '"';
"""

import re
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import NoReturn

MAX_CHARACTERS = 500
MAX_NODES = 100
MAX_DEPTH = 32
MAX_DIGITS = 64
MAX_EXPONENT = 64
FUNCTIONS = ("min", "max", "coalesce")
PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}
_UNARY = 3
_NUMBER = 4

# As they are pasted from documents.
_TYPOGRAPHIC = {"\N{MINUS SIGN}": "-", "\N{MULTIPLICATION SIGN}": "*", "\N{DIVISION SIGN}": "/"}
_EXACT = Context(prec=MAX_DIGITS)
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_IDENTIFIER = re.compile(r"[^\W\d]\w*")
_TOKEN = re.compile(
    r"""(?P<number>(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    | (?P<name>[^\W\d]\w*)
    | "(?P<quoted>(?:[^"]|"")*+)"
    | (?P<sign>[-+*/(),\N{MINUS SIGN}\N{MULTIPLICATION SIGN}\N{DIVISION SIGN}])""",
    re.VERBOSE,
)


class ExpressionError(ValueError):
    """The text is no expression; `position` is the place of the mistake, counted from 0 (its message counts from 1)."""

    def __init__(self, position: int, message: str) -> None:
        super().__init__(f"at character {position + 1}: {message}")
        self.position = position


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it was written, without the zeros that say nothing; never negative."""

    value: Decimal


@dataclass(frozen=True, slots=True)
class Property:
    """A property of the record's data."""

    name: str


@dataclass(frozen=True, slots=True)
class Negation:
    """The operand with the other sign."""

    operand: "Node"


@dataclass(frozen=True, slots=True)
class Binary:
    """Two operands and one of + - * /."""

    operator: str
    left: "Node"
    right: "Node"


@dataclass(frozen=True, slots=True)
class Call:
    """min, max or coalesce of one argument or more."""

    function: str
    arguments: tuple["Node", ...]


Node = Number | Property | Negation | Binary | Call


def parse(text: str) -> Node:
    """Return the tree of a text; raises ExpressionError, which says where and what was expected."""
    return _Parser(text).tree()


def _written_number(value: Decimal) -> str:
    """Plain, unless an exponent spares many zeros; never with more digits than can be read back."""
    plain, significant = f"{value:f}", len(value.as_tuple().digits)
    is_readable = len(plain.replace(".", "")) <= min(max(significant + 4, 20), MAX_DIGITS)
    return plain if is_readable else f"{value:e}".replace("e+", "e")


def _binding(node: Node) -> int:
    match node:
        case Binary(operator):
            return PRECEDENCE[operator]
        case Negation():
            return _UNARY
    return _NUMBER


def written(node: Node, lowest: int = 0) -> str:
    """Return the node's text with normal spacing, in parentheses if it binds less than `lowest`."""
    match node:
        case Number(value):
            text = _written_number(value)
        case Property(name):
            text = written_name(name)
        case Negation(operand):
            text = "-" + written(operand, _UNARY)
        case Binary(operator, left, right):
            binding = PRECEDENCE[operator]
            text = f"{written(left, binding)} {operator} {written(right, binding + 1)}"
        case Call(function, arguments):
            text = f"{function}({', '.join(written(argument) for argument in arguments)})"
    return f"({text})" if _binding(node) < lowest else text


def written_name(name: str) -> str:
    """Return a property's name as an expression writes it: in double quotes unless it is an identifier."""
    return name if _IDENTIFIER.fullmatch(name) else '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # number, name, quoted, sign; end
    text: str
    position: int

    def __str__(self) -> str:
        if self.kind == "quoted":
            return f'"{self.text}"'
        return "the end" if self.kind == "end" else f"'{self.text}'"


def _tokens(text: str) -> list[_Token]:
    """Take a text apart; the last token is the end."""
    if unstorable := _UNSTORABLE.search(text):
        message = "text without null characters and halves of surrogate pairs was expected"
        raise ExpressionError(unstorable.start(), message)
    tokens, position = [], 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise ExpressionError(position, _no_token(text[position]))
        kind = match.lastgroup
        written = match[kind]
        tokens.append(_Token(kind, _TYPOGRAPHIC.get(written, written) if kind == "sign" else written, position))
        position = match.end()
    return [*tokens, _Token("end", "", len(text))]


def _no_token(character: str) -> str:
    if character == '"':
        return "a closing double quote was expected, got the end"
    if character in "'`[“”":
        return f"a property's name in double quotes was expected, got {character}"
    return f"numbers, properties, + - * / and parentheses were expected, got '{character}'"


class _Parser:
    """Precedence climbing; it descends for parentheses only, whose depth is limited."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._index = self._nodes = self._depth = 0

    def tree(self) -> Node:
        root = self._binary(1)
        if self._next.kind != "end":
            self._fail("an operator was expected" if self._next.text != ")" else "an operator or the end was expected")
        return root

    @property
    def _next(self) -> _Token:
        return self._tokens[self._index]

    def _fail(self, message: str) -> NoReturn:
        raise ExpressionError(self._next.position, f"{message}, got {self._next}")

    def _take(self) -> _Token:
        token = self._next
        self._index += 1
        return token

    def _is(self, sign: str) -> bool:
        return self._next.kind == "sign" and self._next.text == sign

    def _count(self) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            message = f"at most {MAX_NODES} numbers, properties, operators and functions were expected, got more"
            raise ExpressionError(self._next.position, message)

    def _binary(self, lowest: int) -> Node:
        left = self._operand()
        while self._next.kind == "sign" and PRECEDENCE.get(self._next.text, 0) >= lowest:
            self._count()
            operator = self._take().text
            left = Binary(operator, left, self._binary(PRECEDENCE[operator] + 1))
        return left

    def _operand(self) -> Node:
        signs = 0
        while self._is("-"):
            self._count()
            self._take()
            signs += 1
        operand = self._primary()
        for _ in range(signs):
            operand = Negation(operand)
        return operand

    def _primary(self) -> Node:
        if self._is("("):
            return self._inside()[0]
        if self._next.kind not in ("number", "name", "quoted"):
            self._fail("a number, a property or '(' was expected")
        self._count()
        token = self._take()
        if token.kind == "number":
            return Number(_number(token))
        if token.kind == "quoted":
            return Property(token.text.replace('""', '"'))
        if not self._is("("):
            return Property(token.text)
        if token.text not in FUNCTIONS:
            raise ExpressionError(token.position, f"one of {', '.join(FUNCTIONS)} was expected before '(', got {token}")
        return Call(token.text, self._inside(many=True))

    def _inside(self, many: bool = False) -> tuple[Node, ...]:
        """What stands between the parenthesis that comes next and its end; several only where commas may stand."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(f"parentheses at most {MAX_DEPTH} deep were expected")
        self._take()
        nodes = [self._binary(1)]
        while many and self._is(","):
            self._take()
            nodes.append(self._binary(1))
        if not self._is(")"):
            self._fail("an operator, ',' or ')' was expected" if many else "an operator or ')' was expected")
        self._take()
        self._depth -= 1
        return tuple(nodes)


def _number(token: _Token) -> Decimal:
    mantissa, _, exponent = token.text.lower().partition("e")
    digits = sum(character.isdigit() for character in mantissa)
    # An absurd exponent would not even be read.
    value = Decimal(token.text) if abs(int(exponent or 0)) <= MAX_CHARACTERS else None
    if value is None or digits > MAX_DIGITS or abs(value.adjusted()) > MAX_EXPONENT:
        message = f"a number of at most {MAX_DIGITS} digits, within 1e±{MAX_EXPONENT}, was expected, got {token.text}"
        raise ExpressionError(token.position, message)
    return value.normalize(_EXACT)
