"""Configurations that are known before any result: priors and warm starts, or a whole list that is run as it is."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from faar_ray.tune.parameter import Parameter, Scalar
from faar_ray.tune.space_sections import SearchConfig


def first_points(
    parameters: Mapping[str, Parameter], warm_start: Sequence[Mapping[str, Scalar]]
) -> list[dict[str, Scalar]]:
    """Points that are tried before the sampler is asked: all priors together, then the warm start, each once."""
    prior = {key: parameter.prior for key, parameter in parameters.items() if parameter.prior is not None}
    points = ([prior] if prior else []) + [dict(point) for point in warm_start]
    return [point for index, point in enumerate(points) if point not in points[:index]]


def planned(
    search: SearchConfig, parameters: Mapping[str, Parameter], points: Sequence[Mapping[str, Scalar]]
) -> list[dict[str, Scalar]]:
    """Points in the order in which they are tried before a sampler is asked; of a list all of them, seed by seed."""
    if not search.listed:
        return first_points(parameters, points)
    chosen = [dict(point) for point in points] if search.sampler == "points" else grid(parameters)
    return [point for _ in range(search.seeds) for point in chosen]


def asked(
    search: SearchConfig, parameters: Mapping[str, Parameter], plan: Sequence[Mapping[str, Scalar]], number: int
) -> dict[str, Parameter]:
    """The parameters that trial `number` has: all of them, but in a list those that its point sets.

    What a listed point leaves out stays as the base and its method's preset have it.
    """
    return {key: parameters[key] for key in parameters if key in plan[number]} if search.listed else dict(parameters)


def grid(parameters: Mapping[str, Parameter]) -> list[dict[str, Scalar]]:
    """Every combination of values, the last key fastest."""
    rows = itertools.product(*(parameter.values or () for parameter in parameters.values()))
    return [dict(zip(parameters, row, strict=True)) for row in rows]
