"""One proposal: the sampler of a trial, and the part of the study that it may see.

A sampler is built anew for every trial, from the search's seed and the trial's number, and so a resumed search asks as
an undisturbed one does. With `search.lag` its view of the study does not depend on which trial finished first either.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Container, Mapping, Sequence

import optuna
from optuna.samplers import BaseSampler
from optuna.study._constrained_optimization import _CONSTRAINTS_KEY
from optuna.trial import FrozenTrial, TrialState

from faar_ray.seeding import seed_of
from faar_ray.tune.propose.samplers import SAMPLERS, SamplerRequest
from faar_ray.tune.space.parameter import Parameter
from faar_ray.tune.space.sections import SearchConfig


def sampler_of(
    search: SearchConfig,
    parameters: Mapping[str, Parameter],
    number: int,
    older: Sequence[FrozenTrial] = (),
    attempt: int = 0,
) -> BaseSampler:
    """The sampler that proposes trial `number`.

    Args:
        search: which sampler.
        parameters: of the space.
        number: of the trial; trials of an older run are not counted.
        older: trials of an older run that are in the study.
        attempt: of several proposals for the trial, where the first ones broke a relation.
    """
    again = [attempt] if attempt else []
    request = SamplerRequest(
        seed=seed_of(search.seed, "sampler", number, *again) % 2**32,
        search_seed=seed_of(search.seed, "sampler", *again) % 2**32,
        attempt=attempt,
        number=number,
        parameters=parameters,
        startup_trials=search.startup_trials,
        population=search.population,
        older=older,
    )
    with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
        return SAMPLERS[search.sampler].build(request)


def needs_results(search: SearchConfig, number: int, older: Sequence[FrozenTrial]) -> bool:
    """Whether the proposal of trial `number` depends on results: not of a list, nor of the random first trials."""
    return SAMPLERS[search.sampler].learns and (number >= search.startup_trials or bool(older))


class LaggedStudy(optuna.Study):
    """A study as trial `number` sees it under `search.lag`: the last `lag` - 1 trials before it count as running.

    Args:
        study: all of it; what is written through the view goes there.
        number: Optuna's number of the trial that is proposed.
        lag: see `search.lag`.
    """

    def __init__(self, study: optuna.Study, number: int, lag: int) -> None:
        super().__init__(study.study_name, study._storage, study.sampler, study.pruner)
        self._number, self._lag = number, lag

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        trials = [self._as_seen(trial) for trial in super()._get_trials(deepcopy) if trial.number <= self._number]
        return [trial for trial in trials if states is None or trial.state in states]

    def _as_seen(self, trial: FrozenTrial) -> FrozenTrial:
        if trial.number <= self._number - self._lag or trial.number == self._number:
            return trial

        running = copy.copy(trial)
        running.state, running.values, running.intermediate_values = TrialState.RUNNING, None, {}
        attrs = trial.system_attrs.items()
        running.system_attrs = {key: value for key, value in attrs if not key.startswith(_CONSTRAINTS_KEY)}
        return running
