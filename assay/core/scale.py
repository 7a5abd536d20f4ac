"""Round numbers between two others, as an axis has them."""

from __future__ import annotations

import math


def round_numbers(low: float, high: float, about: int) -> tuple[float, ...]:
    """About so many numbers from ``low`` to ``high``, at steps of 1, 2 or 5 times a power of ten.

    Only ``low`` where they are equal, or so far apart that their distance is no number.

    >>> round_numbers(0.4, 3.3, 6), round_numbers(-12.0, 40.0, 5)
    ((0.5, 1.0, 1.5, 2.0, 2.5, 3.0), (-10.0, 0.0, 10.0, 20.0, 30.0, 40.0))
    """
    if high <= low or not math.isfinite(high - low):
        return (low,)
    rough = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.7)
    digits = max(0, -math.floor(math.log10(step)))
    first, last = math.ceil(low / step), math.floor(high / step)
    return tuple(round(number * step, digits) for number in range(first, last + 1))
