"""`warm_start.from`: trials of an older run, in the study before the first ask, of which the sampler alone hears.

They bear the user attribute `warm_start` and none that a trial of this search bears, so no budget, table, answer or
MLflow run has them; see `journal.own`.
"""

from __future__ import annotations

from collections.abc import Callable

import optuna
from optuna.trial import FrozenTrial, create_trial

from faar_ray.records import TrialResult
from faar_ray.tune import journal
from faar_ray.tune.older_run import read_older
from faar_ray.tune.samplers import Genetic
from faar_ray.tune.sampling import distribution, optuna_name, to_optuna
from faar_ray.tune.space import SearchSpace


def warm_start(study: optuna.Study, space: SearchSpace, say: Callable[[str], None]) -> None:
    """Add what fits of the older run, once: the study's attribute `warm_start` says that it is done, and how many.

    Raises:
        OlderRunFault: before anything is added.
    """
    run = space.warm_start.from_
    if run is None or journal.WARM_START in study.user_attrs:
        return
    older = read_older(space, run)
    added = {trial.user_attrs.get(journal.OLDER_ID) for trial in journal.trials(study)}  # by a driver that was killed
    for result in older.fitting:
        if result.trial_id not in added:
            study.add_trial(_as_trial(space, result, run))
    facts = {"run": run, "added": len(older.fitting), "skipped": dict(older.skipped)}
    study.set_user_attr(journal.WARM_START, facts)
    say(f"warm start from {run}: {older.words}")


def _as_trial(space: SearchSpace, result: TrialResult, run: str) -> FrozenTrial:
    marks = {journal.WARM_START: run, journal.OLDER_ID: result.trial_id, **journal.readable(result)}
    first_generation = {Genetic._get_generation_key(): 0} if space.search.sampler == "nsga2" else {}
    searched = {key: space.parameters[key] for key in result.params}
    limits = zip(space.constraints, space.limits, strict=True)
    return create_trial(
        values=[result.metrics[objective.name] for objective in space.objectives],
        params=to_optuna(searched, result.params),
        distributions={optuna_name(key, parameter): distribution(parameter) for key, parameter in searched.items()},
        user_attrs=marks,
        system_attrs=first_generation,
        constraints={text: limit.excess(result.metrics) for text, limit in limits},
    )
