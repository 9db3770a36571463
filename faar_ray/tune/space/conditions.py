"""Conditional parameters: which are active in a sample, in which order they are sampled, and faults of conditions.

A condition is evaluated on the trial config that the base, the preset of the sampled method and the values sampled so
far make together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations, islice, product
from typing import Any

from pydantic import ValidationError

from faar_ray.config.quoting import quote_value
from faar_ray.config.trial import TrialConfig, with_dotted
from faar_ray.config.validation_messages import Issue, did_you_mean, issues_of, unknown_key
from faar_ray.tune.space.parameter import DEFAULTS, Parameter, Scalar, checked, is_one_of

Parameters = Mapping[str, Parameter]
Base = Mapping[str, Any]
Sample = Mapping[str, Scalar]
Keep = Callable[[Sample], bool]
"""Whether relations between parameters hold in a sample."""
METHOD = "method"
MOST_SAMPLES = 256
"""Most samples of the parameters that a condition depends on, for a check of its values."""


def keep_all(sample: Sample) -> bool:
    """The `Keep` of a space without relations."""
    return True


def in_order(parameters: Parameters) -> list[str]:
    """The keys in sampling order: each after those that its conditions depend on, else in the order of the space."""
    remaining, ordered = list(parameters), list[str]()

    while remaining:
        ready = (key for key in remaining if not _depends_on(parameters, key) & {*remaining} - {key})
        ordered.append(next(ready, remaining[0]))  # a circle is reported elsewhere
        remaining.remove(ordered[-1])
    return ordered


def unmet_condition(parameter: Parameter, base: Base, sample: Sample) -> str:
    """The first condition of a parameter that a sample does not meet, in words; "" where the parameter is active."""
    config = trial_values(base, sample) if parameter.when else {}
    for key, values in parameter.conditions.items():
        if key not in config or not is_one_of(config[key], values):
            return f"{key} must be {_either(values)}" + (f", got {quote_value(config[key])}" if key in config else "")
    return ""


def split_active(parameters: Parameters, base: Base, point: Sample) -> tuple[dict[str, Scalar], dict[str, str]]:
    """The active values of a point, in the order of the space; for each other key the condition that is not met."""
    active: dict[str, Scalar] = {}
    inactive: dict[str, str] = {}
    given = {key: parameter for key, parameter in parameters.items() if key in point}

    for key in in_order(given):
        if words := unmet_condition(given[key], base, active):
            inactive[key] = words
        else:
            active[key] = point[key]

    return {key: active[key] for key in given if key in active}, inactive


def possible_values(parameters: Parameters, key: str, fixed: Scalar) -> list[Scalar]:
    """The least and the largest value, or all choices, that a key may have; `fixed` is the base's."""
    searched = parameters.get(key)
    values = [value for _, value in searched.extremes()] if searched else []
    return values if searched and not searched.when else [*values, fixed]


def possible_integers(parameters: Parameters, key: str, fixed: int) -> list[int]:
    """The same of a key that is an integer."""
    return [int(value) for value in possible_values(parameters, key, fixed) if value is not None]


def normalised(parameters: Parameters, base: Base, *, whole: bool = True) -> tuple[dict[str, Parameter], list[Issue]]:
    """The parameters in their keys' types, and their faults in trial configs over `base`.

    Args:
        parameters: each valid by itself.
        base: a raw trial config.
        whole: whether these are all parameters of the file; if not, the effects of conditions are not checked.
    """
    out, issues = dict(parameters), list[Issue]()
    faulty: set[str] = set()

    for key in in_order(parameters):
        faults = list(_condition_faults(out, key, base if whole else None))
        samples: Sequence[Sample] = ({},)
        if out[key].when:
            # samples mean nothing where a condition, or a parameter that it depends on, is at fault
            sound = whole and not faults and not faulty & {key, *_ancestors(out, key)}
            samples, never = _samples(out, key, base) if sound else ((), False)
            faults += _never(out, key, base) if never else []

        out[key], more = checked(key, out[key], base, samples)
        if faults or more:
            faulty.add(key)
            issues += faults + more

    return out, issues


def incompatible_pairs(parameters: Parameters, base: Base, keep: Keep = keep_all) -> Iterator[Issue]:
    """Pairs of unconditional parameters with values that are each valid, but not together, and that `keep` takes."""
    free = {key: parameter.representative_values() for key, parameter in parameters.items() if not parameter.when}
    for (first, ones), (second, others) in combinations(free.items(), 2):
        for one, other in product(ones, others):
            sample = {first: one, second: other}
            if keep(sample) and (faults := trial_faults(base, sample)):
                text = f"{faults[0].name}: {faults[0].text}"
                values = f"{first} is {quote_value(one)} and {second} {quote_value(other)}"
                yield Issue(("parameters", second), f"{text}, where {values}: give one of them a `when`", second)
                break


def trial_faults(base: Base, over: Mapping[str, Any] | None = None) -> list[Issue]:
    """The faults of a raw trial config with dotted keys `over` it."""
    try:
        TrialConfig.resolve(base, **(over or {}))
    except ValidationError as error:
        return issues_of(error, TrialConfig, with_dotted(base, over or {}))
    return []


def trial_values(base: Base, sample: Sample) -> dict[str, Any]:
    """The dotted trial config of a sample; empty if its values do not fit together."""
    try:
        return TrialConfig.resolve(base, **sample).dotted()
    except ValidationError:
        return {}


def _depends_on(parameters: Parameters, key: str) -> set[str]:
    """The parameters that must be decided before a parameter's conditions can be judged.

    The method is among them where its preset may decide what a condition names, also a condition of its own.
    """
    named = parameters[key].conditions
    searched = {name for name in named if name in parameters}
    by_preset = any(name not in parameters or parameters[name].when for name in named)
    return searched | ({METHOD} & parameters.keys() if by_preset else set())


def _ancestors(parameters: Parameters, key: str) -> set[str]:
    """All that a parameter depends on, directly or not."""
    ancestors, new = set[str](), {key}
    while new:
        new = {name for one in new for name in _depends_on(parameters, one)} - ancestors
        ancestors |= new
    return ancestors


def _condition_faults(parameters: Parameters, key: str, base: Base | None) -> Iterator[Issue]:
    """The faults of a parameter's conditions as written; without a base only those that do not depend on it."""
    for name, values in parameters[key].conditions.items():
        path = (key, "when", name)
        if name not in DEFAULTS:
            yield Issue(path, unknown_key(name, DEFAULTS))
        elif name == "seed":
            yield Issue(path, "the seed is no part of a configuration, so nothing can depend on it")
        elif name == key:
            yield Issue(path, "must not name the parameter itself")
        elif isinstance(DEFAULTS[name], list):
            yield Issue(path, "is a list, and a condition names single values")
        else:
            listed = isinstance((parameters[key].when or {})[name], tuple)
            faults = [(index, _value_fault(parameters, name, value, base)) for index, value in enumerate(values)]
            yield from (Issue((*path, index) if listed else path, text) for index, text in faults if text)

    # a circle is one fault, at the first of its parameters in the order of the space
    circle = _circle(parameters, key)
    if key not in parameters[key].conditions and key == next((name for name in parameters if name in circle), None):
        way = " needs ".join(circle) if len(circle) > 2 else "its own preset may decide what is named here"
        named = circle[1:2] if circle[1] in parameters[key].conditions else []
        yield Issue((key, "when", *named), f"must not depend on itself: {way}")


def _value_fault(parameters: Parameters, name: str, value: Scalar, base: Base | None) -> str:
    """Why a key can never have a value; "" if it can."""
    searched = parameters.get(name)
    if searched is None:
        return _invalid(name, value)
    if searched.contains(value):
        return ""
    if searched.when and (base is None or is_one_of(value, _unsearched(parameters, name, base))):
        return ""
    choices = [choice for choice in searched.values or () if isinstance(choice, str)]
    hint = did_you_mean(value, choices) if isinstance(value, str) else ""
    return f"must lie within {searched.describe}, got {quote_value(value)}{hint}"


def _invalid(name: str, value: Scalar) -> str:
    """Why a value is invalid for a key, whatever the other keys are."""
    raw = with_dotted({}, {name: value})
    try:
        TrialConfig.model_validate(raw)
    except ValidationError as error:
        of_key = (detail["type"] != "value_error" or detail["loc"] == (*name.split("."),) for detail in error.errors())
        return issues_of(error, TrialConfig, raw)[0].text if any(of_key) else ""  # else it only conflicts with defaults
    return ""


def _unsearched(parameters: Parameters, name: str, base: Base) -> list[Any]:
    """The values of a key in trials that do not search it: from the base and the presets of the searched methods."""
    method = parameters.get(METHOD)
    samples: list[Sample] = [{METHOD: value} for value in (method.values or () if method else ())]
    if method is None or method.when:
        samples.append({})
    values = [trial_values(base, sample).get(name) for sample in samples]
    return [value for index, value in enumerate(values) if not is_one_of(value, values[:index])]


def _circle(parameters: Parameters, key: str) -> list[str]:
    """The shortest way from a parameter over what it depends on back to itself; empty without one."""
    ways, seen = [[key]], set[str]()
    for way in ways:
        for name in sorted(_depends_on(parameters, way[-1]) - seen):
            if name == key:
                return [*way, key]
            seen.add(name)
            ways.append([*way, name])
    return []


def _samples(parameters: Parameters, key: str, base: Base) -> tuple[list[Sample], bool]:
    """Samples under which a conditional parameter is active, and whether there can be none."""
    ancestors = _ancestors(parameters, key)
    names = [name for name in in_order(parameters) if name in ancestors]
    drawn = list(islice(_drawn(parameters, key, names, base, {}), MOST_SAMPLES))
    active = [sample for sample in drawn if not unmet_condition(parameters[key], base, sample)]
    return active, not active and len(drawn) < MOST_SAMPLES


def _drawn(parameters: Parameters, key: str, names: Sequence[str], base: Base, sample: Sample) -> Iterator[Sample]:
    """Samples of the named parameters, in their order, with the values that matter to the conditions of `key`."""
    if not names:
        yield sample
    elif unmet_condition(parameters[names[0]], base, sample):
        yield from _drawn(parameters, key, names[1:], base, sample)
    else:
        for value in _samples_by_value(parameters, key, names):
            yield from _drawn(parameters, key, names[1:], base, {**sample, names[0]: value})


def _samples_by_value(parameters: Parameters, key: str, names: Sequence[str]) -> Iterable[Scalar]:
    """Values of the first of the named parameters: those that conditions name and, but for those of `key`, others."""
    name, searched = names[0], parameters[names[0]]
    if name in parameters[key].conditions:
        return filter(searched.contains, parameters[key].conditions[name])
    named = (value for other in names[1:] for value in parameters[other].conditions.get(name, ()))
    return dict.fromkeys((*filter(searched.contains, named), *(value for _, value in searched.extremes())))


def _never(parameters: Parameters, key: str, base: Base) -> list[Issue]:
    """The issue that a parameter's conditions are never met, at the condition that causes it."""
    issues = []
    for name, wanted in parameters[key].conditions.items():
        values = _unsearched(parameters, name, base)
        if name not in parameters and not any(is_one_of(value, wanted) for value in values):
            text = f"is never {_either(wanted)} in this search, but {_either(values)}"
            issues.append(Issue((key, "when", name), text))
    return issues or [Issue((key, "when"), "can never hold together in this search")]


def _either(values: Sequence[Any]) -> str:
    return " or ".join(map(quote_value, values))
