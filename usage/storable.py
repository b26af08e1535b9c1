"""What JSON allows and PostgreSQL cannot keep: null characters, halves of pairs, numbers and depth without bounds."""

import re
from decimal import Decimal
from typing import Any

import msgspec

from usage.bodies import MAX_DEPTH

MAX_DIGITS = 64
MAX_EXPONENT = 64

# What needs a closer look is rare; two quick passes over many texts at once tell whether any of them does. (Exponents
# are looked at where numbers are read: their like is in every other UUID.)
_ESCAPES = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
_DIGITS_TO_ZERO = bytes.maketrans(b"123456789.E", b"0" * 10 + b"e")
_EXPONENT = b"0e"
_LONG_NUMBER = b"0" * (MAX_DIGITS + 1)
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


class Refused(ValueError):
    """A record cannot be taken: a stable code, a JSON Pointer (RFC 6901) to the place, a sentence."""

    def __init__(self, code: str, pointer: str, message: str) -> None:
        super().__init__(f"{pointer}: {message}")
        self.code, self.pointer, self.message = code, pointer, message


def has_escapes(text: bytes) -> bool:
    """Tell whether an escaped null character or half of a pair may stand in the text."""
    return b"\\" in text and _ESCAPES.search(text) is not None


def is_suspicious(text: bytes) -> bool:
    """Tell whether the JSON in the text calls for `check_storable`: most does not."""
    return has_escapes(text) or _LONG_NUMBER in text.translate(_DIGITS_TO_ZERO)


def plain_objects(texts: list[bytes], *, exact: bool) -> list[dict[str, Any]] | None:
    """Return the JSON objects that are written in the texts; None where a long number calls for `check_storable`.

    Numbers with a fraction are rounded unless they must be exact. Escapes are the caller's to look at. Raises Refused,
    msgspec.DecodeError and RecursionError.
    """
    joined = b",".join(texts)
    shape = joined.translate(_DIGITS_TO_ZERO)
    if _LONG_NUMBER in shape:
        return None
    if max(map(len, texts), default=0) > 2 * MAX_DEPTH:
        for text in texts:
            check_depth(text)
    objects = _bounded_objects if _EXPONENT in shape else _exact_objects if exact else _rounded_objects
    return objects.decode(b"[%b]" % joined)


def decode_bounded(text: bytes) -> Any:
    """Return the JSON value that is written in the text; raises msgspec.DecodeError, caused by Refused for a number."""
    return _value.decode(text)


def check_characters(text: str) -> None:
    """Raise ValueError for text that PostgreSQL cannot keep."""
    if "\0" in text:
        raise ValueError("text without null characters was expected")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("Unicode was expected, got a surrogate without its pair") from None


def check_storable(text: bytes) -> None:
    """Raise Refused for JSON with a null character or a number that PostgreSQL would not keep."""
    if _NUL.search(text):
        raise Refused("null_character", "/data", "text without the character \\u0000 was expected; it cannot be stored")
    for number in _NUMBER.findall(_STRING.sub(b'""', text)):
        if not _is_bounded(number):
            shown = number.decode() if len(number) <= 40 else number[:39].decode() + "…"
            message = f"a number of at most {MAX_DIGITS} digits, within 1e±{MAX_EXPONENT}, was expected, got {shown}"
            raise Refused("number", "/data", message)


def check_depth(text: bytes) -> None:
    """Raise Refused for JSON that is nested too deeply."""
    if text.count(b"{") + text.count(b"[") <= MAX_DEPTH:
        return
    depth = 0
    for bracket in re.findall(rb"[\[\]{}]", _STRING.sub(b'""', text)):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            raise Refused("malformed", "/data", f"data nested at most {MAX_DEPTH} levels deep was expected")


def _is_bounded(number: bytes) -> bool:
    mantissa, _, exponent = number.lower().partition(b"e")
    if len(exponent) > 6 or sum(character in b"0123456789" for character in mantissa) > MAX_DIGITS:
        return False
    return abs(Decimal(number.decode()).adjusted()) <= MAX_EXPONENT


def _bounded(text: str) -> Decimal:
    if len(text) < MAX_EXPONENT and "e" not in text and "E" not in text:
        return Decimal(text)
    check_storable(text.encode())
    return Decimal(text)


_value = msgspec.json.Decoder(float_hook=_bounded)
_exact_objects = msgspec.json.Decoder(list[dict[str, Any]], float_hook=Decimal)
_rounded_objects = msgspec.json.Decoder(list[dict[str, Any]])
_bounded_objects = msgspec.json.Decoder(list[dict[str, Any]], float_hook=_bounded)
