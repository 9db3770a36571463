"""Which rank each stage, layer and task of one configuration ended with, over its seeds, and what of that is noise.

Axes: A adapters, S seeds, G groups of adapters.

Differences are paired over seeds: a mean rank is modelled as group + seed + rest, and two groups differ beyond noise
where the simultaneous 95% interval of their difference leaves out 0: Tukey's honestly significant difference over all
pairs of a grouping, the rest pooled. A cell of the map differs from the mean of all adapters beyond noise by a
t-interval with Bonferroni's correction over all cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import stats

from faar_ray.report.statistics.noise import Estimate, mean_of, student

SHARED = "shared"
LAYERS = ("qkv", "proj", "fc1", "fc2")
LEVEL = 0.05
Array = NDArray[np.float64]
Key = tuple[int, int, str, str]
"""(stage, block, layer, task) of an adapter."""
Cell = tuple[int, str, str]
"""(stage, layer, task): its adapters of all blocks."""


@dataclass(frozen=True)
class Group:
    """Adapters of one stage, layer or task."""

    name: str
    adapters: int
    mean: Estimate
    """Of the final rank over its adapters and over seeds; the spread over seeds is pooled over its grouping."""
    above: tuple[str, ...]
    """Groups of its grouping that keep fewer components, beyond noise."""


@dataclass(frozen=True)
class Difference:
    """`more` minus `less`, in mean ranks; the interval holds for all pairs of the grouping at once."""

    more: str
    less: str
    gap: Estimate


@dataclass(frozen=True)
class Grouping:
    """All stages, all layers or all tasks."""

    kind: str
    """`stage`, `layer` or `task`."""
    groups: tuple[Group, ...]
    differences: tuple[Difference, ...]
    """Of all pairs, the widest first. Of tasks: over the layers that all of them have."""

    @property
    def significant(self) -> list[Difference]:
        """Those beyond noise."""
        return [difference for difference in self.differences if difference.gap.is_significant]


@dataclass(frozen=True)
class RankAnswer:
    """The final ranks of one configuration."""

    name: str
    seeds: tuple[int, ...]
    adapters: int
    overall: Estimate
    """Mean over all adapters."""
    groupings: tuple[Grouping, ...]
    parts: Grouping
    """Layers and tasks together: who keeps most, and who fewest."""
    repeat: float
    """Mean rank correlation of the adapters' ranks between two seeds; nan for one seed, or where all ranks are one."""
    cells: Mapping[Cell, Estimate]
    """Mean rank, with the half width of the interval of its difference from `overall`."""
    pattern: Mapping[str, int]
    """Place (`stage/block/layer/task`) of each adapter -> its mean rank over seeds, rounded, as `ranks.pattern` takes
    it."""
    unchanged: bool
    """Every adapter kept the rank that it began with."""
    initial: tuple[int, int]
    """The least and the largest of those."""

    def stands_out(self, cell: Cell) -> bool:
        """Whether a cell differs from the mean of all adapters beyond noise."""
        of = self.cells[cell]
        return Estimate(of.value - self.overall.value, of.ci95, of.dof).is_significant


def rank_answer(name: str, traces: Mapping[int, pa.Table]) -> RankAnswer | None:
    """The answer of one configuration.

    Args:
        name: of it, for people.
        traces: rank trace by seed, each to its last epoch.

    Returns:
        None where no trace has adapters.
    """
    finals = {seed: _ranks_at(trace, last=True) for seed, trace in sorted(traces.items()) if trace.num_rows}
    keys = sorted(set.intersection(*map(set, finals.values())), key=_depth) if finals else []
    if not keys:
        return None

    ranks_AS = np.array([[ranks[key] for ranks in finals.values()] for key in keys], dtype=np.float64)
    starts = [_ranks_at(traces[seed], last=False) for seed in finals]
    initial = [ranks[key] for ranks in starts for key in keys]
    unchanged = all(ranks[key] == finals[seed][key] for seed, ranks in zip(finals, starts, strict=True) for key in keys)
    of_kind = {kind: grouping_of(kind, keys, ranks_AS) for kind in NAMES}
    return RankAnswer(
        name=name,
        seeds=tuple(finals),
        adapters=len(keys),
        overall=mean_of(ranks_AS.mean(axis=0).tolist()),
        groupings=tuple(grouping for grouping in of_kind.values() if len(grouping.groups) > 1),
        parts=parts_of(keys, ranks_AS),
        repeat=_repeat(ranks_AS),
        cells=_cells(keys, ranks_AS),
        pattern=dict(zip(["/".join(map(str, key)) for key in keys], _rounded(ranks_AS), strict=True)),
        unchanged=unchanged,
        initial=(min(initial), max(initial)),
    )


def _rounded(ranks_AS: Array) -> list[int]:
    return [int(rank) for rank in np.rint(ranks_AS.mean(axis=1))]


def _ranks_at(trace: pa.Table, *, last: bool) -> dict[Key, int]:
    """Ranks after the last epoch, or before the first decision."""
    epoch = pc.max(trace["epoch"]) if last else pc.min(trace["epoch"])
    column = "rank" if last else "rank_before"
    rows = trace.filter(pc.equal(trace["epoch"], epoch)).select(["stage", "block", "layer", "task", column])
    return {(row["stage"], row["block"], row["layer"], row["task"]): row[column] for row in rows.to_pylist()}


def _depth(key: Key) -> tuple[int, int, int, str, bool, str]:
    stage, block, layer, task = key
    return stage, block, LAYERS.index(layer) if layer in LAYERS else len(LAYERS), layer, task != SHARED, task


NAMES: dict[str, Callable[[Key], str]] = {
    "stage": lambda key: str(key[0]),
    "layer": lambda key: key[2],
    "task": lambda key: key[3],
}


def grouping_of(kind: str, keys: Sequence[Key], ranks_AS: Array) -> Grouping:
    """All stages, layers or tasks; `ranks_AS` are the ranks of `keys`."""
    named = [NAMES[kind](key) for key in keys]
    order = sorted(dict.fromkeys(named), key=_place)
    compared = _common_layers(keys) if kind == "task" else [True] * len(keys)
    within = [name if inside else "" for name, inside in zip(named, compared, strict=True)]
    return _compare(kind, order, named, within, ranks_AS)


def parts_of(keys: Sequence[Key], ranks_AS: Array) -> Grouping:
    """Layers by the shared adapters, tasks by their own: no adapter is counted twice."""
    named = [key[2] if key[3] == SHARED else key[3] for key in keys]
    return _compare("part", sorted(dict.fromkeys(named), key=_place), named, named, ranks_AS)


def _place(name: str) -> tuple[bool, int, str]:
    """Layers in the order of a block, `shared` before the tasks."""
    return name != SHARED, LAYERS.index(name) if name in LAYERS else len(LAYERS), name


def _common_layers(keys: Sequence[Key]) -> list[bool]:
    """Whether an adapter's layer has one for every task, and a shared one where any such layer has."""
    tasks_of: dict[tuple[int, int, str], set[str]] = {}
    for key in keys:
        tasks_of.setdefault(key[:3], set()).add(key[3])
    most = max(tasks_of.values(), key=len)
    return [tasks_of[key[:3]] == most for key in keys]


def _compare(
    kind: str, order: Sequence[str], named: Sequence[str], compared: Sequence[str], ranks_AS: Array
) -> Grouping:
    """Groups with their means over all adapters, and differences over those that are compared."""
    means = {name: ranks_AS[[one == name for one in named]].mean(axis=0) for name in order}
    inside = {name: ranks_AS[[one == name for one in compared]].mean(axis=0) for name in order if name in compared}
    differences = sorted(_differences(inside), key=lambda difference: -difference.gap.value)
    half, dof = _half_width(np.array(list(means.values())))
    groups = []
    for name in order:
        above = [of.less for of in differences if of.more == name and of.gap.is_significant]
        mean = Estimate(float(means[name].mean()), half, dof)
        groups.append(Group(name, named.count(name), mean, tuple(sorted(above, key=order.index))))
    return Grouping(kind, tuple(groups), tuple(differences))


def _half_width(means_GS: Array) -> tuple[float, int]:
    """Half width of a group's 95% interval by the spread over seeds, pooled over the groups, and its freedom."""
    groups, seeds = means_GS.shape
    dof = groups * (seeds - 1)
    if not dof:
        return math.inf, 0
    return student(dof) * math.sqrt(float(means_GS.var(axis=1, ddof=1).mean()) / seeds), dof


def _differences(means: Mapping[str, Array]) -> Iterator[Difference]:
    """All pairs, with Tukey's intervals; infinite for one seed."""
    names, means_GS = list(means), np.array(list(means.values()))
    if len(names) < 2:
        return
    groups, seeds = means_GS.shape
    sd, dof = _rest(means_GS)
    half = _studentized_range(groups, dof) * sd / math.sqrt(seeds) if dof else math.inf
    for (i, a), (j, b) in combinations(enumerate(names), 2):
        gap = float((means_GS[i] - means_GS[j]).mean())
        more, less = (a, b) if gap >= 0 else (b, a)
        yield Difference(more, less, Estimate(abs(gap), half, dof))


def _rest(values_GS: Array) -> tuple[float, int]:
    """Standard deviation of what is left of groups over seeds without both means, and its degrees of freedom."""
    groups, seeds = values_GS.shape
    rest_GS = values_GS - values_GS.mean(axis=1, keepdims=True) - values_GS.mean(axis=0) + values_GS.mean()
    dof = (groups - 1) * (seeds - 1)
    return math.sqrt(float((rest_GS**2).sum()) / dof) if dof else math.nan, dof


@cache
def _studentized_range(groups: int, dof: int) -> float:
    return float(stats.studentized_range.ppf(1 - LEVEL, groups, dof))


def _repeat(ranks_AS: Array) -> float:
    """Mean over pairs of seeds."""
    seeds = [column for column in ranks_AS.T if np.ptp(column) > 0]
    pairs = [float(stats.spearmanr(a, b).statistic) for a, b in combinations(seeds, 2)]
    return float(np.mean(pairs)) if pairs else math.nan


def _cells(keys: Sequence[Key], ranks_AS: Array) -> dict[Cell, Estimate]:
    named: list[Cell] = [(stage, layer, task) for stage, _, layer, task in keys]
    order = list(dict.fromkeys(named))
    values_CS = np.array([ranks_AS[[one == cell for one in named]].mean(axis=0) for cell in order])
    cells, seeds = values_CS.shape
    sd, dof = _rest(values_CS)
    half = math.inf
    if dof:
        half = float(stats.t.ppf(1 - LEVEL / 2 / cells, dof)) * sd * math.sqrt((1 - 1 / cells) / seeds)
    return {cell: Estimate(float(values.mean()), half, dof) for cell, values in zip(order, values_CS, strict=True)}
