"""The learning rate of each row: the best of those that a study's first stage tried."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from faar_ray.records import TrialResult

LR, KIND, RANK = "optim.lr", "ranks.kind", "ranks.init_rank"
Tried = dict[tuple[str, int], float]
"""(kind of ranks, initial rank) -> the best learning rate."""


def best_rates(results: Sequence[TrialResult], full_rank: int) -> Tried:
    """The rate with the best mean delta_m (on val) of each kind and rank.

    Args:
        results: of the stage that tried them; trials that did not finish are left out.
        full_rank: the initial rank where a trial sets none.
    """
    found: dict[tuple[str, int], dict[float, list[float]]] = {}
    for result in results:
        if result.role == "trial" and result.state == "COMPLETE":
            row = str(result.params[KIND]), int(result.params.get(RANK, full_rank))
            found.setdefault(row, {}).setdefault(float(result.params[LR]), []).append(result.metrics["delta_m"])
    return {row: max(rates, key=lambda rate: sum(rates[rate]) / len(rates[rate])) for row, rates in found.items()}


def rate_of(point: Mapping[str, Any], tried: Tried, full_rank: int) -> float | None:
    """Of a point of a space; None where nothing like it was tried.

    A rank that was not tried takes the nearest one's, in ratio. A spectral row trains as its trunk does until it is
    cut: it takes the rate of that fixed rank.
    """
    kind = str(point[KIND])
    wanted = "fixed" if kind == "spectral" else kind
    rank = int(point.get(RANK, full_rank))
    near = sorted((abs(math.log(known / rank)), -known) for name, known in tried if name == wanted)
    return tried[wanted, -near[0][1]] if near else None


def with_rates(points: Sequence[Mapping[str, Any]], tried: Tried, full_rank: int) -> list[dict[str, Any]]:
    """The points with their learning rates; those that have one keep it."""
    chosen = [{LR: rate_of(point, tried, full_rank)} for point in points]
    return [{**{k: v for k, v in rate.items() if v}, **point} for rate, point in zip(chosen, points, strict=True)]
