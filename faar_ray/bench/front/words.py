"""Numbers of a study as cells of a Markdown table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from faar_ray.report.statistics.noise import Estimate
from faar_ray.report.words.wording import plus_minus

WEAK = 3
"""Seeds up to which an interval says little; cells say n then."""


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """A Markdown table."""
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    yield from (f"| {' | '.join(line)} |" for line in lines)


def estimate(mean: Estimate) -> str:
    """`-1.7 ± 0.9`; with n where few seeds say little; empty without any."""
    return "" if math.isnan(mean.value) else plus_minus(mean.value, mean.ci95) + few(mean.dof + 1)


def difference(gain: Estimate) -> str:
    """`+1.7 ± 0.8`, in bold where the interval leaves out 0; empty without any."""
    if math.isnan(gain.value):
        return ""
    text = ("+" if gain.value > 0 else "") + plus_minus(gain.value, gain.ci95)
    return (f"**{text}**" if gain.is_significant else text) + few(gain.dof + 1)


def few(seeds: int) -> str:
    """`(n 3)`, of few seeds."""
    return f" (n {seeds})" if seeds <= WEAK else ""
