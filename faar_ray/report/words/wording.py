"""The sentences of an answer. They claim a difference only where it is larger than the seed noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from faar_ray.objectives.constraint import Constraint
from faar_ray.objectives.metrics import Objective
from faar_ray.records import State
from faar_ray.report.statistics.knee import Knee
from faar_ray.report.statistics.noise import Estimate, Noise, SeedModel
from faar_ray.report.statistics.table import ADAPTERS, TRAINABLE, Row
from faar_ray.report.words.size_words import size_sentences

LABELS = {
    ADAPTERS: "adapter parameters",
    TRAINABLE: "trainable parameters",
    "time/step_ms": "step time",
    "time/epoch_s": "epoch time",
    "memory/peak_mb": "peak memory",
}
UNITS = {"time/step_ms": "ms", "time/epoch_s": "s", "memory/peak_mb": "MiB"}
MOST_FRONT = 4
"""Configurations of the front with a sentence of their own."""
ALIKE = 0.005
"""Costs that differ by less than this share count as equal."""


@dataclass(frozen=True)
class AnswerInputs:
    """What the sentences are built from."""

    rows: Sequence[Row]
    goals: Sequence[Objective]
    quality: Objective
    cost_name: str
    model: SeedModel
    states: Mapping[State, int]
    knee: Knee | None = None
    limits: Sequence[Constraint] = ()
    outside: int = 0
    """Finished trials of the search that break a constraint."""
    measured: Mapping[str, Noise] = field(default_factory=dict)
    """Noise of objectives and constrained metrics that depend on the machine."""

    @property
    def searched(self) -> list[Row]:
        """Configurations of the search, best first."""
        return [row for row in self.rows if row.role == "trial"]

    def gain(self, row: Row, other: Row) -> Estimate:
        """Quality of `row` against `other`, positive = better."""
        sign = self.quality.sign
        difference = self.model.difference(row.config_id, other.config_id)
        return Estimate(sign * difference.value, difference.ci95, difference.dof)


def sentences(inputs: AnswerInputs) -> Iterator[str]:
    """Recommendation, knee, trade-offs along the front, controls, noise, and what is not compared."""
    if inputs.searched:
        yield from size_sentences(
            inputs.searched,
            inputs.quality.name,
            inputs.gain,
            lambda cost: format_cost(cost, inputs.cost_name),
            plus_minus,
        )
        yield _recommendation(inputs)
        yield from _knee(inputs)
        yield from _prices(inputs)
        yield from _controls(inputs)
        yield _noise(inputs)
        yield from (_measured(metric, noise) for metric, noise in inputs.measured.items())
    elif inputs.outside:
        yield f"None of {_trials(inputs.outside)} satisfies {_limits(inputs)}: there is nothing to recommend."
    else:
        yield "No trial of the search finished: there is nothing to compare."
    if inputs.searched and inputs.outside:
        breaks = "breaks" if inputs.outside == 1 else "break"
        finished = _trials(inputs.states["COMPLETE"])
        yield f"Of {finished}, {inputs.outside} {breaks} {_limits(inputs)}: left out of all comparisons and the front."
    left_out = _left_out(inputs.states)
    if left_out:
        yield left_out


def label(metric: str) -> str:
    """A metric's name for people."""
    return LABELS.get(metric, metric)


def axis_label(metric: str) -> str:
    """A metric's name with its unit, for an axis."""
    unit = "%, mean gain over single-task" if metric == "delta_m" else UNITS.get(metric)
    return f"{label(metric)} ({unit})" if unit else label(metric)


def format_cost(value: float, metric: str) -> str:
    """A cost with its name: `172k adapter parameters`, `23.4 ms step time`."""
    shown = f"{value:.3g} {UNITS[metric]}" if metric in UNITS else count(value)
    return f"{shown} {label(metric)}"


def plus_minus(value: float, half: float) -> str:
    """`1.0 ± 0.6`, with the decimals that the half width supports; only the value where the noise is unknown."""
    if not math.isfinite(half):
        return f"{value:.1f}" if abs(value) >= 0.1 else f"{value + 0.0:.2g}"
    decimals = 1 if half >= 0.1 or half == 0 else min(6, math.ceil(-math.log10(half)))
    while decimals < 6 and half and f"{abs(value):.{decimals}f}" == f"{half:.{decimals}f}":
        decimals += 1
    return f"{round(value, decimals) + 0.0:.{decimals}f} ± {half:.{decimals}f}"  # + 0.0: never "-0.0"


def count(value: float) -> str:
    """A count, short: 187k, 1.29M; below 1000 with three digits."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def saving(row: Row, other: Row, cost_name: str) -> tuple[float, str] | None:
    """Share of `other`'s cost that `row` saves (negative: it costs more), and of what; None where unknown.

    Where one of them has no adapters (full fine-tuning, decoder only), all trainable parameters are compared.
    """
    if cost_name == ADAPTERS and not (row.cost and other.cost):
        mine, theirs, name = row.trainable, other.trainable, TRAINABLE
    else:
        mine, theirs, name = row.cost, other.cost, cost_name
    return None if mine is None or not theirs else (1 - mine / theirs, label(name))


def _recommendation(inputs: AnswerInputs) -> str:
    best, pick = inputs.searched[0], next(row for row in inputs.searched if row.recommended)
    quality = inputs.quality.name
    value = pick.values[quality]
    what = f"{quality} {value:.2f}" if 0 < abs(value) < 1 else f"{quality} {value:.3g}"
    if pick.cost is not None:
        what += f", {format_cost(pick.cost, inputs.cost_name)}"
    if len(inputs.searched) == 1:
        return f"Only {pick.name} finished ({what}): there is nothing to compare it with."
    if not inputs.model.noise.dof:
        return (
            f"{best.name} has the best {quality} ({what}), but the seed noise is unknown (no configuration finished on "
            "two seeds), so no difference here is significant."
        )
    tied = [row for row in inputs.searched if not row.versus_best.is_significant]
    winners = [row.name for row in inputs.rows if row.role == "control" and _wins(inputs, row, pick)]
    take = "Of the searched configurations take" if winners else "Take"
    but = f"; but a control wins over it: {' and '.join(winners)}" if winners else ""
    if len(tied) == 1:
        return f"{take} {pick.name} ({what}): it beats every other configuration by more than the seed noise{but}."
    if pick.cost is None:
        return f"{best.name} has the best {quality} ({what}), but {len(tied)} configurations cannot be told apart."
    also_best = f"the best {quality} and " if pick is best else ""
    cheapest = f"the cheapest of {len(tied)} configurations"
    return f"{take} {pick.name} ({what}): {also_best}{cheapest} that cannot be told apart{but}."


def _knee(inputs: AnswerInputs) -> Iterator[str]:
    if inputs.knee is None:
        return
    names = {row.config_id: row.name for row in inputs.searched}
    knee = inputs.knee
    first, second = (names[config_id] for config_id in knee.ends)
    within = "; this distance is within the seed noise" if knee.distance <= knee.noise else ""
    noise = within if math.isfinite(knee.noise) else "; the seed noise is unknown"
    yield (
        f"The knee of the front is {names[knee.config_id]}: its point farthest from the line between the ends "
        f"{first} and {_drop_shared_key(second, first)} (both objectives scaled to the front, distance "
        f"{knee.distance:.2g} of at most 0.71){noise}."
    )


def _prices(inputs: AnswerInputs) -> Iterator[str]:
    """What each configuration of the front, and the recommended one, loses and saves against the best."""
    best = inputs.searched[0]
    shown = [row for row in inputs.searched[1:] if row.on_front or row.recommended]
    for row in shown[:MOST_FRONT]:
        yield _price(inputs, row, best)
    if len(shown) > MOST_FRONT:
        yield f"{len(shown) - MOST_FRONT} more configurations of the front are in the table."


def _price(inputs: AnswerInputs, row: Row, best: Row) -> str:
    gain, metric = row.versus_best, inputs.quality.name
    saved = saving(row, best, inputs.cost_name)
    against = _drop_shared_key(best.name, row.name)
    if not math.isfinite(gain.ci95):
        loss = plus_minus(0.0 - gain.value, gain.ci95)
        return f"Without a noise estimate: {row.name} costs {loss} {metric} against {against}{_and_saves(saved)}."
    if gain.is_significant:
        rest = _and_saves(saved) + _others(inputs, row, best)
        return f"{row.name} costs {plus_minus(-gain.value, gain.ci95)} {metric} against {against}{rest}."
    text = f"{row.name} and {against} cannot be told apart (difference {plus_minus(-gain.value, gain.ci95)} {metric})"
    if saved is None or abs(saved[0]) < ALIKE:
        return f"{text}."
    cheaper = row if saved[0] > 0 else best
    share = saved[0] if saved[0] > 0 else 1 - 1 / (1 - saved[0])
    less = "fewer" if _counted(saved[1]) else "less"
    return f"{text}: the cheaper is {cheaper.name}, with {share:.0%} {less} {saved[1]}."


def _counted(what: str) -> bool:
    return what not in {LABELS[metric] for metric in UNITS}


def _and_saves(saved: tuple[float, str] | None) -> str:
    if saved is None:
        return ""
    share, what = saved
    if abs(share) < ALIKE:
        return f" with as {'many' if _counted(what) else 'much'} {what}"
    return f" and saves {share:.0%} of the {what}" if share > 0 else f" and needs {-share:.0%} more {what}"


def _others(inputs: AnswerInputs, row: Row, best: Row) -> str:
    """Changes of further objectives, in per cent."""
    covered = {inputs.quality.name, inputs.cost_name, TRAINABLE if inputs.cost_name == ADAPTERS else ""}
    parts = [
        f"{goal.name} {row.values[goal.name] / best.values[goal.name] - 1:+.0%}"
        for goal in inputs.goals
        if goal.name not in covered and best.values[goal.name]
    ]
    return f" ({', '.join(parts)})" if parts else ""


def _controls(inputs: AnswerInputs) -> Iterator[str]:
    """Each control against the recommended configuration, and against the one of the search nearest in cost."""
    pick = next(row for row in inputs.searched if row.recommended)
    for control in (row for row in inputs.rows if row.role == "control"):
        text = f"Control {control.name} {_compare_control(inputs, control, pick)}"
        nearest = _nearest(control, inputs.searched)
        if nearest is not None and nearest is not pick:
            text += f"; at the nearest cost it {_compare_control(inputs, control, nearest)}"
        yield f"{text}."


def _wins(inputs: AnswerInputs, control: Row, rival: Row) -> bool:
    """Significantly better at no higher cost, or not distinguishable and cheaper."""
    gain, saved = inputs.gain(control, rival), saving(control, rival, inputs.cost_name)
    if saved is None or not math.isfinite(gain.ci95):
        return False
    return saved[0] > ALIKE if not gain.is_significant else gain.value > 0 and saved[0] >= -ALIKE


def _nearest(control: Row, searched: Sequence[Row]) -> Row | None:
    priced = [row for row in searched if row.cost]
    if not control.cost or not priced:
        return None
    cost = math.log(control.cost)
    return min(priced, key=lambda row: abs(math.log(row.cost or 1.0) - cost))


def _compare_control(inputs: AnswerInputs, control: Row, rival: Row) -> str:
    gain, saved = inputs.gain(control, rival), saving(control, rival, inputs.cost_name)
    by, rest = f"{plus_minus(abs(gain.value), gain.ci95)} {inputs.quality.name}", _and_saves(saved)
    dearer, cheaper = saved is not None and saved[0] < -ALIKE, saved is not None and saved[0] > ALIKE
    but = f", but{rest.removeprefix(' and')}"
    if not math.isfinite(gain.ci95):
        return f"is {by} {'better' if gain.value > 0 else 'worse'} than {rival.name}, without a noise estimate{rest}"
    if not gain.is_significant:
        difference = f"difference {plus_minus(gain.value, gain.ci95)} {inputs.quality.name}"
        wins = ": it wins on cost" if cheaper else ""
        return f"cannot be told apart from {rival.name} ({difference}){rest}{wins}"
    if gain.value > 0:
        return f"beats {rival.name} by {by}{but}" if dearer else f"wins over {rival.name} by {by}{rest}"
    return f"is worse than {rival.name} by {by}{but if cheaper else rest}"


def _noise(inputs: AnswerInputs) -> str:
    noise, metric = inputs.model.noise, inputs.quality.name
    if not noise.dof:
        return (
            f"Seed noise of {metric}: unknown (0 degrees of freedom). "
            "Run a configuration on a second seed to estimate it."
        )
    spread = f"{noise.spread_sd:.2g} {metric} over seeds ({_freedom(noise.spread_dof)})"
    if not noise.paired:
        return f"Seed noise: standard deviation {spread}, pooled over configurations."
    return (
        f"Seed noise: standard deviation {noise.sd:.2g} {metric} between trials of one seed, which share decoder init "
        f"and batch order ({_freedom(noise.dof)}), {spread}; pooled over configurations."
    )


def _measured(metric: str, noise: Noise) -> str:
    sd = f" (standard deviation {noise.spread_sd:.2g} over seeds, {_freedom(noise.spread_dof)})" if noise.dof else ""
    return (
        f"{metric} is a measurement: it is noisy{sd} and depends on what else ran on the machine, "
        "such as parallel trials."
    )


def _limits(inputs: AnswerInputs) -> str:
    return " and ".join(map(str, inputs.limits))


def _trials(number: int) -> str:
    return f"{number} finished trial{'s' if number != 1 else ''}"


def _freedom(dof: int) -> str:
    return f"{dof} degree{'s' if dof != 1 else ''} of freedom"


def _left_out(states: Mapping[State, int]) -> str:
    total = sum(states.values())
    words: dict[State, str] = {"PRUNED": "stopped early", "FAIL": "failed", "RUNNING": "did not end"}
    parts = [f"{states[state]} {word}" for state, word in words.items() if states.get(state)]
    text = (
        f"Of {total} trials, {' and '.join(parts)}: they are not compared here, but listed in the table of all trials."
    )
    return text if parts else ""


def _drop_shared_key(name: str, first: str) -> str:
    """A name that follows `first` in a sentence: `rho 0.95` becomes `0.95` after `rho 0.8`."""
    key, _, value = name.partition(" ")
    plain = "," not in name + first and name.count(" ") == first.count(" ") == 1
    return value if plain and first.partition(" ")[0] == key else name
