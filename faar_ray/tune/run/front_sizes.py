"""Whether sizes of `front` and searched budgets are what the trials of a search can be cut to; builds their models."""

from __future__ import annotations

from collections.abc import Iterator

from faar_ray.config.trial import TrialConfig
from faar_ray.errors import ConfigError
from faar_ray.models import adapter_list, build_model
from faar_ray.ranks.spectral.budget import BudgetRange, budget_range
from faar_ray.tune.space.conditions import possible_integers
from faar_ray.tune.space.front import Size, share_of
from faar_ray.tune.space.space import SearchSpace

RANK, BUDGET, KIND, SPECTRAL = "ranks.init_rank", "ranks.budget", "ranks.kind", "spectral"


def check_sizes(space: SearchSpace) -> None:
    """See that every size is below the full one of some trial, and leaves every adapter a component in all of them.

    Raises:
        ConfigError: naming the sizes that are not.
    """
    if space.front is None or space.front.sizes == "auto":
        return
    sizes = [size_range(trunk) for trunk in _trunks(space)]
    faults = [f"front.sizes.{i}: {text}" for i, size in enumerate(space.front.sizes) for text in _faults(size, sizes)]
    if faults:
        raise ConfigError(faults)


def check_budgets(space: SearchSpace) -> None:
    """See that every `ranks.budget` that is searched leaves every adapter `spectral.floor` components.

    Raises:
        ConfigError: naming the bound, or the value, that does not.
    """
    is_read = KIND in space.parameters or space.trial_config({}).ranks.kind == SPECTRAL
    if BUDGET not in space.parameters or not is_read:
        return
    sizes = [size_range(config) for config in _trunks(space)]
    faults = [
        f"parameters.{BUDGET}.{'.'.join(map(str, path))}: {text.partition(': ')[2]}"
        for path, value in space.parameters[BUDGET].extremes()
        if isinstance(value, int | float)
        for text in [one.fault(value) for one in sizes if one.fault(value)][:1]
    ]
    if faults:
        raise ConfigError(faults)


def _trunks(space: SearchSpace) -> list[TrialConfig]:
    """The base, with the smallest and with the largest rank that is searched."""
    base = space.trial_config({}).ranks.init_rank
    if RANK not in space.parameters or not isinstance(base, int):
        return [space.trial_config({})]
    ranks = possible_integers(space.parameters, RANK, base)
    return [space.trial_config({RANK: rank}) for rank in sorted({min(ranks), max(ranks)})]


def size_range(config: TrialConfig) -> BudgetRange:
    """The smallest and the full size of a trial, in adapter parameters."""
    return budget_range(config, adapter_list(build_model(config.without_weights())))


def _faults(size: Size, ranges: list[BudgetRange]) -> Iterator[str]:
    full = max(one.full for one in ranges)
    if share_of(size, full) >= 1:
        yield f"must be below the full size, {full} adapter parameters at the largest {RANK}, got {size}"
    for one in ranges:
        parameters = int(size * one.full) if isinstance(size, float) else size
        if parameters < one.smallest:
            got = f"{size} = {parameters}" if isinstance(size, float) else f"{size}"
            least = f"{one.smallest} of {one.full} adapter parameters, with spectral.floor components in every adapter"
            yield f"must leave at least {least}, got {got}"
            return
