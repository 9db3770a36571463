"""Which searched parameter matters to which objective, compared with the seed noise.

Importance is Optuna's mean decrease of impurity: the share of an objective's variance over the finished trials that a
random forest explains by splits on a parameter. A forest finds such shares in pure noise too, so each comes with its
effect: the gap between the best and the worst mean over the parameter's values (or quarters of its range).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.importance import MeanDecreaseImpurityImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState
from scipy import stats

from faar_ray.objectives.metrics import Objective
from faar_ray.report.progress import LOG1M
from faar_ray.report.statistics.noise import Noise

FEWEST, ENOUGH = 4, 10
"""Finished trials below which nothing is computed, and below which it is shown with a warning."""
QUARTERS = 4
TREES_SEED = 0


@dataclass(frozen=True)
class Importance:
    """One parameter for one objective."""

    parameter: str
    share: float
    """Of the objective's variance, over all parameters of the forest; they add up to 1."""
    trials: int
    """Finished trials that have the parameter."""
    conditional: bool
    """Only some of the trials have it: its share is among them, beside the parameters that all have."""
    effect: float
    """Gap between the best and the worst mean over its values, or over quarters of its range."""
    floor: float
    """The gap that seed noise alone can give: at least its standard deviation, and the 95% quantile of the studentised
    range; infinite where the noise is unknown."""

    @property
    def beyond_noise(self) -> bool:
        """Whether the effect is larger than seed noise alone can give."""
        return self.effect > self.floor


@dataclass(frozen=True)
class Importances:
    """The importances for one objective, largest first, or the reason why there are none."""

    objective: str
    trials: int
    noise: Noise
    rows: tuple[Importance, ...]
    refused: str = ""
    rare: tuple[str, ...] = ()
    """Parameters that too few of the finished trials have."""


def importances(study: optuna.Study, objectives: Sequence[Objective], noise: Mapping[str, Noise]) -> list[Importances]:
    """Of every searched parameter for every objective, over the COMPLETE trials of the journal.

    Args:
        study: the journal's.
        objectives: in the study's order.
        noise: pooled seed noise of each.
    """
    trials = [t for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if _is_finite(t)]
    return [_of(study, trials, index, goal.name, noise[goal.name]) for index, goal in enumerate(objectives)]


def _of(study: optuna.Study, trials: Sequence[FrozenTrial], index: int, name: str, noise: Noise) -> Importances:
    searched = {key for trial in trials for key, dist in trial.distributions.items() if not dist.single()}
    refused = ""
    if len(trials) < FEWEST:
        refused = f"{len(trials)} trials finished, at least {FEWEST} are needed"
    elif len(searched) < 2:
        refused = "only one parameter was searched"
    elif len({trial.values[index] for trial in trials}) < 2:
        refused = "it is the same in all finished trials"
    rare = [k.removeprefix(LOG1M) for k in sorted(searched) if sum(k in trial.params for trial in trials) < FEWEST]
    rows = [] if refused else list(_rows(study, trials, index, sorted(searched), noise))
    if not rows and not refused:
        refused = "too few finished trials share their parameters"
    return Importances(name, len(trials), noise, tuple(sorted(rows, key=lambda row: -row.share)), refused, tuple(rare))


def _rows(
    study: optuna.Study, trials: Sequence[FrozenTrial], index: int, searched: Sequence[str], noise: Noise
) -> Iterator[Importance]:
    common = [key for key in searched if all(key in trial.params for trial in trials)]
    of_all = _shares(study, index, common)
    for key in searched:
        active = [trial for trial in trials if key in trial.params]
        shares = of_all if key in common else _shares(study, index, [*common, key]) if len(active) >= FEWEST else {}
        if key in shares:
            values = [trial.params[key] for trial in active]
            effect, floor = _effect(values, np.array([trial.values[index] for trial in active]), noise)
            name = key.removeprefix(LOG1M)
            yield Importance(name, float(shares[key]), len(active), key not in common, effect, floor)


def _shares(study: optuna.Study, index: int, params: list[str]) -> dict[str, float]:
    """Optuna's; nothing where the ranges of the trials differ (older runs), or none has all these parameters."""
    evaluator = MeanDecreaseImpurityImportanceEvaluator(seed=TREES_SEED)
    try:
        return get_param_importances(
            study, evaluator=evaluator, params=params, target=lambda trial: trial.values[index]
        )
    except ValueError:
        return {}


def _effect(settings: Sequence[Any], values: NDArray[np.float64], noise: Noise) -> tuple[float, float]:
    levels = _levels(settings)
    sizes = [int((levels == level).sum()) for level in np.unique(levels)]
    means = [float(values[levels == level].mean()) for level in np.unique(levels)]
    if len(means) < 2 or not noise.spread_dof:
        return max(means) - min(means), math.inf
    mean_size = len(sizes) / sum(1 / size for size in sizes)  # harmonic mean (Tukey-Kramer)
    by_chance = float(stats.studentized_range.ppf(0.95, len(means), noise.spread_dof)) / math.sqrt(mean_size)
    return max(means) - min(means), noise.spread_sd * max(1.0, by_chance)


def _levels(settings: Sequence[Any]) -> NDArray[np.int64]:
    """Each value's level: itself where there are few, else the quarter that it is in."""
    distinct = sorted(set(settings), key=lambda value: (str(type(value)), value))
    if len(distinct) <= QUARTERS or any(value is None or isinstance(value, str | bool) for value in distinct):
        return np.array([distinct.index(value) for value in settings])
    return np.searchsorted(np.quantile(settings, [0.25, 0.5, 0.75]), settings, side="left")


def _is_finite(trial: FrozenTrial) -> bool:
    return all(math.isfinite(value) for value in trial.values)
