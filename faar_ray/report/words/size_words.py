"""The sentence of a search with `front`: which size is enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from faar_ray.report.statistics.noise import Estimate
from faar_ray.report.statistics.table import Row

Gain = Callable[[Row, Row], Estimate]
"""Quality of one row against another, positive = better."""


def size_sentences(
    searched: Sequence[Row],
    quality: str,
    gain: Gain,
    cost: Callable[[float], str],
    value: Callable[[float, float], str],
) -> Iterator[str]:
    """`Take 100k adapter parameters (lr 0.002): delta_m -0.6 ± 0.8, like its full size (367k ...) to within 0.5.`

    Nothing without points, where the noise is unknown, or where the full size is recommended.

    Args:
        searched: configurations of the search, one of which is recommended.
        quality: name of the metric that is compared.
        gain: of two of them.
        cost: a number of parameters for people.
        value: a value with the half width of its interval for people.
    """
    pick = next(row for row in searched if row.recommended)
    full = next((row for row in searched if row.trunk == pick.trunk and row.budget is None), None)
    if pick.budget is None or full is None or pick.cost is None or full.cost is None or not math.isfinite(pick.ci95):
        return

    loss = gain(full, pick)
    _, comma, rest = pick.name.partition(", ")
    of = f" ({rest})" if comma else ""
    take = f"Take {cost(pick.cost)}{of}: {quality} {value(pick.values[quality], pick.ci95)}"
    whole = f"its full size ({cost(full.cost)})"
    if loss.is_significant:
        word = "worse" if loss.value > 0 else "better"
        yield f"{take}, {value(abs(loss.value), loss.ci95)} {word} than {whole}."
    else:
        yield f"{take}, like {whole} to within {max(loss.value, 0.0) + loss.ci95:.1f}."
