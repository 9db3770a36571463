"""Configurations that are known before any result: priors and warm starts, or a whole list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from faar_ray.config.quoting import quote_value
from faar_ray.config.validation_messages import Issue, key_hint
from faar_ray.tune.space.conditions import (
    Base,
    Keep,
    Parameters,
    Sample,
    in_order,
    keep_all,
    split_active,
    unmet_condition,
)
from faar_ray.tune.space.parameter import Parameter, Scalar
from faar_ray.tune.space.sections import SearchConfig


def priors(parameters: Parameters, base: Base) -> dict[str, Scalar]:
    """One point of all priors; without those of parameters that are inactive in it."""
    given = {key: parameter.prior for key, parameter in parameters.items() if parameter.prior is not None}
    return split_active(parameters, base, given)[0]


def first_points(parameters: Parameters, base: Base, warm_start: Sequence[Sample]) -> list[dict[str, Scalar]]:
    """Points to try before the sampler proposes: all priors together, then the warm start, without repeats."""
    prior = priors(parameters, base)
    points = ([prior] if prior else []) + [dict(point) for point in warm_start]
    return [point for index, point in enumerate(points) if point not in points[:index]]


def planned(
    search: SearchConfig, parameters: Parameters, base: Base, points: Sequence[Sample], keep: Keep = keep_all
) -> list[dict[str, Scalar]]:
    """Points to try before the sampler proposes, in order; of a list all of them, seed by seed."""
    if not search.listed:
        return first_points(parameters, base, points)
    chosen = list(_listed(search, parameters, base, points, keep))
    return [point for _ in range(search.seeds) for point in chosen]


def list_length(
    search: SearchConfig,
    parameters: Parameters,
    base: Base,
    points: Sequence[Sample],
    most: int,
    keep: Keep = keep_all,
) -> int | None:
    """Trials of a list, configurations x seeds; None where they are more than `most`."""
    fit = most // search.seeds
    configurations = sum(1 for _ in islice(_listed(search, parameters, base, points, keep), fit + 1))
    return configurations * search.seeds if configurations <= fit else None


def _listed(
    search: SearchConfig, parameters: Parameters, base: Base, points: Sequence[Sample], keep: Keep
) -> Iterator[dict[str, Scalar]]:
    if search.sampler == "points":
        yield from map(dict, points)
    else:
        yield from filter(keep, rows(parameters, base))


def active_parameters(
    search: SearchConfig, parameters: Parameters, plan: Sequence[Sample], number: int
) -> dict[str, Parameter]:
    """The parameters that trial `number` may have: all of them, but in a list those that its point sets.

    What a listed point leaves out stays as the base and its method's preset have it.
    """
    return {key: parameters[key] for key in parameters if key in plan[number]} if search.listed else dict(parameters)


def grid(parameters: Parameters, base: Base) -> list[dict[str, Scalar]]:
    """Every combination of the values of active parameters, the last key fastest."""
    return list(rows(parameters, base))


def rows(parameters: Parameters, base: Base) -> Iterator[dict[str, Scalar]]:
    """The rows of `grid` one by one: there may be more than fit into memory."""
    for row in _longer({}, in_order(parameters), parameters, base):
        yield {key: row[key] for key in parameters if key in row}


def _longer(row: Sample, keys: Sequence[str], parameters: Parameters, base: Base) -> Iterator[Sample]:
    """Every completion of a row by values of the remaining keys."""
    if not keys:
        yield row
    elif unmet_condition(parameters[keys[0]], base, row):
        yield from _longer(row, keys[1:], parameters, base)
    else:
        for value in parameters[keys[0]].values or ():
            yield from _longer({**row, keys[0]: value}, keys[1:], parameters, base)


def point_faults(index: int, point: Sample, parameters: Parameters, base: Base | None) -> Iterator[Issue]:
    """Faults of a point of `warm_start`; without a base conditions are not checked."""
    inactive = {} if base is None else split_active(parameters, base, point)[1]
    for key, value in point.items():
        if key not in parameters:
            yield Issue(("points", index, key), f"must be one of parameters{key_hint(key, parameters)}")
        elif not parameters[key].contains(value):
            yield Issue(("points", index, key), f"must lie within {parameters[key].describe}, got {quote_value(value)}")
        elif key in inactive:
            yield Issue(("points", index, key), f"is not searched in this point: {inactive[key]}")
