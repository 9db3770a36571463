"""The cut in a trial: what is kept, what the trace tells of it, and that the trial goes on from there."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from faar_ray.config.trial import TrialConfig
from faar_ray.errors import ConfigError
from faar_ray.export.rank_pattern import rank_pattern
from faar_ray.export.read import load_model, read_adapter_file
from faar_ray.models import merge
from faar_ray.records import MEASURED, EpochRecord, RankRecord
from faar_ray.storage.run_location import RunLocation, TrialPaths
from faar_ray.train.checkpoint import checkpoint_path, read_checkpoint
from faar_ray.train.fit import fit
from faar_ray.train.preflight import preflight
from faar_ray.train.runtimes.runtime import InProcess
from faar_ray.train.trial import Trial
from faar_ray.train.trial_spec import TrialSpec

RAW: dict[str, Any] = {
    "method": "dora",
    "data": {"tasks": ["semseg", "normals"], "image_size": 32, "train_images": 32, "val_images": 8, "test_images": 8},
    "backbone": {"pretrained": False},
    "ranks": {"kind": "spectral", "init_rank": 4, "budget": 0.6},
    "spectral": {"cut_epoch": 1, "score_batches": 3},
    "optim": {"epochs": 3, "batch_size": 8, "warmup_steps": 2, "lr": 5e-3, "decoder_lr": 6e-3},
}


def config(**dotted: Any) -> TrialConfig:
    return TrialConfig.resolve(RAW, **{key.replace("__", "."): value for key, value in dotted.items()})


def run(folder: Path, most: int | None = None, **dotted: Any) -> list[EpochRecord]:
    return list(islice(fit(TrialSpec("t", config(**dotted), RunLocation(folder), keep_checkpoints=9)), most))


def timeless(records: list[EpochRecord]) -> list[EpochRecord]:
    return [replace(r, metrics={k: v for k, v in r.metrics.items() if not k.startswith(MEASURED)}) for r in records]


def sizes_of(row: RankRecord) -> tuple[int, ...]:
    sizes: Any = row.extra["params_at_rank"]
    return tuple(sizes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[EpochRecord]]:
    """Cut to 0.6 at the end of epoch 1 of 3."""
    folder = tmp_path_factory.mktemp("spectral")
    return folder, run(folder)


def recomputed(rows: list[dict[str, Any]], budget: int, floor: int) -> list[int]:
    """The ranks of a cut to another budget, by the rows of the trace alone, component by component."""
    kept = [min(floor, row["rank_before"]) for row in rows]
    spent = sum(row["params_at_rank"][rank - 1] for row, rank in zip(rows, kept, strict=True))
    others = []
    for a, row in enumerate(rows):
        sizes = row["params_at_rank"]
        for k in range(kept[a], row["rank_before"]):
            cost = sizes[k] - sizes[k - 1]
            others.append((-row["importance"][k] / cost, a, k, cost))
    for _, a, _, cost in sorted(others):
        if spent + cost <= budget:
            kept[a] += 1
            spent += cost
    return kept


def test_the_trace_alone_gives_the_cut_at_this_budget_and_at_any_other(
    trained: tuple[Path, list[EpochRecord]], tmp_path: Path
) -> None:
    """The trace is read as a stranger would, and other budgets are then really cut."""
    folder, _ = trained
    table = pq.read_table(TrialPaths(folder, "t").trace).to_pylist()
    rows = [row for row in table if row["epoch"] == 1]
    full = sum(row["params_at_rank"][-1] for row in rows)
    assert {row["budget"] for row in rows} == {int(0.6 * full)}
    assert {row["floor"] for row in rows} == {1}
    assert [row["rank"] for row in rows] == recomputed(rows, int(0.6 * full), 1)
    assert len({row["rank"] for row in rows}) > 2
    for share, floor in ((0.4, 1), (0.8, 2)):
        records = run(tmp_path / str(share), 2, ranks__budget=share, spectral__floor=floor)
        assert [row.rank for row in records[1].ranks] == recomputed(rows, int(share * full), floor)


def test_the_trace_holds_scores_in_descending_order_and_singular_values_beside_them(
    trained: tuple[Path, list[EpochRecord]],
) -> None:
    _, records = trained
    for row in records[1].ranks:
        singular: Any = row.extra["singular_values"]
        assert len(row.importance) == len(singular) == row.rank_before == 4
        assert list(row.importance) == sorted(row.importance, reverse=True)
        assert min(singular) > 0
        assert (row.scope, row.rho, row.unobserved) == ("pooled", 1.0, 0)
    kept = sum(sum(row.importance[: row.rank]) for row in records[1].ranks)
    whole = sum(sum(row.importance) for row in records[1].ranks)
    (coverage,) = {row.coverage for row in records[1].ranks}
    assert coverage == pytest.approx(kept / whole)
    for record in (records[0], records[2]):
        assert all(row.extra == {} and not any(row.importance) for row in record.ranks)


def test_adapter_parameters_stay_within_the_budget_and_no_component_more_would(
    trained: tuple[Path, list[EpochRecord]],
) -> None:
    _, records = trained
    before, after = (records[epoch].metrics["params/adapters"] for epoch in (0, 1))
    assert after <= 0.6 * before
    costs = [
        sizes_of(row)[row.rank] - sizes_of(row)[row.rank - 1] for row in records[1].ranks if row.rank < row.rank_before
    ]
    assert after + min(costs) > 0.6 * before
    assert records[2].metrics["params/adapters"] == after
    assert records[1].metrics["rank/mean"] == sum(row.rank for row in records[1].ranks) / len(records[1].ranks)


def test_a_budget_in_parameters_is_the_share_of_it(trained: tuple[Path, list[EpochRecord]], tmp_path: Path) -> None:
    _, records = trained
    budget = int(0.6 * records[0].metrics["params/adapters"])
    assert [r.ranks for r in run(tmp_path, 2, ranks__budget=budget)] == [r.ranks for r in records[:2]]


@pytest.mark.parametrize("epochs", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_trial_that_is_cut_off_before_or_after_the_cut_ends_as_if_it_was_not(
    epochs: int, trained: tuple[Path, list[EpochRecord]], tmp_path: Path
) -> None:
    folder, whole = trained
    run(tmp_path, epochs)
    assert timeless(run(tmp_path)) == timeless(whole)
    states = [read_checkpoint(checkpoint_path(TrialPaths(where, "t").folder, 2)) for where in (folder, tmp_path)]
    for name, tensor in states[0]["model"].items():
        assert torch.equal(states[1]["model"][name], tensor)
    ours, theirs = (state["optimizer"]["state"] for state in states)
    assert all(torch.equal(ours[p][name], theirs[p][name]) for p in theirs for name in theirs[p])


@pytest.mark.parametrize("precision", ["fp16", pytest.param("bf16", marks=pytest.mark.slow)])
def test_it_trains_in_every_precision(precision: str, tmp_path: Path) -> None:
    records = run(tmp_path, 2, optim__precision=precision, spectral__cut_epoch=0)
    assert {row.rank for row in records[0].ranks} > {1}
    full = sum(sizes_of(row)[-1] for row in records[0].ranks)
    assert records[0].metrics["params/adapters"] <= 0.6 * full
    assert all(value == value for name, value in records[1].metrics.items() if name.startswith("train/"))


@pytest.mark.parametrize("over", [{"optim__accumulate": 2}, {"optim__loss_norm": "running_mean"}])
def test_it_trains_in_parts_and_with_normalised_losses(over: dict[str, Any], tmp_path: Path) -> None:
    records = run(tmp_path, 2, spectral__cut_epoch=0, **over)
    assert {row.rank for row in records[0].ranks} > {1}


def test_what_a_cut_trial_leaves_can_be_loaded_merged_and_exported(trained: tuple[Path, list[EpochRecord]]) -> None:
    folder, records = trained
    paths = TrialPaths(folder, "t")
    file = read_adapter_file(paths.adapter)
    assert list(file.ranks.values()) == [row.rank for row in records[-1].ranks]
    model = load_model(file, paths.adapter)
    trial = Trial(config(), InProcess("cpu"))
    trial.restore(read_checkpoint(checkpoint_path(paths.folder, 2)))
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = trial.model.eval()(image)
    for task, prediction in model(image).items():
        assert torch.equal(prediction, expected[task])
    for task, prediction in merge(model)(image).items():
        torch.testing.assert_close(prediction, expected[task], rtol=1e-3, atol=1e-4)
    pattern = rank_pattern(file.ranks, file.config)
    assert set(pattern["rank_pattern"].values()) == {row.rank for row in records[-1].ranks if row.task == "shared"}


def test_without_a_budget_all_components_stay_and_training_goes_on_in_the_new_basis(tmp_path: Path) -> None:
    records = run(tmp_path, ranks__budget=None)
    assert {row.rank for record in records for row in record.ranks} == {4}
    assert {row.coverage for row in records[1].ranks} == {1.0}


@pytest.mark.parametrize(
    ("dotted", "message"),
    [
        (
            {"ranks__budget": 0.01},
            r"ranks\.budget: must be at least 2\d,\d+ of [\d,]+ adapter parameters \(a share",
        ),
        ({"ranks__budget": 1000}, r"adapter at spectral\.floor, got 1,000"),
        ({"ranks__budget": 0.6, "spectral__floor": 4}, r"got 0\.6 = "),
    ],
)
def test_a_budget_that_the_floors_exceed_is_told_before_anything_starts(dotted: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        preflight(config(**dotted))
    with pytest.raises(ConfigError, match=message):
        Trial(config(**dotted), InProcess("cpu"))


@pytest.mark.parametrize(
    ("dotted", "message"),
    [
        ({"spectral__cut_epoch": 3}, r"spectral\.cut_epoch: must be below optim\.epochs = 3, or nothing is ever cut"),
        (
            {"ranks__budget": 1.5},
            r"a share, 0 < budget <= 1, or a whole number of parameters above 1, got 1\.5",
        ),
        ({"ranks__budget": 0}, r"must be a share, 0 < budget <= 1"),
        ({"adapter__kind": "none"}, r"ranks\.kind: must be fixed where adapter\.kind is none, got 'spectral'"),
        (
            {"method": "sinewich_1x1", "ranks__kind": "spectral", "sinewich__conv_size": 3},
            r"sinewich\.conv_size: must be 1 where adapters are rotated",
        ),
        (
            {"method": "faar_sinewich", "sinewich__conv_size": 3, "pdrs__basis": "spectral"},
            r"sinewich\.conv_size: must be 1 where adapters are rotated",
        ),
    ],
)
def test_what_does_not_fit_is_a_fault_of_the_config(dotted: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**dotted)


def test_a_cut_epoch_of_another_policy_is_not_read() -> None:
    assert config(ranks__kind="fixed", spectral__cut_epoch=9).spectral.cut_epoch == 9
