"""A trial of AdaLoRA: its trace, its end, and that a resumed one is bit for bit what an undisturbed one is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from pytest import TempPathFactory

from faar_ray.config.ranks.pattern import pattern_yaml
from faar_ray.config.trial import TrialConfig
from faar_ray.export.rank_pattern import rank_pattern
from faar_ray.models import adapter_list, merge
from faar_ray.records import EpochRecord
from tests.train.policies.trials import check_resume, config, exported, image, restored, run

KEYS = {"method": "adalora", "adalora.t_init": 2, "adalora.t_final": 3, "adalora.target_rank": 1.5}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: TempPathFactory) -> tuple[Path, list[EpochRecord]]:
    """Twelve steps: cuts from the third on, settled after the ninth."""
    folder = tmp_path_factory.mktemp("adalora")
    return folder, run(folder, KEYS)


def test_the_budget_is_spent_to_the_last_component_and_counted_when_it_is_dropped(
    trained: tuple[Path, list[EpochRecord]],
) -> None:
    _, records = trained
    rows = records[-1].ranks
    target = round(1.5 * len(rows))
    assert [row.extra["budget"] for row in rows] == [target] * len(rows)
    assert sum(row.rank for row in rows) == target
    assert min(row.rank for row in rows) == 0
    for record in records[:2]:
        assert {row.rank for row in record.ranks} == {4}  # all train, and count, to the end
    nonzero = [sum(int(str(row.extra["nonzero"])) for row in record.ranks) for record in records]
    assert 4 * len(rows) > nonzero[0] > nonzero[1] >= nonzero[2] == target
    for row in (*records[1].ranks, *rows):
        assert len(row.importance) == row.rank_before == 4
        assert list(row.importance) == sorted(row.importance, reverse=True)

    model = restored(trained[0], KEYS)
    sizes = {a.site: sum(f.shape[1] for f in a.factors) + 1 for a in adapter_list(model)}
    params = sum(a.rank * sizes[a.site] for a in adapter_list(model))
    assert records[-1].metrics["params/adapters"] == params == sum(row.params for row in rows)
    assert records[-1].metrics["train/loss"] < records[0].metrics["train/loss"]


@torch.no_grad()
def test_what_it_leaves_predicts_the_same_as_a_file_and_merged(trained: tuple[Path, list[EpochRecord]]) -> None:
    folder, records = trained
    expected, file = restored(folder, KEYS)(image()), exported(folder)
    merged = merge(file)
    for task, prediction in file(image()).items():
        assert torch.equal(prediction, expected[task])
        torch.testing.assert_close(merged(image())[task], prediction, rtol=1e-4, atol=1e-5)
    ranks = {f"{r.stage}/{r.block}/{r.layer}/{r.task}": r.rank for r in records[-1].ranks}
    section = pattern_yaml(ranks, "t")
    assert f"{[*ranks.values()].count(0)} that lost all components have 1" in section
    again = TrialConfig.resolve(yaml.safe_load(section)).ranks.pattern
    assert again == {place: max(1, rank) for place, rank in ranks.items()}
    pattern = rank_pattern(ranks, config(KEYS))
    assert min(pattern["rank_pattern"].values()) == 1  # HF PEFT has no rank 0
    assert {alpha / pattern["rank_pattern"][name] for name, alpha in pattern["alpha_pattern"].items()} == {16 / 4.00001}


def test_a_resumed_trial_is_bit_for_bit_what_an_undisturbed_one_is(
    trained: tuple[Path, list[EpochRecord]], tmp_path: Path
) -> None:
    folder, records = trained
    check_resume(tmp_path, KEYS, folder, records, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "over",
    [
        {"method": "mtlora", "ranks.kind": "adalora", "ranks.task_init_rank": 2},
        {"optim.precision": "fp16", "adalora.orthogonality": 0.0},
        {"backbone.name": "vit_tiny_patch16_224", "backbone.pyramid": "stages"},
        {"backbone.name": "tf_efficientnet_lite0", "backbone.pyramid": "stages", "adapter.kind": "dora"},
    ],
)
def test_it_trains_on_other_placements_backbones_and_in_half_precision(over: dict[str, object], tmp_path: Path) -> None:
    keys = {**KEYS, "data.image_size": 64, "adalora.target_rank": 1.0, **over}
    records = run(tmp_path, keys)
    assert sum(row.rank for row in records[-1].ranks) == len(records[-1].ranks)
    assert all(value == value for name, value in records[-1].metrics.items() if name.startswith("train/"))
