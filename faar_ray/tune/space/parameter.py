"""One searched key: a range or a list of values, checked against the trial config that it varies."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from faar_ray.config.quoting import KeyPath, quote_value
from faar_ray.config.trial import Section, TrialConfig, with_dotted
from faar_ray.config.validation_messages import Issue, issues_of, raise_issues, rule, unknown_key

Scalar = bool | int | float | str | None
Number = int | float
FEW_NUMBERS = 8
MOST_VALUES = 256
"""Most choices of one parameter; each is checked against the trial config."""
DEFAULTS = TrialConfig().dotted()
"""Every dotted key of a trial config."""
NOT_SEARCHED = {
    "seed": "seeds are not searched: search.replicates repeats configurations over seeds",
    "recipe": "recipes are not searched: one sets epochs, image size and more at once; search its keys, or compare "
    "whole recipes in `controls`",
}
"""Keys that no parameter may name, and why."""

Values = Annotated[
    tuple[Scalar, ...], Field(min_length=1, max_length=MOST_VALUES, strict=False), rule(f"a list of 1 to {MOST_VALUES}")
]
SomeScalars = Annotated[tuple[Scalar, ...], Field(min_length=1, strict=False), rule("a list that is not empty")]
Conditions = Annotated[dict[str, Scalar | SomeScalars], Field(min_length=1), rule("conditions such as {method: faar}")]


class Parameter(Section):
    """One searched key: a range (`min`, `max`, both inclusive) or a list (`values`)."""

    min: Number | None = Field(None, description="Smallest value, inclusive.")
    max: Number | None = Field(None, description="Largest value, inclusive.")
    values: Values | None = Field(None, description="The choices, instead of a range; null may be one of them.")
    step: Number | None = Field(None, description="Distance of the values of a range: min, min + step, ..., max.")
    log: bool = Field(False, description="Sample on a log scale (min > 0).")
    scale: Literal["linear", "log1m"] = Field("linear", description="`log1m` samples 1 - x on a log scale (max < 1).")
    prior: Scalar = Field(
        None,
        description="A value that is expected to be good; it is tried first. null: none; to try null first, name it in "
        "warm_start.points.",
    )
    when: Conditions | None = Field(
        None,
        description="Keys and the value, or list of values, that each must have in a trial's config for this parameter "
        "to be searched there: {method: faar, decoder.kind: [hrnet, ts_pd]}.",
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        raise_issues(self._choice_faults() if self.values is not None else self._range_faults())
        if self.prior is not None and not self._within(self.prior):
            raise_issues([Issue(("prior",), f"must lie within {self.describe}, got {quote_value(self.prior)}")])
        return self

    @property
    def describe(self) -> str:
        """The values for messages: `0.5 .. 0.99`, or the list."""
        if self.values is not None:
            return "[" + ", ".join(quote_value(value) for value in self.values) + "]"
        steps = "" if self.step is None else f" in steps of {quote_value(self.step)}"
        return f"{quote_value(self.min)} .. {quote_value(self.max)}{steps}"

    @property
    def conditions(self) -> dict[str, tuple[Scalar, ...]]:
        """The values that each key of `when` may have."""
        return {key: value if isinstance(value, tuple) else (value,) for key, value in (self.when or {}).items()}

    @property
    def bounds(self) -> tuple[Number, Number]:
        """Smallest and largest value of a range; both are int, or both float, once a search space holds it.

        Raises:
            ValueError: it is a list of values.
        """
        if self.min is None or self.max is None:
            raise ValueError("a list of values has no bounds")
        return self.min, self.max

    @property
    def is_integer(self) -> bool:
        """Whether this is a range of integers."""
        return isinstance(self.min, int) and isinstance(self.max, int)

    def contains(self, value: Scalar) -> bool:
        """Whether the value could be sampled."""
        return self._within(value) and not (self.is_integer and not isinstance(value, int))

    def extremes(self) -> Iterator[tuple[KeyPath, Scalar]]:
        """The values to validate, each with its key: every choice, or both bounds of a range."""
        if self.values is not None:
            yield from ((("values", index), value) for index, value in enumerate(self.values))
        else:
            low, high = self.bounds
            yield ("min",), low
            yield ("max",), high

    def representative_values(self) -> list[Scalar]:
        """The values to check together with those of another parameter; of many numbers only the extremes."""
        values = [value for _, value in self.extremes()]
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        return [min(numbers), max(numbers)] if len(values) == len(numbers) > FEW_NUMBERS else values

    def _within(self, value: Scalar) -> bool:
        if self.values is not None:
            return is_one_of(value, self.values)
        low, high = self.bounds
        if value is None or isinstance(value, bool | str) or not low <= value <= high:
            return False
        return self.step is None or math.isclose(self.snapped(value), value, rel_tol=1e-9, abs_tol=1e-12)

    def snapped(self, value: Number) -> Number:
        """The value of a stepped range that is nearest to one within its bounds."""
        low, high = self.bounds
        if self.step is None:
            return value
        first, step = Decimal(str(low)), Decimal(str(self.step))
        near = first + round((Decimal(str(value)) - first) / step) * step
        return min(max(int(near) if self.is_integer else float(near), low), high)

    def _choice_faults(self) -> Iterator[Issue]:
        values = self.values or ()
        if self.min is not None or self.max is not None:
            yield Issue(("values",), "must not stand beside min or max: give a range or a list")
        for index, value in enumerate(values):
            if any(value == other and type(value) is type(other) for other in values[:index]):
                yield Issue(("values", index), f"must not repeat, got {quote_value(value)} again")
        if self.log:
            yield Issue(("log",), "must be false for a list of values, got true")
        if self.scale != "linear":
            yield Issue(("scale",), f"must be linear for a list of values, got {quote_value(self.scale)}")
        if self.step is not None:
            yield Issue(("step",), f"must be null for a list of values, got {quote_value(self.step)}")

    def _range_faults(self) -> Iterator[Issue]:
        low, high = self.min, self.max
        if low is None or high is None:
            missing = [name for name in ("min", "max") if getattr(self, name) is None]
            yield Issue((), f"needs min and max, or values: {' and '.join(missing)} missing")
            return
        if low >= high:
            yield Issue(("min",), f"must satisfy min < max, got {quote_value(low)} and {quote_value(high)}")
        if math.isinf(float(high) - float(low)):
            yield Issue(("max",), f"must be so near to min that max - min is finite, got {quote_value(high)}")
        if self.log and low <= 0:
            yield Issue(("min",), f"must satisfy min > 0 where log is true, got {quote_value(low)}")
        if self.scale == "log1m":
            if self.log:
                yield Issue(("log",), "must be false where scale is log1m, got true")
            if low < 0:
                yield Issue(("min",), f"must satisfy min >= 0 where scale is log1m, got {quote_value(low)}")
            if high >= 1:
                yield Issue(("max",), f"must satisfy max < 1 where scale is log1m, got {quote_value(high)}")
        if self.step is not None:
            yield from self._step_faults(low, high, self.step)

    def _step_faults(self, low: Number, high: Number, step: Number) -> Iterator[Issue]:
        if self.log or self.scale == "log1m":
            scale = "log is true" if self.log else "scale is log1m"
            text = f"must be null where {scale}, got {quote_value(step)}: equal steps are no equal steps on a log scale"
            yield Issue(("step",), f"{text}; list the values, or sample on a linear scale")
        elif step <= 0:
            yield Issue(("step",), f"must satisfy step > 0, got {quote_value(step)}")
        elif low < high and math.isfinite(float(high) - float(low)):
            first, last, by = (Decimal(str(number)) for number in (low, high, step))
            below = first + (last - first) // by * by
            if last - first < by:
                text = f"must satisfy step <= max - min = {_plain(last - first)}, got {quote_value(step)}"
                yield Issue(("step",), text)
            elif below != last:
                text = f"must be min + a multiple of step = {quote_value(step)}, got {quote_value(high)}"
                yield Issue(("max",), f"{text} (did you mean {_plain(below)} or {_plain(below + by)}?)")


def _plain(number: Decimal) -> str:
    return f"{number.normalize():f}"


def is_one_of(value: Any, values: Iterable[Any]) -> bool:
    """Whether a value is one of several; true and 1 are two."""
    return any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in values)


def checked(
    key: str, parameter: Parameter, base: Mapping[str, Any], samples: Sequence[Mapping[str, Scalar]] = ({},)
) -> tuple[Parameter, list[Issue]]:
    """The parameter in its key's type, and the faults of its values in configs of `base` and each of `samples`."""
    if key not in DEFAULTS:
        return parameter, [Issue((key,), unknown_key(key, DEFAULTS))]
    if why := NOT_SEARCHED.get(key):
        return parameter, [Issue((key,), why)]

    faults: dict[tuple[str, str], Issue] = {}
    kinds: set[type] = set()
    for sample, (path, value) in itertools.product(samples, parameter.extremes()):
        config = {**sample, key: value}
        try:
            kinds.add(type(TrialConfig.resolve(base, **config).dotted()[key]))
        except ValidationError as error:
            for fault in issues_of(error, TrialConfig, with_dotted(base, config)):
                same_key = fault.name == key
                text, values = (fault.text, sample) if same_key else (f"{fault.name}: {fault.text}", config)
                faults.setdefault(
                    (text, "" if same_key else quote_value(value)), Issue((key, *path), text + _where(values), key)
                )
    if faults or parameter.values is not None or not kinds:
        return parameter, list(faults.values())
    return _in_type(key, parameter, kinds)


def _where(sample: Mapping[str, Scalar]) -> str:
    values = " and ".join(f"{key} is {quote_value(value)}" for key, value in sample.items())
    return f", where {values}" if values else ""


def _in_type(key: str, parameter: Parameter, kinds: set[type]) -> tuple[Parameter, list[Issue]]:
    low, high = parameter.bounds
    if kinds == {int}:
        if isinstance(parameter.prior, float):
            return parameter, [Issue((key, "prior"), f"must be an integer, got {quote_value(parameter.prior)}", key)]
        if parameter.scale == "log1m":
            return parameter, [Issue((key, "scale"), "must be linear for an integer, got 'log1m'", key)]
        if isinstance(parameter.step, float):
            return parameter, [Issue((key, "step"), f"must be an integer, got {quote_value(parameter.step)}")]
        return parameter, []
    if kinds != {float}:
        return parameter, [Issue((key,), "a range needs a number, give values instead")]
    others = {name: getattr(parameter, name) for name in ("prior", "step")}
    as_float = {name: float(value) for name, value in others.items() if isinstance(value, int)}
    return parameter.model_copy(update={"min": float(low), "max": float(high), **as_float}), []
