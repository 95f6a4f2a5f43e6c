"""Which numbers tell conditions about numbers apart? Those at, between and beyond the points where something changes."""

from collections.abc import Iterable, Iterator
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from itertools import pairwise
from math import ulp

_EXACT_CONTEXT = Context(prec=700)
"""Holds every float to ten decimals."""

_LARGEST_FLOAT = 1e308


def format_decimal(number: Decimal) -> str:
    """Without an exponent, nor zeros that say nothing."""
    return f"{number.normalize(_EXACT_CONTEXT):f}"


def number_candidates(
    bounds: Iterable[str | float], limits: Iterable[float | None], decimals: int | None
) -> Iterator[Decimal]:
    """Numbers of so many decimals (None: any) at, between and beyond `bounds` and `limits`."""
    every = (*bounds, *(limit for limit in limits if limit is not None))
    points = sorted(
        {
            Decimal(str(point))
            for point in every
            if isinstance(point, (int, float)) and -_LARGEST_FLOAT <= point <= _LARGEST_FLOAT
        }
    )
    unit = Decimal(1).scaleb(-decimals) if decimals is not None else Decimal("0.0000000001")
    for point in points:
        low = point.quantize(unit, ROUND_FLOOR, _EXACT_CONTEXT)
        high = point.quantize(unit, ROUND_CEILING, _EXACT_CONTEXT)
        step = max(
            unit, Decimal(ulp(float(point))).quantize(unit, ROUND_CEILING, _EXACT_CONTEXT)
        )  # the next float
        yield from (low, high, _EXACT_CONTEXT.subtract(low, step), _EXACT_CONTEXT.add(high, step))
        if decimals is None:
            yield point
    for one, other in pairwise(points):
        yield _EXACT_CONTEXT.divide(_EXACT_CONTEXT.add(one, other), Decimal(2)).quantize(
            unit, ROUND_FLOOR, _EXACT_CONTEXT
        )
    yield from (Decimal(0), Decimal(1))
