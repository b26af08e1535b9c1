"""Decimal arithmetic that loses nothing: exact sums and products, quotients of a stated precision, rounding."""

import decimal
from decimal import Context, Decimal, Inexact

# More digits than any sum or product of numbers that ingestion takes can have; where it would round, it raises.
EXACT = Context(prec=20_000, Emax=999_999, Emin=-999_999, traps=[Inexact])
QUOTIENT_DIGITS = 34

_MODES = {
    "half_up": decimal.ROUND_HALF_UP,
    "half_even": decimal.ROUND_HALF_EVEN,
    "up": decimal.ROUND_UP,
    "down": decimal.ROUND_DOWN,
    "ceiling": decimal.ROUND_CEILING,
    "floor": decimal.ROUND_FLOOR,
}


def quotient(dividend: Decimal, divisor: int) -> Decimal:
    """Return dividend / divisor with 34 significant digits more than the dividend has, half even.

    That is exact wherever the quotient has so few digits; the average of equal values is that value.
    """
    # However many zeros it was written with: one value has one quotient.
    digits = len(trimmed(dividend).as_tuple().digits) + QUOTIENT_DIGITS
    context = Context(prec=digits, rounding=decimal.ROUND_HALF_EVEN, Emax=999_999, Emin=-999_999)
    return context.divide(dividend, divisor)


def trimmed(value: Decimal) -> Decimal:
    """Return the value without the zeros at the end of its fraction."""
    short = value.normalize(EXACT)
    return short if int(short.as_tuple().exponent) <= 0 else short.quantize(Decimal(1), context=EXACT)


def rounded(value: Decimal, mode: str, digits: int) -> Decimal:
    """Return the value rounded to that many digits after the point by a mode of metrics.models.Rounding."""
    wide = Context(prec=20_000, Emax=999_999, Emin=-999_999)
    result = value.quantize(Decimal(1).scaleb(-digits), rounding=_MODES[mode], context=wide)
    return result.copy_abs() if result.is_zero() else result  # no "-0.00"


def exact_total(values: list[Decimal | None]) -> Decimal:
    """Return the sum without rounding; what is None adds nothing."""
    total = Decimal(0)
    for value in values:
        if value is not None:
            total = EXACT.add(total, value)
    return total
