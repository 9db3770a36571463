"""Comparison with a finished sibling of the seed, and what masks of ranks have to do with any comparison."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from faar_ray.bench.replay.recorded import EPOCHS
from faar_ray.config.trial import TrialConfig
from faar_ray.errors import ConfigError
from faar_ray.objectives.metrics import Goal
from faar_ray.tune.propose.comparison import Compared, StoppingRule
from faar_ray.tune.propose.stopping_rules import MedianStopping, PairedStopping, SuccessiveHalving, compared_epochs
from faar_ray.tune.run.jobs import Job
from faar_ray.tune.show.dry_run import early_stopping_words
from faar_ray.tune.space.sections import MARGIN, SchedulerConfig
from faar_ray.tune.space.space import SearchSpace, read_space

Space = Callable[..., SearchSpace]
Drive = Callable[..., Any]
QUALITY: dict[str, Goal] = {"delta_m": "maximize"}
BOTH: dict[str, Goal] = {"trainable_params": "minimize", "delta_m": "maximize"}
GOOD = [-30.0, -25.0, -15.0, -8.0, -3.0, -1.0]


def rule(goals: dict[str, Goal] = QUALITY, **over: Any) -> PairedStopping:
    metric = "front" if len(goals) > 1 else next(iter(goals))
    return PairedStopping(SchedulerConfig(**{"type": "paired", "metric": metric, **over}), goals)


def told(stopping: StoppingRule, number: int, curve: list[Any], *, finished: bool = True, **facts: Any) -> list[int]:
    """A whole trial, one epoch after another; gives the numbers of epochs after which it would be stopped."""
    trial = Compared(f"t{number:03d}", **{"seed": 0, "epochs": len(curve), **facts})
    stopping.introduce(number, trial)
    stopped = []
    for epoch, values in enumerate(curve, 1):
        row = values if isinstance(values, list) else [values]
        if epoch < trial.epochs:
            stopping.record(number, epoch, row)
            if stopping.stop_reason(number, epoch, trial.epochs):
                stopped.append(epoch)
    if finished:
        stopping.finish(number, row)
    return stopped


def lower(by: float) -> list[float]:
    return [value - by for value in GOOD]


def test_a_trial_is_compared_with_a_finished_one_of_its_seed_from_epoch_4_of_6_on() -> None:
    paired = rule()
    assert told(paired, 0, GOOD) == []
    assert told(paired, 1, lower(9.0), seed=1) == []
    assert told(paired, 2, lower(9.0), finished=False) == [4, 5]
    assert paired.stop_reason(2, 4, 6) == (
        "delta_m -17 after 4 epochs: t000, of the same seed, had delta_m -8 then, and the margin is 2.5"
    )


def test_without_a_finished_sibling_nobody_is_stopped() -> None:
    paired = rule()
    assert told(paired, 0, GOOD, finished=False) == []
    assert told(paired, 1, lower(9.0)) == []


def test_behind_by_the_margin_is_not_behind() -> None:
    paired = rule(margin=2.0)
    told(paired, 0, GOOD)
    assert told(paired, 1, lower(2.0), finished=False) == []
    assert told(paired, 2, lower(2.1), finished=False) == [4, 5]


def test_whoever_leads_early_and_ends_worse_is_no_measure() -> None:
    """The sibling is the one that ended best, as it was then."""
    paired = rule()
    told(paired, 0, [-20.0, -9.0, -5.0, -2.0, -2.0, -2.0])
    told(paired, 1, GOOD)
    assert told(paired, 2, lower(1.0), finished=False) == []


def test_a_schedule_of_another_length_is_no_sibling() -> None:
    paired = rule()
    told(paired, 0, GOOD)
    assert told(paired, 1, [-40.0] * 7, finished=False) == []


def test_a_metric_that_is_no_number_is_behind() -> None:
    paired = rule()
    assert told(paired, 0, [math.nan] * 6) == []
    told(paired, 1, GOOD)
    assert told(paired, 2, [math.nan] * 6, finished=False) == [4, 5]


def test_a_smaller_loss_is_better_where_the_goal_says_so() -> None:
    paired = rule({"val/depth/rmse": "minimize"}, margin=0.1)
    told(paired, 0, [6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    assert told(paired, 1, [6.5, 5.5, 4.5, 3.5, 2.5, 1.5], finished=False) == [4, 5]
    assert told(paired, 2, [5.5, 4.5, 3.5, 2.5, 1.5, 0.5], finished=False) == []


def test_with_several_objectives_only_what_a_sibling_beats_in_all_is_behind() -> None:
    """Quality by more than the margin, and no other objective in which it would be better."""
    paired = rule(BOTH)
    told(paired, 0, [[2e5, value] for value in GOOD])
    told(paired, 1, [[9e4, value] for value in lower(1.0)])
    assert told(paired, 2, [[8e4, value] for value in lower(20.0)], finished=False) == []
    assert told(paired, 3, [[9e4, value] for value in lower(20.0)], finished=False) == [4, 5]
    assert told(paired, 4, [[3e5, value] for value in lower(3.4)], finished=False) == [4, 5]
    assert told(paired, 5, [[1e5, value] for value in lower(3.4)], finished=False) == []  # t000 is larger


@pytest.mark.parametrize("masked", [3, 4])
def test_nobody_is_compared_in_masked_epochs_that_end(masked: int) -> None:
    paired = rule(min_share=0.2)
    told(paired, 0, GOOD, unsettled=masked)
    assert told(paired, 1, lower(9.0), unsettled=masked, finished=False) == list(range(masked + 1, 6))
    assert told(paired, 2, lower(9.0), unsettled=0, finished=False) == list(range(masked + 1, 6))


def test_trials_that_are_masked_to_their_end_are_compared_with_each_other_alone() -> None:
    paired = rule()
    told(paired, 0, GOOD)
    assert told(paired, 1, lower(9.0), unsettled=6) == []
    assert told(paired, 2, lower(20.0), unsettled=6, finished=False) == [4, 5]


def test_asha_compares_masked_with_masked_and_no_rung_in_masked_epochs_that_end() -> None:
    config = SchedulerConfig(min_epochs=1, reduction=2)

    def stopped(*masked: int) -> list[list[int]]:
        halving = SuccessiveHalving(config, QUALITY)
        return [told(halving, number, lower(3.0 * number), unsettled=of) for number, of in enumerate(masked)]

    assert stopped(0, 0) == stopped(6, 6) == [[], [1, 2, 4]]
    assert stopped(0, 6) == [[], []]
    assert stopped(3, 3) == stopped(0, 3) == [[], [4]]
    assert stopped(2, 2) == [[], [4]]


def test_median_leaves_the_masked_epochs_out_of_everybodys_mean() -> None:
    config = SchedulerConfig(type="median", min_epochs=1, min_trials=1)
    masked = [-90.0, -90.0, -5.0, -4.0]
    assert told(MedianStopping(config, QUALITY), 0, masked, unsettled=2) == []
    for of_both, expected in ((2, [3]), (0, [])):
        median = MedianStopping(config, QUALITY)
        told(median, 0, masked, unsettled=of_both)
        # free after epoch 2: its -6 is worse than the other's -5, though better than the mean of all epochs
        assert told(median, 1, [-80.0, -80.0, -6.0, -4.0], unsettled=of_both) == expected


def test_ranks_are_unsettled_while_they_are_masked_or_to_be_cut() -> None:
    cases: list[tuple[dict[str, Any], int]] = [
        ({}, 6),
        ({"pdrs.free_epochs": 3}, 3),
        ({"method": "dora"}, 0),
        ({"method": "decoder_only"}, 0),
        ({"ranks.kind": "fixed", "pdrs.free_epochs": 3}, 0),
        ({"pdrs.mask_share": 0.0, "pdrs.free_epochs": 3}, 3),  # it still drops components
        ({"ranks.kind": "spectral"}, 0),
        ({"ranks.kind": "spectral", "ranks.budget": 0.3}, 6),
        ({"ranks.kind": "spectral", "ranks.budget": 0.3, "spectral.cut_epoch": 3}, 4),
    ]
    assert [TrialConfig.resolve({}, **dotted).unsettled_epochs for dotted, _ in cases] == [
        masked for _, masked in cases
    ]


def recorded_curves() -> dict[tuple[float, int], list[float]]:
    """delta_m by (rho, seed) and epoch, of eight real trials of six epochs with three free ones."""
    rows = pq.read_table(EPOCHS, columns=["rho", "seed", "epoch", "delta_m"]).to_pylist()
    curves: dict[tuple[float, int], list[float]] = {}
    for row in sorted(rows, key=lambda row: (row["rho"], row["seed"], row["epoch"])):
        curves.setdefault((row["rho"], row["seed"]), []).append(row["delta_m"])
    return curves


def test_on_recorded_trials_no_rule_stops_one_that_the_end_would_have_kept() -> None:
    """In masked epochs low rho is ahead, at the end high rho: asha at epoch 2 kept rho 0.5 alone, the worst."""
    curves = recorded_curves()

    def stopped(stopping: StoppingRule, unsettled: int) -> set[float]:
        return {
            rho
            for number, ((rho, seed), curve) in enumerate(curves.items())
            if told(stopping, number, curve, seed=seed, unsettled=unsettled)
        }

    asha = SchedulerConfig(min_epochs=2, reduction=2)
    assert max(curves, key=lambda key: curves[key][-1])[0] in stopped(SuccessiveHalving(asha, QUALITY), unsettled=0)
    assert stopped(SuccessiveHalving(asha, QUALITY), unsettled=3) != set()  # at epoch 4, in free epochs
    assert stopped(rule(), unsettled=3) == set()  # the worst came first, and nobody ended 2.5 behind at epoch 4


def test_the_default_margin_is_what_recorded_differences_changed_by_from_epoch_4_on() -> None:
    curves = recorded_curves()
    changes = [
        abs((a[5] - b[5]) - (a[3] - b[3]))
        for (x, seed), a in curves.items()
        for (y, other), b in curves.items()
        if seed == other and x < y
    ]
    assert len(changes) == 12
    assert round(max(changes), 1) == MARGIN


def test_a_search_stops_what_a_finished_sibling_beats(space: Space, driver: Drive) -> None:
    def train(job: Job, epoch: int) -> dict[str, float]:
        return {"delta_m": -40 * job.config.optim.lr * 1e3 + epoch, "trainable_params": 2e5 - epoch}

    searched = space(
        base={"optim": {"epochs": 6}},
        parameters={"optim.lr": {"values": [1e-3, 2e-3, 1.01e-3], "prior": 1e-3}},
        search={"sampler": "random"},
        scheduler={"type": "paired", "metric": "front"},
        warm_start={"points": [{"optim.lr": lr, "pdrs.rho_shared": 0.8} for lr in (2e-3, 1.01e-3)]},
        budget={"trials": 3},
    )
    first, second, third = driver(searched, train=train).run().proposer.results()
    assert [first.state, second.state, third.state] == ["COMPLETE", "PRUNED", "COMPLETE"]
    assert second.epochs == 4
    assert f"{first.trial_id}, of the same seed" in second.reason


def test_what_breaks_a_constraint_is_no_measure(space: Space, driver: Drive, tmp_path: Path) -> None:
    def train(job: Job, epoch: int) -> dict[str, float]:
        good = job.number == 0
        return {"delta_m": -1.0 if good else -30.0, "trainable_params": 2e5 if good else 1e5}

    def states(name: str, *limits: str) -> list[str]:
        searched = space(
            base={"optim": {"epochs": 6}},
            search={"sampler": "random"},
            scheduler={"type": "paired", "metric": "delta_m"},
            constraints=list(limits),
            budget={"trials": 2},
        )
        return [r.state for r in driver(searched, tmp_path / name, train=train).run().proposer.results()]

    assert states("free.log") == ["COMPLETE", "PRUNED"]
    assert states("bound.log", "trainable_params <= 1.5e5") == ["COMPLETE", "COMPLETE"]


SPACE: dict[str, Any] = {
    "version": 1,
    "name": "paired",
    "base": {"pdrs": {"start_epoch": 1, "free_epochs": 3}, "optim": {"epochs": 6}},
    "parameters": {"optim.lr": {"min": 1e-4, "max": 1e-2, "log": True}},
    "objectives": [{"name": "delta_m", "goal": "maximize"}, {"name": "trainable_params", "goal": "minimize"}],
    "scheduler": {"type": "paired", "metric": "front"},
}


def read(folder: Path, **over: Any) -> SearchSpace:
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump({**SPACE, **over}, sort_keys=False))
    return read_space(path)


@pytest.mark.parametrize(
    ("over", "fault"),
    [
        ({"scheduler": {"type": "paired"}},
         "19:1: scheduler.metric: must be given where scheduler.type is paired and there are several objectives"),
        ({"scheduler": {"type": "paired", "metric": "trainable_params"}},
         "19:1: scheduler.margin: must be given where scheduler.type is paired and compares trainable_params"),
        ({"scheduler": {"type": "paired", "metric": "front", "min_share": 0.95}},
         "22:3: scheduler.min_share: must be lower for 6 epochs"),
        ({"scheduler": {"type": "paired", "metric": "front", "margin": -1}},
         "22:3: scheduler.margin: must satisfy margin >= 0, got -1"),
        ({"base": {"pdrs": {"free_epochs": 1}, "optim": {"epochs": 6}}},
         "19:3: scheduler.type: cannot be paired where ranks are not settled up to epoch 5 of 6"),
    ],
)  # fmt: skip
def test_what_paired_cannot_do_is_said_at_its_line(over: dict[str, Any], fault: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, **over)
    assert len(error.value.faults) == 1
    assert f"space.yaml:{fault}" in str(error.value)


def test_a_dry_run_says_after_which_epochs_trials_are_compared(tmp_path: Path) -> None:
    asha = {"type": "asha", "min_epochs": 2, "reduction": 2}
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "early stopping: paired, after epochs 4, 5 of 6, once a trial of the same seed has finished"),
        ({"scheduler": {"type": "none"}}, ""),
        ({"scheduler": asha}, "early stopping: asha, after epochs 4 of 6; not after 2, when ranks are not settled yet"),
        ({"scheduler": asha, "base": {"method": "dora"}}, "early stopping: asha, after epochs 2, 4 of 6"),
        ({"scheduler": {**asha, "type": "hyperband"}}, "early stopping: hyperband, after epochs 4 of 6 (of the first"),
    ]
    for over, words in cases:
        space = read(tmp_path, **over)
        assert early_stopping_words(space).startswith(words)
    assert compared_epochs(read(tmp_path)) == ([4, 5], [])
