"""Final ranks over seeds: means, what differs beyond noise, what repeats; and the sentences and the map made of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from faar_ray.records import RankRecord
from faar_ray.report.plots.rank_map import plot_rank_map, rows_of, shades, tasks_of
from faar_ray.report.statistics.rank_answer import RankAnswer, grouping_of, parts_of, rank_answer
from faar_ray.report.words.answer import Answer
from faar_ray.report.words.rank_words import rank_sentences, recommended_ranks
from faar_ray.tracking.files.rank_trace import rank_table

TASKS = ("semseg", "human_parts", "normals")
LEVELS = {"qkv": 9.0, "proj": 6.0, "fc1": 8.0, "fc2": 6.0, "semseg": 4.0, "human_parts": 2.0, "normals": 5.0}
Rank = Callable[[int, int, str, str], float]


def level(stage: int, block: int, layer: str, task: str) -> float:
    return LEVELS[layer if task == "shared" else task] - stage


def adapters() -> Iterator[tuple[int, int, str, str]]:
    """Of a backbone of four stages of two blocks; tasks part in the second."""
    for stage, block, layer in product(range(4), range(2), ("qkv", "proj", "fc1", "fc2")):
        yield stage, block, layer, "shared"
        if block and layer != "qkv":
            yield from ((stage, block, layer, task) for task in TASKS)


def trace(seed: int, rank: Rank = level, noise: float = 0.0, initial: int = 16) -> pa.Table:
    """A trial of two epochs, cut after the second."""
    dice = np.random.default_rng(seed)
    rows = []
    for place in adapters():
        final = int(np.clip(round(rank(*place) + noise * dice.standard_normal()), 1, initial))
        for epoch, before, after in ((0, initial, initial), (1, initial, final)):
            scores = (1.0,) * before
            rows.append(RankRecord(epoch, *place, before, after, "adapter", 0.9, 0.9, scores, 0, 100))
    return rank_table(f"t000-s{seed}", rows)


def answer(*seeds: int, rank: Rank = level, noise: float = 0.0) -> RankAnswer:
    found = rank_answer("rho 0.8", {seed: trace(seed, rank, noise) for seed in seeds})
    assert found is not None
    return found


def grouping(ranks: RankAnswer, kind: str) -> dict[str, tuple[float, tuple[str, ...]]]:
    (of_kind,) = (one for one in ranks.groupings if one.kind == kind)
    return {group.name: (group.mean.value, group.above) for group in of_kind.groups}


def test_means_are_those_of_the_last_epoch_over_adapters_and_seeds() -> None:
    ranks = answer(0, 1, 2)
    assert ranks.adapters == 68
    places = list(adapters())
    assert ranks.overall.value == pytest.approx(np.mean([max(1, level(*place)) for place in places]))
    stages = grouping(ranks, "stage")
    assert stages["3"][0] == pytest.approx(np.mean([max(1, level(*place)) for place in places if place[0] == 3]))
    assert list(grouping(ranks, "layer")) == ["qkv", "proj", "fc1", "fc2"]
    assert list(grouping(ranks, "task")) == ["shared", "human_parts", "normals", "semseg"]


def test_without_any_noise_every_real_difference_is_one_and_equals_are_none() -> None:
    assert {name: above for name, (_, above) in grouping(answer(0, 1, 2), "task").items()} == {
        "shared": ("human_parts", "normals", "semseg"),
        "normals": ("human_parts", "semseg"),
        "semseg": ("human_parts",),
        "human_parts": (),
    }
    parts = {group.name: group.above for group in answer(0, 1, 2).parts.groups}
    assert "fc2" not in parts["proj"] and "proj" not in parts["fc2"]


def test_intervals_of_differences_are_tukeys_over_seeds_as_blocks() -> None:
    """Against the formula, from seed means taken out of the traces by hand."""
    seeds = (0, 1, 2, 3)
    ranks = answer(*seeds, noise=2.0)
    (stages,) = (one for one in ranks.groupings if one.kind == "stage")
    finals = {seed: [row for row in trace(seed, noise=2.0).to_pylist() if row["epoch"] == 1] for seed in seeds}
    means = np.array(
        [[np.mean([r["rank"] for r in finals[seed] if r["stage"] == stage]) for seed in seeds] for stage in range(4)]
    )
    rest = means - means.mean(1, keepdims=True) - means.mean(0) + means.mean()
    half = stats.studentized_range.ppf(0.95, 4, 9) * math.sqrt((rest**2).sum() / 9) / 2
    for of in stages.differences:
        more, less = int(of.more), int(of.less)
        assert of.gap.value == pytest.approx(means[more].mean() - means[less].mean())
        assert of.gap.ci95 == pytest.approx(half)
        assert of.gap.dof == 9
    assert [of.gap.value for of in stages.differences] == sorted(
        (of.gap.value for of in stages.differences), reverse=True
    )


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_among_equal_parts_a_difference_is_claimed_as_rarely_as_promised(seeds: int) -> None:
    """5% for all pairs of a kind together; pair by pair it would be several times as often."""
    dice, keys, runs = np.random.default_rng(0), list(adapters()), 300
    claimed = dict.fromkeys(("stage", "layer", "task", "part"), 0)
    for _ in range(runs):
        ranks_AS = np.clip(np.round(8 + 2 * dice.standard_normal((len(keys), seeds))), 1, 16)
        found = [grouping_of(kind, keys, ranks_AS) for kind in ("stage", "layer", "task")]
        for one in (*found, parts_of(keys, ranks_AS)):
            claimed[one.kind] += bool(one.significant)
    assert all(0.02 * runs < count < 0.09 * runs for count in claimed.values()), claimed


def test_repetition_is_the_mean_rank_correlation_of_the_adapters_between_seeds() -> None:
    ranks = answer(0, 1, 2, noise=1.0)
    of_seeds = [[row["rank"] for row in trace(seed, noise=1.0).to_pylist() if row["epoch"] == 1] for seed in (0, 1, 2)]
    expected = np.mean([stats.spearmanr(a, b).statistic for a, b in combinations(of_seeds, 2)])
    assert ranks.repeat == pytest.approx(expected)
    assert answer(0, 1).repeat == pytest.approx(1.0)
    assert math.isnan(answer(0).repeat)


def test_tasks_are_compared_over_the_layers_that_all_have() -> None:
    """`shared` keeps more in qkv alone, where no task has an adapter: that is no difference of tasks."""

    def only_qkv(stage: int, block: int, layer: str, task: str) -> float:
        return 12.0 if layer == "qkv" else 5.0

    assert all(above == () for _, above in grouping(answer(0, 1, 2, rank=only_qkv), "task").values())
    assert grouping(answer(0, 1, 2, rank=only_qkv), "layer")["qkv"][1] == ("proj", "fc1", "fc2")


def test_a_trial_without_adapters_has_no_answer() -> None:
    assert rank_answer("full_ft", {0: rank_table("t000-s0", [])}) is None
    assert rank_answer("full_ft", {}) is None


def test_words_name_who_keeps_most_and_fewest_and_whether_the_order_repeats() -> None:
    headline, rest = rank_sentences(answer(0, 1, 2, 3, 4, noise=0.5))
    assert headline.startswith("Ranks of rho 0.8 (68 adapters, 5 seeds): ")
    assert "; qkv (7.5 ± 0." in headline and "most, human parts (1." in headline and "fewest" in headline
    assert "The order of the adapters repeats over seeds (rank correlation 0.9" in headline
    assert rest.startswith("Stages: stage 0 above stage 3 by 2.")
    assert "; 6 of 6 pairs differ beyond noise. Layers: qkv above" in rest
    assert "Tasks: shared above human parts by" in rest


def test_words_claim_nothing_where_nothing_is_beyond_noise() -> None:
    def flat(stage: int, block: int, layer: str, task: str) -> float:
        return 8.0

    headline, rest = rank_sentences(answer(10, 11, 12, rank=flat, noise=2.0))
    assert "no layer or task keeps more than another beyond noise" in headline
    assert "does not repeat over seeds (rank correlation " in headline
    assert rest.count("cannot be told apart (widest difference") == 3


def test_of_one_seed_no_interval_is_given_and_that_is_said() -> None:
    headline, rest = rank_sentences(answer(3))
    assert "(68 adapters, one seed)" in headline
    assert "±" not in headline and "repeat" not in headline
    assert rest.startswith("One seed gives no interval")


def test_ranks_that_were_never_cut_are_said_to_be_what_they_began_with() -> None:
    def whole(stage: int, block: int, layer: str, task: str) -> float:
        return 16.0

    assert list(rank_sentences(answer(0, 1, rank=whole))) == [
        "Ranks of rho 0.8: all adapters kept the rank that they began with (16); nothing was cut."
    ]


@dataclass
class ShownRow:
    """What of a row of the answer's table decides whose ranks are told."""

    name: str
    role: str
    recommended: bool = False
    seeds: tuple[int, ...] = (0,)

    @property
    def trial_ids(self) -> tuple[str, ...]:
        return (self.name,)


def test_where_the_recommended_one_was_not_cut_the_ranks_are_those_of_the_best_that_was() -> None:
    whole, cut = trace(0, lambda *place: 16.0), trace(0)
    traces = {"trunk": whole, "point 27%": whole, "faar": cut, "point 15%": cut}
    rows = [ShownRow("point 27%", "trial"), ShownRow("trunk", "trial", True)]
    rows += [ShownRow("point 15%", "trial"), ShownRow("faar", "control")]

    def told(*shown: ShownRow) -> str | None:
        ranks = recommended_ranks(cast(Answer, SimpleNamespace(rows=shown)), traces.get)
        return None if ranks is None else ranks.name

    assert told(*rows) == "point 15%"
    assert told(*rows[:2], rows[3]) == "trunk"
    assert told(rows[0], rows[2], rows[3]) is None


def test_the_map_greys_what_cannot_be_told_from_the_mean_and_nothing_with_one_seed(tmp_path: Path) -> None:
    noisy = answer(0, 1, 2, noise=1.5)
    rows, tasks = rows_of(noisy), tasks_of(noisy)
    assert rows[:5] == [(0, "qkv"), (0, "proj"), (0, "fc1"), (0, "fc2"), (1, "qkv")]
    assert tasks[0] == "shared"
    drawn = shades(noisy, rows, tasks).round(3)
    colours = {cell: tuple(drawn[rows.index(cell[:2]), tasks.index(cell[2])]) for cell in noisy.cells}
    told = {cell for cell in noisy.cells if noisy.stands_out(cell)}
    assert (0, "qkv", "shared") in told and 0 < len(told) < len(noisy.cells)
    grey = (0.945, 0.949, 0.957, 1.0)
    assert {colours[cell] for cell in noisy.cells if cell not in told} == {grey}
    assert grey not in {colours[cell] for cell in told}

    alone = answer(0)
    assert len({tuple(colour) for row in shades(alone, rows, tasks) for colour in row}) > 4
    for ranks in (noisy, alone):
        plot_rank_map(ranks, tmp_path / "ranks.png")
        assert (tmp_path / "ranks.png").stat().st_size > 5000
