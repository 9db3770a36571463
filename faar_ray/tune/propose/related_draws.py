"""Draws that keep the relations of a space: a sampler whose proposal breaks one is asked again.

Optuna's `constraints_func` is for finished trials, so the proposal is made aside, and written into the journal once it
keeps all relations. All draws are named by the search's seed, the trial's number and the try.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import optuna
from optuna.samplers import BaseSampler, RandomSampler

from faar_ray.errors import ConfigError
from faar_ray.seeding import seed_of
from faar_ray.tune.propose.distributions import distribution, draw, draw_aside, optuna_name, outward, to_optuna
from faar_ray.tune.propose.samplers import SAMPLERS
from faar_ray.tune.space.conditions import Base, Parameters, in_order, unmet_condition
from faar_ray.tune.space.parameter import Scalar
from faar_ray.tune.space.relations import Relations
from faar_ray.tune.space.sections import SearchConfig
from faar_ray.tune.space.space import SearchSpace

MOST_DRAWS = 100_000
CHECKED_DRAWS = 2000
SMALLEST_SHARE = 0.001
"""Of random draws that keep the relations, for a search to start."""


def draw_related(
    trial: optuna.Trial,
    parameters: Parameters,
    relations: Relations,
    sampler_at: Callable[[int], BaseSampler],
    search: SearchConfig,
) -> dict[str, Scalar]:
    """Draw every active parameter of a trial, so that all relations hold.

    Args:
        trial: just asked, or as a killed driver left it; its study has the sampler of the first try.
        parameters: that it may have.
        relations: of the space.
        sampler_at: the sampler of another try.
        search: its seed, and which sampler.

    Raises:
        ConfigError: no draw keeps them.
    """
    base = relations.base
    if not relations.relations:
        return draw(trial, parameters, base)

    sample = next(filter(relations.keep, _proposals(trial, parameters, base, sampler_at, search)), None)
    if sample is None:
        raise ConfigError(f"relations.0: none of {MOST_DRAWS:,} random draws keeps {_texts(relations)}")
    trial.relative_search_space = {optuna_name(key, parameters[key]): distribution(parameters[key]) for key in sample}
    trial._relative_params = to_optuna(parameters, sample)
    return draw(trial, parameters, base)


def _proposals(
    trial: optuna.Trial,
    parameters: Parameters,
    base: Base,
    sampler_at: Callable[[int], BaseSampler],
    search: SearchConfig,
) -> Iterator[dict[str, Scalar]]:
    """What the sampler proposes, one try after the other, then random draws; what is fixed in the trial stays."""
    for attempt in range(SAMPLERS[search.sampler].asked):
        if attempt:
            trial.study.sampler = sampler_at(attempt)
            trial._relative_params = trial.relative_search_space = None
        yield draw_aside(trial, parameters, base)

    trial._relative_params, trial.relative_search_space = {}, {}
    trial.study.sampler = RandomSampler(seed=seed_of(search.seed, "related", trial.number) % 2**32)
    for _ in range(MOST_DRAWS):
        yield draw_aside(trial, parameters, base)


def check_relations(space: SearchSpace) -> str:
    """How large a share of random draws keeps the relations, in words; "" for a space without.

    Raises:
        ConfigError: hardly any does, or none that goes on from a given point.
    """
    relations = space.related
    if not relations.relations:
        return ""
    if space.search.listed:
        return f"relations: {len(space.planned()) // space.search.seeds} of the listed configurations keep them"

    broken = Counter(map(relations.broken, _random_samples(space, {})))
    share = broken[None] / CHECKED_DRAWS
    if share < SMALLEST_SHARE:
        worst = max((relation for relation in broken if relation), key=lambda relation: broken[relation])
        text = f"{broken[None]} of {CHECKED_DRAWS:,} random draws keep {_texts(relations)}"
        raise ConfigError(f"relations.{relations.relations.index(worst)}: too hard to keep: {text}")
    for index, point in enumerate(space.warm_start.points):
        if not any(map(relations.keep, _random_samples(space, point))):
            text = f"no values of the other parameters keep {_texts(relations)}"
            raise ConfigError(f"warm_start.points.{index}: {text}")
    return f"relations: {100 * share:.3g}% of random draws keep them; others are drawn again"


def _random_samples(space: SearchSpace, point: Mapping[str, Scalar]) -> Iterator[dict[str, Scalar]]:
    """Random draws around a point, the same ones each time."""
    study, frozen = optuna.create_study(), optuna.trial.create_trial(value=0.0)  # neither is looked at
    sampler = RandomSampler(seed=0)
    for _ in range(CHECKED_DRAWS):
        sample: dict[str, Scalar] = {}
        for key in in_order(space.parameters):
            parameter = space.parameters[key]
            if unmet_condition(parameter, space.base, sample):
                continue
            if key in point:
                sample[key] = point[key]
                continue
            name, dist = optuna_name(key, parameter), distribution(parameter)
            sample[key] = outward(parameter, sampler.sample_independent(study, frozen, name, dist))
        yield sample


def _texts(relations: Relations) -> str:
    return " and ".join(relation.text for relation in relations.relations)
