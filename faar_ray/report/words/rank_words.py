"""The sentences about ranks: who keeps most components, what of it is beyond noise, and whether it repeats."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pyarrow as pa

from faar_ray.report.statistics.noise import Estimate
from faar_ray.report.statistics.rank_answer import SHARED, Group, Grouping, RankAnswer, rank_answer
from faar_ray.report.statistics.table import Row
from faar_ray.report.words.answer import Answer
from faar_ray.report.words.wording import plus_minus

REPEATS, IN_PART = 0.8, 0.5
"""Rank correlations between seeds from which on an order repeats, and repeats in part."""
KINDS = {"stage": "Stages", "layer": "Layers", "task": "Tasks"}


def rank_sentences(ranks: RankAnswer) -> Iterator[str]:
    """First who keeps most and fewest and whether that repeats, then what differs beyond noise."""
    if ranks.unchanged:
        least, most = ranks.initial
        kept = str(most) if least == most else f"{least} to {most}"
        yield f"Ranks of {ranks.name}: all adapters kept the rank that they began with ({kept}); nothing was cut."
        return

    yield _headline(ranks)
    if ranks.overall.dof:
        yield " ".join(map(_differences, ranks.groupings))
    else:
        yield "One seed gives no interval, and does not tell what of this is noise: search.replicates runs more."


def recommended_ranks(answer: Answer, trace_of: Callable[[str], pa.Table | None]) -> RankAnswer | None:
    """The ranks of the configuration that the answer recommends; where nothing was cut, of the best that was cut.

    Args:
        answer: of the search.
        trace_of: gives the rank trace of a trial id, None where it is not here.
    """

    def ranks_of(row: Row) -> RankAnswer | None:
        traces = {seed: trace_of(trial) for seed, trial in zip(row.seeds, row.trial_ids, strict=True)}
        return rank_answer(row.name, {seed: trace for seed, trace in traces.items() if trace is not None})

    recommended = next((row for row in answer.rows if row.recommended), None)
    own = None if recommended is None else ranks_of(recommended)
    if own is None or not own.unchanged:
        return own
    others = (ranks_of(row) for row in answer.rows if row is not recommended and row.role != "control")
    return next((ranks for ranks in others if ranks is not None and not ranks.unchanged), own)


def part_name(name: str) -> str:
    """A layer's or task's name in a sentence."""
    return name.replace("_", " ")


def group_title(kind: str, name: str) -> str:
    """A group's name where its kind is not said."""
    if kind == "stage":
        return f"stage {name}"
    return "shared" if name == SHARED else part_name(name)


def _headline(ranks: RankAnswer) -> str:
    seeds = f"{len(ranks.seeds)} seeds" if len(ranks.seeds) > 1 else "one seed"
    mean = format_components(ranks.overall)
    text = f"Ranks of {ranks.name} ({ranks.adapters} adapters, {seeds}): {mean} components on average"
    order = sorted(ranks.parts.groups, key=lambda group: group.mean.value)
    fewest, most = order[0], order[-1]
    if ranks.overall.dof and fewest.name not in most.above:
        text += "; no layer or task keeps more than another beyond noise"
    elif fewest is not most:
        text += f"; {_of(most)} most, {_of(fewest)} fewest"
    if math.isnan(ranks.repeat):
        return f"{text}."
    how = (
        "repeats over seeds"
        if ranks.repeat >= REPEATS
        else "repeats in part over seeds"
        if ranks.repeat >= IN_PART
        else "does not repeat over seeds"
    )
    return f"{text}. The order of the adapters {how} (rank correlation {ranks.repeat:.2f})."


def _of(group: Group) -> str:
    return f"{part_name(group.name)} ({format_components(group.mean)})"


def format_components(mean: Estimate) -> str:
    """A mean rank with its interval, where there is one."""
    return plus_minus(mean.value, mean.ci95) if math.isfinite(mean.ci95) else f"{mean.value:.1f}"


def _differences(grouping: Grouping) -> str:
    """The widest difference of a grouping that is beyond noise, and how many are."""
    kind, beyond, pairs = KINDS[grouping.kind], grouping.significant, len(grouping.differences)
    if not pairs:
        return f"{kind}: no layer has all of them, so they are not compared."
    widest = (beyond or grouping.differences)[0]
    gap = plus_minus(widest.gap.value, widest.gap.ci95)
    if not beyond:
        return f"{kind}: cannot be told apart (widest difference {gap})."
    more, less = (group_title(grouping.kind, name) for name in (widest.more, widest.less))
    rest = "" if pairs == 1 else f"; {len(beyond)} of {pairs} pairs differ beyond noise"
    return f"{kind}: {more} above {less} by {gap}{rest}."
