"""Who of a population is replaced by whose copy, and with which values. Pure functions.

Population based training (Jaderberg et al. 2017): truncation selection, and explore by resampling or perturbing. All
draws are named by the search's seed and the new trial's number.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from faar_ray.seeding import seed_of
from faar_ray.tune.parameter import Parameter, Scalar
from faar_ray.tune.sampling import from_optuna, to_optuna
from faar_ray.tune.space_sections import SchedulerConfig

RESAMPLED = 0.25
FACTORS = (0.8, 1.2)
MOST_DRAWS = 100
"""Until an heir's values are some that nobody has had."""

Params = Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class Copy:
    """A trial of the population gives its place to a copy of a better one."""

    loser: int
    parent: int
    heir: int
    """Number of the trial that goes on from the parent's checkpoint."""
    params: dict[str, Scalar]
    """Of the heir."""


def boundaries(config: SchedulerConfig, epochs: int) -> range:
    """Numbers of finished epochs after which the population is compared; never after a trial's last."""
    return range(config.min_epochs, epochs, config.interval)


def share(members: int, quantile: float) -> int:
    """How many are among the worst, and among the best; nobody is both."""
    return min(math.ceil(quantile * members), members // 2)


def copies(
    values: Mapping[int, float],
    params: Mapping[int, Params],
    parameters: Mapping[str, Parameter],
    *,
    quantile: float,
    seed: int,
    first: int,
    room: int,
    had: Collection[Params] = (),
) -> list[Copy]:
    """Who is replaced after a generation, the worst first.

    Args:
        values: metric of every trial that is compared, by its number; larger is better, NaN is worst, of equals the
            later trial is.
        params: of these trials.
        parameters: of the space.
        quantile: the worst and best share of them.
        seed: of the search.
        first: number of the first heir.
        room: heirs that the budget has left.
        had: values that trials have or had; no heir gets the same, if any others are drawn.
    """
    worst_first = sorted(values, key=lambda number: (-math.inf if math.isnan(v := values[number]) else v, -number))
    some = share(len(values), quantile)
    best, out = worst_first[len(values) - some :], list[Copy]()
    for heir, loser in enumerate(worst_first[: min(some, room)], start=first):
        draws = random.Random(seed_of(seed, "heir", heir))
        parent = draws.choice(best)
        others = [*had, *(copy.params for copy in out)]
        out.append(Copy(loser, parent, heir, explored(params[parent], parameters, draws, others)))
    return out


def explored(
    params: Params, parameters: Mapping[str, Parameter], draws: random.Random, had: Collection[Params] = ()
) -> dict[str, Scalar]:
    """A parent's values, each resampled from the space or moved a step; not those in `had`, nor the parent's own."""
    for _ in range(MOST_DRAWS):
        moved = {key: _moved(parameters[key], value, draws) for key, value in params.items()}
        held = from_optuna(parameters, to_optuna(parameters, moved))
        if held != params and held not in had:
            break
    return held


def _moved(parameter: Parameter, value: Scalar, draws: random.Random) -> Scalar:
    resampled, factor = draws.random() < RESAMPLED, draws.choice(FACTORS)
    if parameter.values is not None:
        return draws.choice(parameter.values) if resampled else _neighbour(parameter.values, value, factor)
    assert isinstance(value, int | float)
    low, high = map(float, parameter.bounds)
    if parameter.scale == "log1m":
        return 1 - _in_range(1 - high, 1 - low, True, None if resampled else factor * (1 - value), draws)
    return _in_range(low, high, parameter.log, None if resampled else factor * value, draws)


def _in_range(low: float, high: float, log: bool, value: float | None, draws: random.Random) -> float:
    """The value clipped; without one a draw."""
    if value is None:
        value = math.exp(draws.uniform(math.log(low), math.log(high))) if log else draws.uniform(low, high)
    return min(max(value, low), high)


def _neighbour(values: Sequence[Scalar], value: Scalar, factor: float) -> Scalar:
    """The value before or after, in the order of the list; at an end the only one there is."""
    at = values.index(value) + (1 if factor > 1 else -1)
    return values[at] if 0 <= at < len(values) else values[max(0, min(len(values) - 1, 2 * values.index(value) - at))]
