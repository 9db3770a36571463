"""`budget.patience`: after how many trials in a row without an improvement the exploration ends. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from faar_ray.objectives.constraint import Constraint, feasible
from faar_ray.objectives.metrics import Objective
from faar_ray.records import TrialResult


def most_in_vain(results: Iterable[TrialResult], objectives: Sequence[Objective], limits: Sequence[Constraint]) -> int:
    """The most trials in a row that improved nothing, counted from the first complete and feasible one on.

    A trial improves where no earlier one is as good in every objective: with one objective a better value, with several
    a larger hypervolume of the front (for a reference point beyond all trials). One that was stopped early or is
    infeasible improves nothing; one that failed is not counted.

    Args:
        results: of trials, in the order of their numbers.
        objectives: of the search.
        limits: its constraints.
    """
    front: list[tuple[float, ...]] = []
    in_vain = most = 0
    for result in results:
        if result.state == "FAIL":
            continue

        losses = tuple(-o.sign * result.metrics.get(o.name, math.nan) for o in objectives)
        counts = result.state == "COMPLETE" and feasible(result.metrics, limits) and all(map(math.isfinite, losses))
        if counts and not any(_as_good(earlier, losses) for earlier in front):
            front = [*(earlier for earlier in front if not _as_good(losses, earlier)), losses]
            in_vain = 0
        elif front:
            in_vain += 1
            most = max(most, in_vain)
    return most


def _as_good(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(mine <= theirs for mine, theirs in zip(one, other, strict=True))
