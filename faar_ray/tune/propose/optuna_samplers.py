"""Optuna's samplers, changed where theirs would not propose the same after a kill.

All state of a sampler is in the journal, as plain values. Where Optuna would store a pickle there, or would go on
differently in a trial that a killed driver had begun, a private method is overridden. A test checks for each of these
methods that Optuna still calls it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import CmaEsSampler, GPSampler, NSGAIISampler, QMCSampler
from optuna.samplers._gp.sampler import _get_params
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from faar_ray.tune.propose.distributions import distribution, optuna_name
from faar_ray.tune.space.parameter import Parameter


def without_single_values(trial: FrozenTrial) -> FrozenTrial:
    """A finished trial without the parameters that have a single value: CMA-ES does not take those."""
    ranges = {name: dist for name, dist in trial.distributions.items() if not dist.single()}
    params = {name: trial.params[name] for name in ranges}
    return optuna.trial.create_trial(value=trial.value, params=params, distributions=ranges)


class Genetic(NSGAIISampler):
    """NSGA-II whose parents are always in the order of their numbers, so that the same draws select the same ones."""

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """Optuna's order differs between the trial that selects the parents and those that read them later."""
        return sorted(super().get_parent_population(study, generation), key=lambda trial: trial.number)


class Gaussian(GPSampler):
    """Gaussian process; a trial that a killed driver had begun keeps the sample that is in the journal.

    Args:
        seed: of this proposal.
        n_startup_trials: random ones before it learns.
        anew: whether to propose another sample than the one in the journal.
    """

    def __init__(self, seed: int, n_startup_trials: int, *, anew: bool = False) -> None:
        super().__init__(seed=seed, n_startup_trials=n_startup_trials, warn_independent_sampling=False)
        self._anew = anew

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Optuna would count the sample of before the kill as another running trial."""
        journalled = _get_params(trial)
        if search_space.keys() <= journalled.keys() and not self._anew:
            return {name: journalled[name] for name in search_space}

        return super().sample_relative(study, trial, search_space)


class Evolution(CmaEsSampler):
    """CMA-ES whose state is computed from the generations in the journal, where Optuna would unpickle it."""

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> None:
        self._completed = completed_trials

    def _init_optimizer(self, trans: Any, direction: StudyDirection) -> Any:
        """Tell the optimizer all complete generations, so that Optuna has none left to tell and to pickle."""
        optimizer = super()._init_optimizer(trans, direction)
        sign = 1 if direction == StudyDirection.MINIMIZE else -1

        while True:
            generation = self._get_solution_trials(self._completed, optimizer.generation)[: optimizer.population_size]
            if len(generation) < optimizer.population_size:
                return optimizer
            optimizer.tell([(trans.transform(trial.params), sign * (trial.value or 0.0)) for trial in generation])


class Sobol(QMCSampler):
    """Scrambled Sobol sequence, indexed by the trial's number. Optuna would count proposals, also those of a kill."""

    def __init__(self, parameters: Mapping[str, Parameter], number: int, seed: int) -> None:
        super().__init__(qmc_type="sobol", scramble=True, seed=seed, warn_independent_sampling=False)
        self._number = number
        every = {optuna_name(key, parameter): distribution(parameter) for key, parameter in parameters.items()}
        self._space = {name: dist for name, dist in every.items() if not dist.single()}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All parameters, from the first trial on."""
        return self._space

    def _find_sample_id(self, study: Study, search_space: dict[str, BaseDistribution]) -> int:
        return self._number
