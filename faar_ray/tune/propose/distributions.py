"""From a parameter of the search space to an Optuna distribution and back.

Optuna sees u = 1 - x for `scale: log1m`, under the name `1 - <key>`, so that its journal is true as well; everything
else sees x.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    _get_single_value,
)
from optuna.samplers import NSGAIISampler

from faar_ray.report.progress import DIGITS, LOG1M
from faar_ray.tune.space.conditions import in_order, unmet_condition
from faar_ray.tune.space.parameter import Parameter, Scalar


def optuna_name(key: str, parameter: Parameter) -> str:
    """Name of a parameter inside Optuna."""
    return f"{LOG1M}{key}" if parameter.scale == "log1m" else key


def distribution(parameter: Parameter) -> BaseDistribution:
    """What Optuna draws from; both bounds are inclusive."""
    if parameter.values is not None:
        return CategoricalDistribution(parameter.values)
    low, high = parameter.bounds
    if parameter.scale == "log1m":
        return FloatDistribution(1 - high, 1 - low, log=True)
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=parameter.log, step=int(parameter.step or 1))
    step = None if parameter.step is None else float(parameter.step)
    return FloatDistribution(float(low), float(high), log=parameter.log, step=step)


def draw(trial: optuna.Trial, parameters: Mapping[str, Parameter], base: Mapping[str, Any]) -> dict[str, Scalar]:
    """Draw every active parameter, conditions first; values that are in the journal already stay."""
    sample: dict[str, Scalar] = {}
    if isinstance(trial.study.sampler, NSGAIISampler):
        _ = trial.relative_params  # assigns a generation, also to a point that leaves nothing to sample
    for key in in_order(parameters):
        if not unmet_condition(parameters[key], base, sample):
            value = _suggested(trial, optuna_name(key, parameters[key]), distribution(parameters[key]))
            sample[key] = outward(parameters[key], value)
    return {key: sample[key] for key in parameters if key in sample}


def draw_aside(trial: optuna.Trial, parameters: Mapping[str, Parameter], base: Mapping[str, Any]) -> dict[str, Scalar]:
    """What `draw` would give with the study's present sampler; nothing of it is written into the trial."""
    study, frozen, sample = trial.study, trial._get_latest_trial(), dict[str, Scalar]()
    relative = trial.relative_params
    for key in in_order(parameters):
        if unmet_condition(parameters[key], base, sample):
            continue
        name, dist = optuna_name(key, parameters[key]), distribution(parameters[key])
        if trial._is_fixed_param(name, dist):
            value = trial._fixed_params[name]
        elif dist.single():
            value = _get_single_value(dist)
        elif trial._is_relative_param(name, dist):
            value = relative[name]
        else:
            value = study.sampler.sample_independent(study, frozen, name, dist)
        sample[key] = outward(parameters[key], value)
    return {key: sample[key] for key in parameters if key in sample}


def to_optuna(parameters: Mapping[str, Parameter], point: Mapping[str, Scalar]) -> dict[str, Any]:
    """A point (dotted key -> x) as values for Optuna."""
    return {optuna_name(key, parameters[key]): _inward(parameters[key], value) for key, value in point.items()}


def from_optuna(parameters: Mapping[str, Parameter], values: Mapping[str, Any]) -> dict[str, Scalar]:
    """Optuna's values as a point (dotted key -> x), in the order of the space."""
    names = {key: optuna_name(key, parameter) for key, parameter in parameters.items()}
    return {key: outward(parameters[key], values[name]) for key, name in names.items() if name in values}


def _suggested(trial: optuna.Trial, name: str, dist: BaseDistribution) -> Any:
    """Draw one parameter. A value that a killed driver drew stays; its random numbers are drawn again and dropped."""
    if name in trial.distributions and not (
        trial._is_fixed_param(name, dist) or dist.single() or trial._is_relative_param(name, dist)
    ):
        trial.study.sampler.sample_independent(trial.study, trial._get_latest_trial(), name, dist)
    if isinstance(dist, CategoricalDistribution):
        return trial.suggest_categorical(name, dist.choices)
    if isinstance(dist, IntDistribution):
        return trial.suggest_int(name, dist.low, dist.high, log=dist.log, step=dist.step)
    assert isinstance(dist, FloatDistribution)
    return trial.suggest_float(name, dist.low, dist.high, log=dist.log, step=dist.step)


def _inward(parameter: Parameter, x: Scalar) -> Any:
    if parameter.scale == "log1m":
        assert isinstance(x, int | float)
        return 1 - x
    if isinstance(distribution(parameter), FloatDistribution):
        assert isinstance(x, int | float)
        return float(x)
    return x


def outward(parameter: Parameter, value: Any) -> Scalar:
    """Optuna's value as everything else sees it."""
    if parameter.scale == "log1m":
        low, high = parameter.bounds
        return min(max(round(1 - float(value), DIGITS), float(low)), float(high))
    if parameter.step is not None:
        return parameter.snapped(value)  # min + k * step in floats is not quite on the grid
    scalar: Scalar = value
    return scalar
