"""The words of a metric's SQL, read strictly: what two readers might take for different things is refused."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_CHARACTERS = 10_000
MAX_TOKENS = 2_000
MAX_DEPTH = 30
MAX_NAME_BYTES = 63
MAX_DIGITS = 64  # of a number, before and after its point together; its exponent goes as far
PLACEHOLDERS = ("start_date", "end_date", "customer.external_id")
OPERATORS = frozenset(["+", "-", "*", "/", "%", "=", "<>", "!=", "<", ">", "<=", ">=", "||", "::", "->", "->>"])

_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\n]+)
    | (?P<comment>--[^\n]*|/\*.*?\*/)
    | (?P<placeholder>\{\{[^{}\n]*\}\})
    | (?P<string>'(?:[^']|'')*')
    | (?P<name>"(?:[^"]|"")*")
    | (?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<mark>[(),.;])
    | (?P<operator>::|(?:(?!--|/\*)[-+*/<>=~!@\#%^&|`?])+)
    """,
    re.DOTALL | re.VERBOSE,
)
# What PostgreSQL may read as a number inside quotes, and any number outside of them.
_NUMBER = re.compile(r"[-+\s]*(0[xob])?([0-9a-f_.]+?)(?:e([-+]?[0-9_]+))?\s*", re.IGNORECASE)
# PostgreSQL lets an operator end in a sign only if it holds one of these.
_SIGN_KEEPERS = frozenset("~!@#%^&|`?")
_ALL = ", ".join(f"{{{{{name}}}}}" for name in PLACEHOLDERS)
_REFUSALS = {
    "$": "dollar quotes and numbered parameters are not allowed; text is written in '…', values as {{start_date}}",
    "[": "arrays are not allowed",
    "]": "arrays are not allowed",
    "{": f"a placeholder was expected ({_ALL})",
    "}": f"a placeholder was expected ({_ALL})",
    "\\": "a backslash is only allowed inside '…'",
    "'": "the text that begins here has no end",
    '"': "the name that begins here has no end",
    "/": "the comment that begins here has no end",
}


class SqlError(ValueError):
    """What is wrong with the SQL of a metric, and where: line and column count from 1, in characters; 0 is nowhere."""

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(f"line {line}, column {column}: {message}" if line else message)
        self.message = message
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class Token:
    """A word of the text: its kind, how it is written, and where it begins (in characters, from 0)."""

    kind: str
    text: str
    start: int

    @property
    def meaning(self) -> str:
        """What PostgreSQL makes of it: a bare word in lower case, a quoted name without its quotes."""
        if self.kind == "name":
            return self.text[1:-1].replace('""', '"')
        return self.text.lower() if self.kind == "word" else self.text


NOTHING = Token("", "", 0)


def normal_text(text: str) -> str:
    """Return the text with line ends as PostgreSQL knows them; positions of errors are positions in this."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def error_at(text: str, position: int, message: str) -> SqlError:
    """Return the error at a position (in characters, from 0) of the text."""
    before = text[: max(0, min(position, len(text)))]
    return SqlError(message, before.count("\n") + 1, len(before) - before.rfind("\n"))


def tokens_of(text: str) -> list[Token]:
    """Return the words of a text, without spaces, comments and a semicolon at its end; raises SqlError."""
    if len(text) > MAX_CHARACTERS:
        raise error_at(text, MAX_CHARACTERS, f"at most {MAX_CHARACTERS} characters were expected, got {len(text)}")
    for position, character in enumerate(text):
        if not character.isprintable() and character not in "\n\t":
            raise error_at(text, position, f"an invisible character (U+{ord(character):04X}) is not allowed")
    tokens: list[Token] = []
    for token in _read(text):
        _check(text, token, tokens[-1] if tokens else NOTHING)
        tokens.append(token)
        if len(tokens) > MAX_TOKENS:
            raise error_at(text, token.start, f"at most {MAX_TOKENS} words were expected")
    if tokens and tokens[-1].text == ";":
        tokens.pop()
    _check_marks(text, tokens)
    return tokens


def without_comments(text: str, tokens: list[Token], written: dict[int, str] | None = None) -> str:
    """Return a text of the same length in which nothing but the tokens is left; line ends stay where they are.

    `written` gives what stands in place of some tokens, by their start; it is filled up with spaces.
    """
    result = ["\n" if character == "\n" else " " for character in text]
    for token in tokens:
        shown = (written or {}).get(token.start, token.text)
        result[token.start : token.start + len(token.text)] = shown.ljust(len(token.text))
    return "".join(result)


def placeholder_of(token: Token) -> str:
    """Return the name in a placeholder, without braces and spaces."""
    return token.text[2:-2].strip()


def _read(text: str) -> Iterator[Token]:
    position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            character = text[position]
            raise error_at(text, position, _REFUSALS.get(character, f"'{character}' is not allowed here"))
        kind, written = str(found.lastgroup), found.group()
        if kind == "operator":
            while len(written) > 1 and written[-1] in "+-" and not _SIGN_KEEPERS & set(written):
                written = written[:-1]
        if kind == "comment" and written.startswith("/*") and ("/*" in written[2:] or written[2:3] in ("+", "!")):
            raise error_at(text, position, "comments inside comments, /*+ and /*! are not allowed")
        if kind not in ("space", "comment"):
            yield Token(kind, written, position)
        position += len(written)


def _check(text: str, token: Token, previous: Token) -> None:
    """Refuse what readers of SQL disagree about, or what a metric has no use for; raises SqlError."""
    adjacent = previous.start + len(previous.text) == token.start
    refusal = ""
    if previous.text == ";":
        refusal = "one SELECT was expected; nothing may follow a semicolon"
    elif token.kind == "operator" and token.text not in OPERATORS:
        hint = ": it makes very long numbers of short ones; write x * x" if token.text == "^" else ""
        refusal = f"the operator {token.text} is not allowed{hint}"
    elif token.kind in ("string", "name") and adjacent and previous.kind in ("word", "number", "string", "name"):
        refusal = "a space was expected before the quote; prefixed texts such as E'…' and U&'…' are not allowed"
    elif token.kind == "word" and adjacent and previous.kind in ("number", "placeholder"):
        refusal = f"a space was expected before '{token.text}'"
    elif token.kind == "string" and "{{" in token.text:
        refusal = "a placeholder was found inside quotes; write it without them, it is a value by itself"
    elif token.kind in ("number", "string") and _is_long_number(token.text.strip("'")):
        refusal = f"a number of at most {MAX_DIGITS} digits within 1e-{MAX_DIGITS} and 1e{MAX_DIGITS} was expected"
    elif token.kind == "placeholder" and placeholder_of(token) not in PLACEHOLDERS:
        refusal = f"one of {_ALL} was expected, got {token.text}"
    elif token.kind == "name" and not 0 < len(token.meaning.encode()) <= MAX_NAME_BYTES:
        refusal = f"a name of 1 to {MAX_NAME_BYTES} bytes was expected"
    elif token.kind == "word" and len(token.text) > MAX_NAME_BYTES:
        refusal = f"a name of at most {MAX_NAME_BYTES} bytes was expected"
    if refusal:
        raise error_at(text, token.start, refusal)


def _is_long_number(text: str) -> bool:
    """Whether a number is longer than any that is stored, or could become so by its exponent."""
    found = _NUMBER.fullmatch(text)
    if found is None or not (found[1] or found[2][0] in "0123456789."):
        return False
    exponent = (found[3] or "0").replace("_", "").lstrip("+-0")
    digits = sum(character.isalnum() for character in found[2])
    return digits > MAX_DIGITS or len(exponent) > 2 or int(exponent or 0) > MAX_DIGITS


def _check_marks(text: str, tokens: list[Token]) -> None:
    """Refuse semicolons, and parentheses that do not match or go too deep."""
    opened: list[Token] = []
    for token in tokens:
        if token.kind != "mark":
            continue
        if token.text == ";":
            raise error_at(text, token.start, "one SELECT was expected; nothing may follow a semicolon")
        if token.text == "(":
            opened.append(token)
            if len(opened) > MAX_DEPTH:
                raise error_at(text, token.start, f"parentheses at most {MAX_DEPTH} deep were expected")
        elif token.text == ")":
            if not opened:
                raise error_at(text, token.start, "this parenthesis was never opened")
            opened.pop()
    if opened:
        raise error_at(text, opened[-1].start, "this parenthesis is never closed")
