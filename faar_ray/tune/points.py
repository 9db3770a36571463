"""Configurations that are known before any result: priors and warm starts, or a whole list that is run as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from faar_ray.faults import Fault, did_you_mean
from faar_ray.reading import shown
from faar_ray.tune.conditions import Base, Parameters, Sample, in_order, judged, unmet
from faar_ray.tune.parameter import Parameter, Scalar
from faar_ray.tune.space_sections import SearchConfig


def priors(parameters: Parameters, base: Base) -> dict[str, Scalar]:
    """All priors together, those of parameters that are active under them."""
    given = {key: parameter.prior for key, parameter in parameters.items() if parameter.prior is not None}
    return judged(parameters, base, given)[0]


def first_points(parameters: Parameters, base: Base, warm_start: Sequence[Sample]) -> list[dict[str, Scalar]]:
    """Points that are tried before the sampler is asked: all priors together, then the warm start, each once."""
    prior = priors(parameters, base)
    points = ([prior] if prior else []) + [dict(point) for point in warm_start]
    return [point for index, point in enumerate(points) if point not in points[:index]]


def planned(
    search: SearchConfig, parameters: Parameters, base: Base, points: Sequence[Sample]
) -> list[dict[str, Scalar]]:
    """Points in the order in which they are tried before a sampler is asked; of a list all of them, seed by seed."""
    if not search.listed:
        return first_points(parameters, base, points)
    chosen = [dict(point) for point in points] if search.sampler == "points" else grid(parameters, base)
    return [point for _ in range(search.seeds) for point in chosen]


def asked(search: SearchConfig, parameters: Parameters, plan: Sequence[Sample], number: int) -> dict[str, Parameter]:
    """The parameters that trial `number` may have: all of them, but in a list those that its point sets.

    What a listed point leaves out stays as the base and its method's preset have it.
    """
    return {key: parameters[key] for key in parameters if key in plan[number]} if search.listed else dict(parameters)


def grid(parameters: Parameters, base: Base) -> list[dict[str, Scalar]]:
    """Every combination of the values of active parameters, the last key fastest."""
    rows: list[dict[str, Scalar]] = [{}]
    for key in in_order(parameters):
        rows = [longer for row in rows for longer in _with_each(key, parameters[key], base, row)]
    return [{key: row[key] for key in parameters if key in row} for row in rows]


def _with_each(key: str, parameter: Parameter, base: Base, row: dict[str, Scalar]) -> list[dict[str, Scalar]]:
    if unmet(parameter, base, row):
        return [row]
    return [{**row, key: value} for value in parameter.values or ()]


def point_faults(index: int, point: Sample, parameters: Parameters, base: Base | None) -> Iterator[Fault]:
    """What is wrong with a point of `warm_start`; without a base nothing is said of conditions."""
    inactive = {} if base is None else judged(parameters, base, point)[1]
    for key, value in point.items():
        if key not in parameters:
            yield Fault(("points", index, key), f"must be one of parameters{did_you_mean(key, parameters)}")
        elif not parameters[key].contains(value):
            yield Fault(("points", index, key), f"must lie within {parameters[key].words}, got {shown(value)}")
        elif key in inactive:
            yield Fault(("points", index, key), f"is not searched in this point: {inactive[key]}")
