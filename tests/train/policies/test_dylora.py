"""A trial of DyLoRA: evaluated and left at the rank that the config names, with the curve over others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pytest import TempPathFactory

from faar_ray.export.rank_pattern import rank_pattern
from faar_ray.models import merge
from faar_ray.records import EpochRecord
from tests.train.policies.trials import check_resume, config, exported, image, restored, run

KEYS = {"method": "dylora", "dylora.rank": 2, "dylora.curve": [1, 2, 4]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: TempPathFactory) -> tuple[Path, list[EpochRecord]]:
    folder = tmp_path_factory.mktemp("dylora")
    return folder, run(folder, KEYS)


def test_epochs_are_evaluated_at_the_rank_that_the_last_one_cuts_to(trained: tuple[Path, list[EpochRecord]]) -> None:
    _, records = trained
    assert [{row.rank for row in record.ranks} for record in records] == [{4}, {4}, {2}]
    assert {row.extra["evaluated_rank"] for record in records for row in record.ranks} == {2}
    first, last = (record.metrics for record in (records[0], records[-1]))
    assert last["params/adapters"] == first["params/adapters"] / 2
    assert last["train/loss"] < first["train/loss"]
    assert not [name for name in first if name.startswith("rank_curve/")]
    measured = [name for name in last if name.startswith("val/")]
    curves = [[last[f"rank_curve/{b}/{name}"] for name in measured] for b in (1, 2, 4)]
    assert curves[1] == [pytest.approx(last[name], rel=1e-5) for name in measured]
    assert curves[0] != curves[1] != curves[2]


@torch.no_grad()
def test_what_it_leaves_predicts_the_same_as_a_file_and_merged(trained: tuple[Path, list[EpochRecord]]) -> None:
    folder, records = trained
    expected, file = restored(folder, KEYS)(image()), exported(folder)
    merged = merge(file)(image())
    for task, prediction in file(image()).items():
        assert torch.equal(prediction, expected[task])
        torch.testing.assert_close(merged[task], prediction, rtol=1e-4, atol=1e-5)
    ranks = {f"{r.stage}/{r.block}/{r.layer}/{r.task}": r.rank for r in records[-1].ranks}
    assert set(rank_pattern(ranks, config(KEYS))["alpha_pattern"].values()) == {16}


def test_a_resumed_trial_is_bit_for_bit_what_an_undisturbed_one_is(
    trained: tuple[Path, list[EpochRecord]], tmp_path: Path
) -> None:
    folder, records = trained
    check_resume(tmp_path, KEYS, folder, records, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "over",
    [
        {"method": "mtlora", "ranks.kind": "dylora", "ranks.task_init_rank": 2},
        {"method": "tadformer", "ranks.kind": "dylora", "dylora.frozen": False},
        {"backbone.name": "tf_efficientnet_lite0", "backbone.pyramid": "stages", "adapter.kind": "dora"},
    ],
)
def test_it_trains_on_other_placements_and_backbones(over: dict[str, object], tmp_path: Path) -> None:
    last = run(tmp_path, {**KEYS, "data.image_size": 64, **over})[-1]
    assert {row.rank for row in last.ranks} == {2}
    for name in [name for name in last.metrics if name.startswith("val/")]:
        assert last.metrics[f"rank_curve/2/{name}"] == pytest.approx(last.metrics[name], rel=1e-3)
