"""Numbers and texts as a browser writes them. No IO."""

from __future__ import annotations

import math
from typing import TypeGuard

Number = int | float
#: Greater numbers are not calculated with.
_GREATEST = 1e300


def is_number(value: object) -> TypeGuard[Number]:
    """Whether a value is a number that can be calculated with; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -_GREATEST < value < _GREATEST


def as_number(value: object) -> Number | None:
    """A JSON value as a browser turns it into a number; None if it cannot."""
    if value is None or isinstance(value, bool):
        return int(bool(value))
    if isinstance(value, str):
        try:
            value = float(value.strip() or "0") if len(value) < 400 and "_" not in value else None
        except ValueError:
            return None
    return value if is_number(value) else None


def as_javascript(value: object) -> str:
    """A JSON value as a browser turns it into a text."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case int():
            return str(value) if abs(value) < 2**53 else _of_float(_near(value))
        case float():
            return _of_float(value)
        case list():
            return ",".join(map(as_javascript, value))
        case _:
            return "[object Object]"


def _near(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _of_float(value: float) -> str:
    if not math.isfinite(value):
        return "Infinity" if value > 0 else "-Infinity" if value < 0 else "NaN"
    if value == int(value) and abs(value) < 1e21:
        digits = repr(abs(value))
        if "e" in digits:
            mantissa, _, exponent = digits.partition("e")
            whole, _, fraction = mantissa.partition(".")
            digits = (whole + fraction.rstrip("0")).ljust(int(exponent) + len(whole), "0")
        return ("-" if value < 0 else "") + digits.removesuffix(".0")
    text = repr(value)
    mantissa, mark, exponent = text.partition("e")
    if mark and -6 <= int(exponent) < 0:
        return f"{value:.{-int(exponent) + len(mantissa.replace('.', '').lstrip('-')) - 1}f}"
    return f"{mantissa.removesuffix('.0')}e{int(exponent):+d}" if mark else text
