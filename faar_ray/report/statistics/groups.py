"""Trials grouped by configuration: names for people, means over seeds, the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from faar_ray.config.null_values import value_words
from faar_ray.records import BUDGET, CUT_EPOCH, FOUND, MEASURED, Role, TrialResult, known

COSTS = ("trainable_params", "params/", "rank/", *MEASURED)
MOST_DIGITS = 17


@dataclass(frozen=True)
class Config:
    """The complete trials of one configuration, one per seed."""

    config_id: str
    role: Role
    """`trial` of a point too: both are what the search found."""
    params: dict[str, Any]
    trials: tuple[TrialResult, ...]
    """By seed."""
    name: str = field(default="", compare=False)
    """For people; unique among the configurations that were named together."""
    trunk: str = field(default="", compare=False)
    """In a search with `front`: the values that a trunk and its points share; else ""."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds that finished."""
        return tuple(t.seed for t in self.trials)

    def mean(self, metric: str) -> float | None:
        """Plain mean over the trials that have the metric, and not as NaN; None where none has."""
        values = self.values(metric)
        return fmean(values) if values else None

    def values(self, metric: str) -> list[float]:
        """The metric of each trial that has it."""
        return [known(t.metrics)[metric] for t in self.trials if metric in known(t.metrics)]


def is_cost(metric: str) -> bool:
    """Whether a metric counts something (parameters, ranks, time, memory) rather than measures quality."""
    return metric.startswith(COSTS)


def complete_configs(results: Sequence[TrialResult]) -> list[Config]:
    """Configurations with complete trials (not references), by first appearance; of a repeated seed the last counts."""
    chosen: dict[str, dict[int, TrialResult]] = {}
    for result in results:
        if result.state == "COMPLETE" and result.role != "reference":
            chosen.setdefault(result.config_id, {})[result.seed] = result
    groups = [tuple(by_seed[s] for s in sorted(by_seed)) for by_seed in chosen.values()]
    return [Config(g[0].config_id, _role(g), dict(g[0].params), g) for g in groups]


def _role(trials: Sequence[TrialResult]) -> Role:
    return "trial" if any(t.role in FOUND for t in trials) else trials[0].role


def short_names(params: Mapping[str, Mapping[str, Any]], *, whole: bool = False) -> dict[str, str]:
    """A short, unique name per key: `rho_shared 0.8, init_rank 16`, with as many digits as it takes.

    A parameter that is the same wherever it is set is left out unless `whole`; a dotted key is cut to its last part
    unless two would agree.
    """
    keys = list(dict.fromkeys(k for p in params.values() for k in p))
    varying = [k for k in keys if whole or len({repr(p[k]) for p in params.values() if k in p}) > 1] or keys
    short = {k: k if sum(o.split(".")[-1] == k.split(".")[-1] for o in varying) > 1 else k.split(".")[-1] for k in keys}
    names: dict[str, str] = {}
    for digits in range(3, MOST_DIGITS + 1):
        names = {
            i: ", ".join(_format_parameter(short[k], p[k], digits) for k in varying if k in p)
            for i, p in params.items()
        }
        if len(set(names.values())) == len(names):
            return {i: name or i for i, name in names.items()}
    return {i: f"{n} ({i})" if list(names.values()).count(n) > 1 else n or i for i, n in names.items()}


def _format_parameter(key: str, value: Any, digits: int) -> str:
    if isinstance(value, float):
        value = f"{value:.{digits}g}"
    elif isinstance(value, list | tuple):
        value = "+".join(map(str, value))
    return str(value) if key == "method" else f"{key} {value_words(key, value)}"


def with_names(configs: Sequence[Config]) -> list[Config]:
    """The same with names. Trials and controls are named separately, because they set different keys."""
    searched = {c.config_id: c.params for c in configs if c.role != "control"}
    cut = any(trial.role == "point" for c in configs for trial in c.trials)
    names = _names_by_size(searched) if cut else short_names(searched)
    names |= short_names({c.config_id: c.params for c in configs if c.role == "control"}, whole=True)
    trunks = {key: _trunk_of(params) for key, params in searched.items()} if cut else {}
    return [
        Config(c.config_id, c.role, c.params, c.trials, _unique_name(c, names), trunks.get(c.config_id, ""))
        for c in configs
    ]


def _names_by_size(params: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Names of trunks and their points: `budget 100k, lr 0.002`, or `full size` where all have the same trunk."""
    trunks = {_trunk_of(p): {k: v for k, v in p.items() if k not in (BUDGET, CUT_EPOCH)} for p in params.values()}
    shared, alone = short_names(trunks), len(trunks) == 1
    names = {
        key: size_name(p.get(BUDGET)) + ("" if alone else f", {shared[_trunk_of(p)]}") for key, p in params.items()
    }
    repeated = {name for name in names.values() if list(names.values()).count(name) > 1}
    return {key: f"{name} ({key})" if name in repeated else name for key, name in names.items()}


def _trunk_of(params: Mapping[str, Any]) -> str:
    return repr(sorted((key, value) for key, value in params.items() if key not in (BUDGET, CUT_EPOCH)))


def size_name(budget: float | None) -> str:
    """A point's size: `budget 100k`, `budget 27%`; of a trunk `full size`."""
    if budget is None:
        return "full size"
    if budget <= 1:
        return f"budget {budget * 100:.6g}%"
    return f"budget {budget / 1000:.6g}k" if budget >= 1000 else f"budget {budget:.6g}"


def _unique_name(config: Config, names: Mapping[str, str]) -> str:
    name = names[config.config_id] or config.config_id
    others = [n for i, n in names.items() if i != config.config_id]
    return f"{name} (control)" if config.role == "control" and name in others else name
