"""SAMPLERS: what can propose configurations, and what of a search space each of them takes.

A capability that a sampler lacks is a fault of the search-space file: Optuna's samplers would draw such parameters at
random, or leave results out. Optuna is imported when a sampler is built, not when a file is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from faar_ray.tune.space.parameter import Parameter

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

NSGA2_POPULATION = 50  # Optuna's default


@dataclass(frozen=True, slots=True)
class SamplerRequest:
    """What a sampler is built from. A new one is built for each trial, so that a resumed search proposes the same."""

    seed: int
    """Of this trial's proposal: made from the search's seed and the trial's number."""
    search_seed: int
    """The same for all trials of the search, or for their further proposals."""
    number: int
    """Of the trial; trials of an older run are not counted."""
    parameters: Mapping[str, Parameter]
    attempt: int = 0
    """Above 0: another proposal for the trial, after one that broke a relation."""
    startup_trials: int = 4
    population: int | None = None
    older: Sequence[FrozenTrial] = ()
    """Trials of an older run (`warm_start.from`), which the study holds too."""


@dataclass(frozen=True, slots=True)
class SamplerEntry:
    """A sampler and its capabilities."""

    build: Callable[[SamplerRequest], BaseSampler]
    conditions: bool = False
    """Takes parameters with `when`."""
    lists: bool = True
    """Takes parameters that are lists of values."""
    many_objectives: bool = True
    constraints: bool = True
    learns: bool = True
    """Proposes from the results of earlier trials."""
    learns_from_stopped: bool = False
    """Also from those of trials that were stopped early."""
    generations: bool = False
    """Takes `search.population`."""
    asked: int = 10
    """Proposals for one trial, of which the first that keeps all relations is taken; else a random draw is."""
    listed: bool = False
    """Not a sampler but a list of configurations, known beforehand."""


def _tpe(request: SamplerRequest) -> BaseSampler:
    from optuna.samplers import TPESampler

    return TPESampler(
        seed=request.seed,
        n_startup_trials=request.startup_trials,
        multivariate=True,
        group=any(parameter.when for parameter in request.parameters.values()),
        constant_liar=True,
    )


def _nsga2(request: SamplerRequest) -> BaseSampler:
    from faar_ray.tune.propose.optuna_samplers import Genetic

    return Genetic(population_size=request.population or NSGA2_POPULATION, seed=request.seed)


def _gp(request: SamplerRequest) -> BaseSampler:
    from faar_ray.tune.propose.optuna_samplers import Gaussian

    return Gaussian(request.seed, request.startup_trials, anew=request.attempt > 0)


def _cmaes(request: SamplerRequest) -> BaseSampler:
    from faar_ray.tune.propose.optuna_samplers import Evolution, without_single_values

    return Evolution(
        seed=request.seed,
        n_startup_trials=request.startup_trials,
        popsize=request.population,
        source_trials=[without_single_values(trial) for trial in request.older] or None,
        warn_independent_sampling=False,
    )


def _qmc(request: SamplerRequest) -> BaseSampler:
    from faar_ray.tune.propose.optuna_samplers import Sobol

    return Sobol(request.parameters, request.number, request.search_seed)


def _random(request: SamplerRequest) -> BaseSampler:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=request.seed)


SAMPLERS: dict[str, SamplerEntry] = {
    "tpe": SamplerEntry(_tpe, conditions=True, learns_from_stopped=True),
    "nsga2": SamplerEntry(_nsga2, generations=True),
    "gp": SamplerEntry(_gp, asked=2),
    "cmaes": SamplerEntry(_cmaes, lists=False, many_objectives=False, constraints=False, generations=True),
    "random": SamplerEntry(_random, conditions=True, learns=False),
    "qmc": SamplerEntry(_qmc, learns=False),
    "grid": SamplerEntry(_random, conditions=True, learns=False, listed=True),
    "points": SamplerEntry(_random, conditions=True, learns=False, listed=True),
}
"""`search.sampler` -> what it is. Another one is an entry more, made before the search-space file is read."""
