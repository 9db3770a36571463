"""What each sampler can take of a search space; what it cannot is refused, never approximated.

Optuna's own samplers draw what they cannot model at random, or leave results out; here that is a fault.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from faar_ray.config.validation_messages import Issue
from faar_ray.tune.space.parameter import Parameter
from faar_ray.tune.space.sections import SearchConfig

CONDITIONS = ("tpe", "random", "grid", "points")
LEARNING = ("tpe", "nsga2", "gp", "cmaes")
"""Samplers to which results of an older run mean anything."""
BREEDING = ("nsga2", "cmaes")
"""Samplers with generations."""


def sampler_faults(
    search: SearchConfig, parameters: Mapping[str, Parameter], objectives: Collection[Any], constraints: Collection[str]
) -> Iterator[Issue]:
    """What of a space the sampler cannot take, below `search`."""
    name = search.sampler
    conditional = [key for key, parameter in parameters.items() if parameter.when]
    choices = [key for key, parameter in parameters.items() if len(parameter.values or ()) > 1]
    if conditional and name not in CONDITIONS:
        text = f"cannot be {name} where parameters have `when` ({_some(conditional)}): it would draw them at random"
        yield Issue(("sampler",), f"{text}; tpe, random, grid and points take them")
    if name == "cmaes":
        if choices:
            text = f"cannot be cmaes where parameters are lists of values ({_some(choices)}): it knows ranges only"
            yield Issue(("sampler",), text)
        if len(objectives) > 1:
            yield Issue(("sampler",), f"cannot be cmaes for {len(objectives)} objectives: it ranks by one")
        if constraints:
            yield Issue(("sampler",), f"cannot be cmaes with constraints ({_some(constraints)}): it looks at none")
    if search.population is not None and name not in BREEDING:
        yield Issue(("population",), f"must be null for sampler {name}: it has no generations")


def older_faults(search: SearchConfig, older: str | None) -> Iterator[Issue]:
    """Why a sampler can make nothing of an older run, below `warm_start`."""
    if older is not None and search.sampler not in LEARNING:
        text = f"must be null for sampler {search.sampler}: it learns from no result; {', '.join(LEARNING)} do"
        yield Issue(("from",), text)


def _some(names: Collection[str]) -> str:
    first = ", ".join(list(names)[:3])
    return f"{first}, ..." if len(names) > 3 else first
