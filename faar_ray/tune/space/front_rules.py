"""Rules between the section `front` and the others of a search space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from faar_ray.config.quoting import KeyPath, quote_value
from faar_ray.config.validation_messages import Issue, unknown_key
from faar_ray.objectives.metrics import Objective
from faar_ray.records import BUDGET, CUT_EPOCH
from faar_ray.tune.space.conditions import Base, Parameters, trial_faults, trial_values
from faar_ray.tune.space.front import KIND, POINT, TRUNK, FrontConfig
from faar_ray.tune.space.parameter import Scalar
from faar_ray.tune.space.sections import SchedulerConfig, WarmStart

OF_POINTS = (BUDGET, CUT_EPOCH)
FIXED = "set ranks: {kind: fixed} in base, where a method such as faar keeps its decoder"


def front_faults(
    front: FrontConfig,
    base: Base,
    parameters: Parameters,
    objectives: Sequence[Objective],
    scheduler: SchedulerConfig,
    warm_start: WarmStart,
) -> Iterator[Issue]:
    """What keeps the trials of a search from being trunks."""
    kind_faults = [*_base_faults(base, parameters), *_parameter_faults(base, parameters)]
    yield from kind_faults
    if not kind_faults:
        yield from _point_faults(base, parameters)
    yield from _reference_faults(front, [objective.name for objective in objectives])
    if scheduler.type == "pbt":
        text = "cannot be pbt with front: a copy would go on from another trial, and its points would share no trunk"
        yield Issue(("scheduler", "type"), text)
    if warm_start.from_ is not None:
        text = "must be null with front: the sampler learns from values of whole fronts, which an older run lacks"
        yield Issue(("warm_start", "from"), f"{text}; its best configurations may stand in warm_start.points")


def _base_faults(base: Base, parameters: Parameters) -> Iterator[Issue]:
    """A base that masks or cuts, unless every value of a parameter says otherwise."""
    kind = trial_values(base, {}).get(KIND, TRUNK)
    if kind != TRUNK and KIND not in parameters:
        written = _written(base, ("ranks", "kind"))
        by_method = "" if written else f" of method {trial_values(base, {})['method']}"
        words = f"must be {TRUNK} with front, got {quote_value(kind)}{by_method}: a trial trains at one rank, then it"
        path = ("base", "ranks", "kind") if written else ("base", "method") if "method" in base else ("front",)
        yield Issue(path, f"{words} is cut; {FIXED}", f"base.{KIND}")


def _parameter_faults(base: Base, parameters: Parameters) -> Iterator[Issue]:
    """Parameters that make a trial no trunk, or that mean nothing in one."""
    for key, parameter in parameters.items():
        if key in OF_POINTS:
            yield Issue(("parameters", key), "cannot be searched with front, which sets it: see front.sizes")
        elif key.startswith("pdrs."):
            yield Issue(("parameters", key), "means nothing with front: no trial masks or shrinks by coverage")
        elif key == KIND or key == "method":
            yield from _kind_faults(base, key, parameter.values or ())


def _kind_faults(base: Base, key: str, values: Sequence[Scalar]) -> Iterator[Issue]:
    for index, value in enumerate(values):
        kind = trial_values(base, {key: value}).get(KIND, TRUNK)
        if kind != TRUNK:
            also = "" if key == KIND else f" trains with ranks.kind {kind}, which"
            text = f"{quote_value(value)}{also} makes no trunk for front; {FIXED}"
            yield Issue(("parameters", key, "values", index), text)


def _point_faults(base: Base, parameters: Parameters) -> Iterator[Issue]:
    """Trunks that cannot be cut: adapters without components, or of a kind that no rotation leaves as it is."""
    over: dict[str, Any] = {KIND: POINT, BUDGET: 0.5}
    if faults := trial_faults(base, over):
        yield _named(faults[0], "front", ("front",))
        return
    for key in ("method", "adapter.kind"):
        for index, value in enumerate(parameters[key].values or () if key in parameters else ()):
            if faults := trial_faults(base, {key: value, **over}):
                yield _named(faults[0], f"{quote_value(value)} with front", ("parameters", key, "values", index))


def _named(fault: Issue, where: str, path: KeyPath) -> Issue:
    return Issue(path, f"{where}: no trial can be cut to a smaller size ({fault.name}: {fault.text})")


def _reference_faults(front: FrontConfig, objectives: Sequence[str]) -> Iterator[Issue]:
    if front.reference is None:
        return
    if len(objectives) == 1:
        yield Issue(("front", "reference"), "must be null with one objective: its value is the best of the points")
        return
    for name in front.reference:
        if name not in objectives:
            yield Issue(("front", "reference", name), unknown_key(name, objectives))
    if missing := [name for name in objectives if name not in front.reference]:
        yield Issue(("front", "reference"), f"must have a value per objective, missing {', '.join(missing)}")


def _written(base: Mapping[str, Any], path: Sequence[str]) -> bool:
    """Whether the base writes a key."""
    below: Any = base
    for part in path:
        if not isinstance(below, Mapping) or part not in below:
            return False
        below = below[part]
    return True
