"""The answer of a search: the table of finished configurations and the sentences that sum it up.

Pure functions of the trials. Only complete trials count: a pruned one is too large and too weak to compare. A
configuration is called better only if the 95% interval of the difference excludes 0 (`noise.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from faar_ray.objectives.constraint import Constraint, feasible
from faar_ray.objectives.metrics import Objective
from faar_ray.records import FOUND, MEASURED, State, TrialResult
from faar_ray.report.statistics.groups import Config, complete_configs, is_cost, with_names
from faar_ray.report.statistics.knee import Knee, knee_of
from faar_ray.report.statistics.noise import Noise, Observation, SeedModel
from faar_ray.report.statistics.table import Row, cost_metric, finite, table
from faar_ray.report.words.shared_words import shared_sentences
from faar_ray.report.words.wording import AnswerInputs, sentences


@dataclass(frozen=True)
class Answer:
    """The outcome of a search."""

    quality: Objective
    objectives: tuple[Objective, ...]
    cost_name: str
    """Metric behind `Row.cost`; empty without one."""
    rows: tuple[Row, ...]
    """The search's configurations from best to worst, then controls."""
    noise: Noise
    knee: Knee | None
    best: str | None
    """Configuration with the best mean quality."""
    recommended: str | None
    """The cheapest of those not significantly worse than the best; the best itself where the noise is unknown."""
    states: dict[State, int]
    """Number of trials by state, without references and controls."""
    sentences: tuple[str, ...]


def pooled_noise(results: Sequence[TrialResult], metric: str = "delta_m") -> Noise:
    """Seed noise of a metric, pooled over the configurations with complete trials, with its degrees of freedom."""
    return _model(complete_configs(results), metric).noise


def build_answer(
    results: Sequence[TrialResult], objectives: Sequence[Objective], limits: Sequence[Constraint] = ()
) -> Answer:
    """Sum up a search.

    Args:
        results: every trial, control and reference, in any state.
        objectives: at least one. The first that is not a cost is the quality; configurations that lack an objective
            are left out.
        limits: constraints; trials of the search that break one are not compared.
    """
    goals = tuple(objectives)
    quality = next((g for g in goals if not is_cost(g.name)), goals[0])

    within = [r for r in results if r.role not in FOUND or feasible(r.metrics, limits)]
    configs = with_names([c for c in complete_configs(within) if all(finite(c.mean(g.name)) for g in goals)])

    model = _model(configs, quality.name)
    rows = tuple(table(configs, goals, quality, model))
    cost = cost_metric(configs, goals, quality)
    knee = knee_of([row for row in rows if row.on_front], goals, quality.name, model.noise.dof)

    outside = sum(r.state == "COMPLETE" for r in results) - sum(r.state == "COMPLETE" for r in within)
    names = dict.fromkeys([*(goal.name for goal in goals), *(limit.metric for limit in limits)])
    measured = {name: _model(configs, name).noise for name in names if name.startswith(MEASURED)}
    states: dict[State, int] = dict(Counter(r.state for r in results if r.role == "trial"))
    inputs = AnswerInputs(rows, goals, quality, cost, model, states, knee, limits, outside, measured)
    return Answer(
        quality=quality,
        objectives=goals,
        cost_name=cost,
        rows=rows,
        noise=model.noise,
        knee=knee,
        best=next((r.config_id for r in rows if r.role == "trial"), None),
        recommended=next((r.config_id for r in rows if r.recommended), None),
        states=states,
        sentences=(*sentences(inputs), *shared_sentences(results)),
    )


def _model(configs: Sequence[Config], metric: str) -> SeedModel:
    values = ((c.config_id, t.seed, t.metrics.get(metric)) for c in configs for t in c.trials)
    return SeedModel(metric, [Observation(c, s, v) for c, s, v in values if v is not None and finite(v)])
