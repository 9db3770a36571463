"""The table of finished configurations: comparable means, front, recommendation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

from faar_ray.objectives.metrics import Objective
from faar_ray.objectives.pareto import pareto_front
from faar_ray.records import BUDGET, Role
from faar_ray.report.statistics.groups import Config, is_cost
from faar_ray.report.statistics.noise import Estimate, SeedModel

SAME_COST = 1.01
"""Within this factor two costs are the same."""
ADAPTERS, TRAINABLE = "params/adapters", "trainable_params"
T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One finished configuration."""

    config_id: str
    name: str
    role: Role
    trial_ids: tuple[str, ...]
    seeds: tuple[int, ...]
    values: dict[str, float]
    """Mean of each objective; that of the quality is over all seeds (`SeedModel.mean`), so that rows compare."""
    cost: float | None
    """The cost metric's mean; None without one."""
    trainable: float | None
    """Mean of all trainable parameters, where known."""
    error: float
    """Standard error of the quality; nan where noise is unknown."""
    ci95: float
    """Half width of the quality's 95% interval; infinite where noise is unknown."""
    versus_best: Estimate
    """Quality against the best configuration of the search, positive = better."""
    test: float | None
    """Mean of the quality metric on the test split, where it was read."""
    on_front: bool
    recommended: bool
    trunk: str
    """In a search with `front`: what it shares with its trunk and the trunk's points; else ""."""
    budget: float | None
    """In such a search: the size that it was cut to; None of a trunk."""
    group: int
    """From 1; members do not differ significantly from the best of the group. 0 for controls or unknown noise."""


def table(configs: Sequence[Config], goals: Sequence[Objective], quality: Objective, model: SeedModel) -> list[Row]:
    """The search's configurations from best to worst mean, then the controls likewise.

    Args:
        configs: named ones that have every objective.
        goals: the objectives, for the front (of the search's configurations alone).
        quality: the objective that is compared with its noise.
        model: fitted to `quality`.
    """
    sign = quality.sign
    values = {c.config_id: _values(c, goals, quality, model) for c in configs}
    ordered = sorted(configs, key=lambda c: (c.role != "trial", -sign * values[c.config_id][quality.name]))
    searched = [c for c in ordered if c.role == "trial"]
    best = searched[0].config_id if searched else ""
    versus = {c.config_id: _versus(c.config_id, best, sign, model) for c in configs}
    front = pareto_front({c.config_id: [values[c.config_id][g.name] for g in goals] for c in searched}, goals)
    cost = cost_metric(configs, goals, quality)
    group = _groups([c.config_id for c in searched], model)
    tied = [c for c in searched if group[c.config_id] == 1]
    pick = _cheapest_first(tied or searched[:1], lambda c: c.mean(cost) if cost else None)[:1]
    return [
        Row(
            config_id=c.config_id,
            name=c.name,
            role=c.role,
            trial_ids=tuple(t.trial_id for t in c.trials),
            seeds=c.seeds,
            values=values[c.config_id],
            cost=c.mean(cost) if cost else None,
            trainable=c.mean(TRAINABLE),
            error=model.standard_error(c.config_id),
            ci95=model.ci95(c.config_id),
            versus_best=versus[c.config_id],
            test=c.mean(f"test/{quality.name.removeprefix('val/')}"),
            on_front=c.config_id in front,
            recommended=c in pick,
            trunk=c.trunk,
            budget=c.params.get(BUDGET),
            group=group.get(c.config_id, 0),
        )
        for c in ordered
    ]


def cost_metric(configs: Sequence[Config], goals: Sequence[Objective], quality: Objective) -> str:
    """What a configuration costs: the first counted objective; adapter parameters in place of trainable ones.

    Where a searched configuration trains without adapters (full fine-tuning), it is all trainable parameters. Empty
    where not every configuration has one.
    """
    counted = [g.name for g in goals if is_cost(g.name) and g != quality and g.goal == "minimize"]
    if not counted or counted[0] == TRAINABLE:
        all_adapt = all(c.mean(ADAPTERS) != 0 for c in configs if c.role == "trial")
        counted = [*([ADAPTERS] if all_adapt else []), *counted, TRAINABLE]
    return next((n for n in counted if configs and all(finite(c.mean(n)) for c in configs)), "")


def finite(value: float | None) -> bool:
    """Whether there is a value, and a finite one."""
    return value is not None and math.isfinite(value)


def _values(config: Config, goals: Sequence[Objective], quality: Objective, model: SeedModel) -> dict[str, float]:
    plain = {g.name: mean for g in goals if (mean := config.mean(g.name)) is not None}
    return plain if is_cost(quality.name) else {**plain, quality.name: model.mean(config.config_id)}


def _versus(config_id: str, best: str, sign: float, model: SeedModel) -> Estimate:
    if not best or config_id == best:
        return Estimate(0.0, 0.0 if best else math.inf, model.noise.dof)
    difference = model.difference(config_id, best)
    return Estimate(sign * difference.value, difference.ci95, difference.dof)


def grouped(rows: Sequence[Row], most: int) -> list[list[Row]]:
    """The search's rows by group, the best first, in each the cheapest first; by quality where noise is unknown.

    Of more rows than `most`, those of the front and the recommended one come before others.
    """
    searched = sorted((row for row in rows if row.role == "trial"), key=lambda row: row.group)
    groups = [list(members) for _, members in groupby(searched, key=lambda row: row.group)]
    groups = [_cheapest_first(members, lambda row: row.cost) if members[0].group else members for members in groups]
    rank = sorted((row for members in groups for row in members), key=lambda row: not (row.on_front or row.recommended))
    chosen = {row.config_id for row in rank[:most]}
    shown = ([row for row in members if row.config_id in chosen] for members in groups)
    return [members for members in shown if members]


def _groups(ranked: Sequence[str], model: SeedModel) -> dict[str, int]:
    """Group numbers: the best of the remaining configurations, with all that do not differ significantly from it."""
    groups = dict.fromkeys(ranked, 0)
    remaining = list(ranked) if model.noise.dof else []
    while remaining:
        number = max(groups.values()) + 1
        alike = {c for c in remaining if c == remaining[0] or not model.difference(c, remaining[0]).is_significant}
        groups |= dict.fromkeys(alike, number)
        remaining = [c for c in remaining if c not in alike]
    return groups


def _cheapest_first(ranked: Sequence[T], cost: Callable[[T], float | None]) -> list[T]:
    """Sorted by cost, of those that cost about the least the best first; as ranked where a cost is unknown."""
    costs = [cost(one) for one in ranked]
    known = [value for value in costs if value is not None]
    if not known or len(known) < len(ranked):
        return list(ranked)
    head = next(i for i, value in enumerate(known) if value <= SAME_COST * min(known))
    return [ranked[i] for i in sorted(range(len(ranked)), key=lambda i: (i != head, known[i]))]
