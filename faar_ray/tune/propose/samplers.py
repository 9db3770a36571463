"""The sampler of one ask: Optuna's own, rebuilt from the seed and the trial's number alone.

What a sampler keeps between asks is in the journal as plain values; where Optuna's own would keep a pickle there, or
would go on differently in a trial that a killed driver had begun, a few lines here stand before it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import CmaEsSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.samplers._gp.sampler import _get_params
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from faar_ray.seeding import seed_of
from faar_ray.tune.propose.distributions import distribution, optuna_name
from faar_ray.tune.space.parameter import Parameter
from faar_ray.tune.space.sections import SearchConfig

NSGA2_POPULATION = 50  # Optuna's own


def sampler_of(
    search: SearchConfig, parameters: Mapping[str, Parameter], number: int, older: Sequence[FrozenTrial] = ()
) -> optuna.samplers.BaseSampler:
    """The sampler of ask `number`: a resumed search asks as an undisturbed one.

    Args:
        search: which sampler.
        parameters: of the space.
        number: of the trial, those of an older run not counted.
        older: trials of an older run that are in the study; of them CMA-ES must be told.
    """
    seed, startup = seed_of(search.seed, "sampler", number) % 2**32, search.startup_trials
    with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
        match search.sampler:
            case "tpe":
                conditional = any(parameter.when for parameter in parameters.values())
                return TPESampler(
                    seed=seed, n_startup_trials=startup, multivariate=True, group=conditional, constant_liar=True
                )
            case "nsga2":
                return Genetic(population_size=search.population or NSGA2_POPULATION, seed=seed)
            case "gp":
                return Gaussian(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
            case "cmaes":
                return Evolution(
                    seed=seed,
                    n_startup_trials=startup,
                    popsize=search.population,
                    source_trials=[_ranges_of(trial) for trial in older] or None,
                    warn_independent_sampling=False,
                )
            case "qmc":
                return Sobol(parameters, number, seed_of(search.seed, "sampler") % 2**32)
            case _:
                return RandomSampler(seed=seed)


def _ranges_of(trial: FrozenTrial) -> FrozenTrial:
    """A finished trial without the parameters that have one value only; CMA-ES knows none of them."""
    ranges = {name: dist for name, dist in trial.distributions.items() if not dist.single()}
    params = {name: trial.params[name] for name in ranges}
    return optuna.trial.create_trial(value=trial.value, params=params, distributions=ranges)


class Genetic(NSGAIISampler):
    """Optuna's NSGA-II; parents stand in the order of their numbers for whoever asks, the first of a generation too."""

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """Optuna gives the one who selects them another order than those who read them in the journal."""
        return sorted(super().get_parent_population(study, generation), key=lambda trial: trial.number)


class Gaussian(GPSampler):
    """Optuna's Gaussian process; a trial that was begun keeps the sample that the journal has of it."""

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Optuna would take what it drew before the kill for a trial that runs beside this one."""
        kept = _get_params(trial)
        if search_space.keys() <= kept.keys():
            return {name: kept[name] for name in search_space}
        return super().sample_relative(study, trial, search_space)


class Evolution(CmaEsSampler):
    """Optuna's CMA-ES; its state is made anew from the generations in the journal, not unpickled."""

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> None:
        self._completed = completed_trials

    def _init_optimizer(self, trans: Any, direction: StudyDirection) -> Any:
        """Tell it every generation that is whole; so none is left for Optuna to tell and to pickle."""
        optimizer = super()._init_optimizer(trans, direction)
        sign = 1 if direction == StudyDirection.MINIMIZE else -1
        while True:
            born = self._get_solution_trials(self._completed, optimizer.generation)[: optimizer.population_size]
            if len(born) < optimizer.population_size:
                return optimizer
            optimizer.tell([(trans.transform(trial.params), sign * (trial.value or 0.0)) for trial in born])


class Sobol(QMCSampler):
    """Optuna's scrambled Sobol sequence, a trial's place in it being its number: Optuna counts asks, kills too."""

    def __init__(self, parameters: Mapping[str, Parameter], number: int, seed: int) -> None:
        super().__init__(qmc_type="sobol", scramble=True, seed=seed, warn_independent_sampling=False)
        self._number = number
        drawn = {optuna_name(key, parameter): distribution(parameter) for key, parameter in parameters.items()}
        self._space = {name: dist for name, dist in drawn.items() if not dist.single()}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All parameters, from the first trial on."""
        return self._space

    def _find_sample_id(self, study: Study, search_space: dict[str, BaseDistribution]) -> int:
        return self._number
