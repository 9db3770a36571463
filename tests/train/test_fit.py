"""The loop: deterministic, resumable at any epoch, and it learns."""

from __future__ import annotations

import math
import os
import pickle
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open

from faar_ray.config.trial import DataConfig, TrialConfig
from faar_ray.data import DenseDataset, SplitData, load_datasets
from faar_ray.data.datasets import Split
from faar_ray.errors import ConfigError, DataError
from faar_ray.objectives.metrics import PARTS
from faar_ray.records import MEASURED, EpochRecord
from faar_ray.storage.run_location import RunLocation, TrialPaths
from faar_ray.train.checkpoint import checkpoint_path
from faar_ray.train.finite import NonFiniteLoss
from faar_ray.train.fit import fit
from faar_ray.train.preflight import check_compiler
from faar_ray.train.trial_spec import TrialSpec

SMALL: dict[str, Any] = {
    "data": {"train_images": 48, "val_images": 24, "test_images": 24, "image_size": 32},
    "backbone": {"drop_path": 0.2, "pretrained": False},  # any weights do here
    "ranks": {"init_rank": 6},
    "pdrs": {"rho_shared": 0.7, "beta": 0.9},
    "optim": {"epochs": 4, "batch_size": 16, "lr": 5e-3, "decoder_lr": 6e-3, "warmup_steps": 2},
}
REFERENCES = {"semseg": 30.0, "human_parts": 20.0, "normals": 30.0}


def paths(folder: Path) -> TrialPaths:
    return TrialPaths(folder, "t")


def checkpoint(folder: Path, epoch: int) -> Path:
    return checkpoint_path(paths(folder).folder, epoch)


def run(folder: Path, epochs: int | None = None, **dotted: Any) -> list[EpochRecord]:
    config = TrialConfig.resolve(SMALL, **dotted)
    records = fit(TrialSpec("t", config, RunLocation(folder), references=REFERENCES))
    return list(islice(records, epochs))


def on_test(config: TrialConfig, folder: Path) -> dict[str, float]:
    epochs = fit(TrialSpec("t", config, RunLocation(folder), test=True, test_references=REFERENCES))
    while True:
        try:
            next(epochs)
        except StopIteration as end:
            return dict(end.value)


def timeless(records: list[EpochRecord]) -> list[EpochRecord]:
    """Records without measured time and memory, the only metrics that may differ between equal runs."""
    return [replace(r, metrics={k: v for k, v in r.metrics.items() if not k.startswith(MEASURED)}) for r in records]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[EpochRecord]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, run(folder)


def trained_tensors(folder: Path, epoch: int) -> dict[str, Any]:
    state = torch.load(checkpoint(folder, epoch), weights_only=True)
    return {
        **state["model"],
        **{f"optimizer.{i}.{k}": v for i, s in state["optimizer"]["state"].items() for k, v in s.items()},
    }


@pytest.mark.parametrize("interrupted_after", [1, 2, 3])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    interrupted_after: int, undisturbed: tuple[Path, list[EpochRecord]], tmp_path: Path
) -> None:
    """Ranks, metrics, trace, weights and Adam's moments; drop-path draws from the global state."""
    folder, records = undisturbed
    run(tmp_path, epochs=interrupted_after)
    torch.rand(17)  # another process has another global state
    resumed = run(tmp_path)
    assert timeless(resumed) == timeless(records)
    assert pq.read_table(paths(tmp_path).trace).equals(pq.read_table(paths(folder).trace))
    ours, theirs = trained_tensors(tmp_path, 3), trained_tensors(folder, 3)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_a_finished_run_is_only_read(undisturbed: tuple[Path, list[EpochRecord]]) -> None:
    folder, records = undisturbed
    before = checkpoint(folder, 3).stat().st_mtime_ns
    assert run(folder) == records
    assert checkpoint(folder, 3).stat().st_mtime_ns == before


def test_ranks_shrink_and_the_trace_says_so(undisturbed: tuple[Path, list[EpochRecord]]) -> None:
    folder, records = undisturbed
    means = [r.metrics["rank/mean"] for r in records]
    assert means == sorted(means, reverse=True)
    assert means[-1] < 6
    params = [r.metrics["params/adapters"] for r in records]
    assert params == [sum(row.params for row in r.ranks) for r in records]
    table = pq.read_table(paths(folder).trace).to_pylist()
    assert len(table) == len({(row["epoch"], row["stage"], row["block"], row["layer"], row["task"]) for row in table})
    assert len(table) == 4 * len(records[0].ranks)
    for row in table:
        assert row["rank"] == row["rank_before"] or row["epoch"] >= 0
        assert len(row["importance"]) == row["rank_before"]


def test_metrics_have_the_names_of_the_contract(undisturbed: tuple[Path, list[EpochRecord]]) -> None:
    names = undisturbed[1][-1].metrics.keys()
    expected = {
        "delta_m", "trainable_params", "params/adapters", "train/loss", "train/loss/semseg", "val/semseg/miou",
        "val/human_parts/miou", "val/normals/mean_angle", "val/normals/rmse_angle", "rank/mean", "rank/weighted_mean",
        "rank/shared", "rank/normals", "rank/stage0", "rank/stage3", "time/step_ms", "time/epoch_s",
        "memory/peak_mb", *PARTS,
    }  # fmt: skip
    assert expected <= names


def test_the_parts_of_the_trained_parameters_add_up(undisturbed: tuple[Path, list[EpochRecord]]) -> None:
    metrics = undisturbed[1][-1].metrics
    assert sum(metrics[part] for part in PARTS) == metrics["trainable_params"]
    assert all(metrics[part] > 0 for part in PARTS)


def test_another_seed_gives_other_numbers(undisturbed: tuple[Path, list[EpochRecord]], tmp_path: Path) -> None:
    other = run(tmp_path, epochs=1, seed=1)
    assert other[0].metrics["train/loss"] != undisturbed[1][0].metrics["train/loss"]


def test_training_lowers_the_loss(undisturbed: tuple[Path, list[EpochRecord]]) -> None:
    losses = [r.metrics["train/loss"] for r in undisturbed[1]]
    assert losses[-1] < 0.9 * losses[0]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path) -> None:
    """A bit of a weight: torch loads it without a word."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0x10
    path.write_bytes(raw)


def of_another_format(path: Path) -> None:
    torch.save({"format": 1}, path)


def a_list(path: Path) -> None:
    torch.save([1, 2], path)


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.target),)


def a_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"format": 2, "model": Bomb(path.with_name("ran"))}))


def a_pickle_in_torchs_format(path: Path) -> None:
    torch.save({"format": 2, "model": Bomb(path.with_name("ran"))}, path)


@pytest.mark.parametrize(
    "damage", [cut, emptied, flipped, of_another_format, a_list, a_pickle, a_pickle_in_torchs_format]
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    damage: Callable[[Path], None],
    undisturbed: tuple[Path, list[EpochRecord]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.copytree(undisturbed[0], tmp_path / "t")
    newest = checkpoint(tmp_path / "t", 3)
    damage(newest)
    assert timeless(run(tmp_path / "t")) == timeless(undisturbed[1])
    assert str(newest) in caplog.text
    assert not newest.with_name("ran").exists()


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    run(tmp_path, epochs=1)
    trial = paths(tmp_path)
    trial.records.mkdir()
    part = trial.records / "epoch_0001.parquet"
    for path in (checkpoint(tmp_path, 1), trial.folder / "config.yaml", trial.trace, part):
        path.with_name(f".{path.name}.4711.tmp").write_bytes(b"half")
    run(tmp_path, epochs=2)
    assert sorted(tmp_path.rglob(".*.tmp")) == []


def test_a_damaged_trace_is_written_again_from_the_records(
    undisturbed: tuple[Path, list[EpochRecord]], tmp_path: Path
) -> None:
    shutil.copytree(undisturbed[0], tmp_path / "t")
    trace = paths(tmp_path / "t").trace
    cut(trace)
    run(tmp_path / "t")
    assert trace.read_bytes() == paths(undisturbed[0]).trace.read_bytes()


def test_no_good_checkpoint_at_all_is_an_error_that_names_each(tmp_path: Path) -> None:
    run(tmp_path, epochs=1)
    checkpoint(tmp_path, 0).write_bytes(b"not a checkpoint")
    with pytest.raises(DataError, match=r"none of 1 checkpoints can be read \(.*epoch_0000\.pt: .*delete the folder"):
        run(tmp_path)


def test_a_checkpoint_of_another_config_is_refused_naming_the_key(tmp_path: Path) -> None:
    run(tmp_path, epochs=1)
    with pytest.raises(ConfigError, match=r"pdrs\.beta: 0\.9 there, 0\.5 here"):
        run(tmp_path, **{"pdrs.beta": 0.5})


def test_checkpoints_beyond_keep_are_deleted(undisturbed: tuple[Path, list[EpochRecord]]) -> None:
    names = sorted(p.name for p in (paths(undisturbed[0]).folder / "checkpoints").iterdir())
    assert names == ["epoch_0002.pt", "epoch_0003.pt"]


def test_a_diverging_run_names_step_and_task(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLoss, match=r"step \d+: the loss of \w+ is (nan|inf)"):
        run(tmp_path, **{"optim.lr": 1e30, "optim.decoder_lr": 1e30, "optim.warmup_steps": 0})


def test_test_split_is_read_from_the_last_checkpoint(undisturbed: tuple[Path, list[EpochRecord]]) -> None:
    folder, _ = undisturbed
    config = TrialConfig.resolve(SMALL)
    metrics = on_test(config, folder)
    assert metrics.keys() >= {"test/delta_m", "test/semseg/miou"}
    assert metrics == on_test(config, folder)


def test_the_adapter_file_holds_what_was_trained_at_final_ranks(undisturbed: tuple[Path, list[EpochRecord]]) -> None:
    folder, records = undisturbed
    with safe_open(paths(folder).adapter, "pt") as file:
        sizes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    ranks = sorted(shape[0] for key, shape in sizes.items() if key.endswith("A_RI"))
    assert ranks == sorted(row.rank for row in records[-1].ranks)
    assert any(key.startswith("decoder.heads.semseg") for key in sizes)
    assert metadata["format"] == "faar_ray.adapter.1"
    assert TrialConfig.model_validate_json(metadata["config"]) == TrialConfig.resolve(SMALL)


@pytest.mark.parametrize("method", ["lora", "dora", "full_ft", "decoder_only", "free_sinewich"])
def test_every_method_trains_through_the_same_loop(method: str, tmp_path: Path) -> None:
    records = run(tmp_path, method=method, **{"optim.epochs": 1, "data.train_images": 16})
    assert records[0].metrics["delta_m"] < 100
    assert {row.rank for row in records[0].ranks} <= {6}


def test_single_task_is_full_training_of_one_task(tmp_path: Path) -> None:
    config = TrialConfig.resolve(
        SMALL, method="single_task", **{"data.tasks": ["normals"], "optim.epochs": 1, "data.train_images": 16}
    )
    records = list(fit(TrialSpec("ref", config, RunLocation(tmp_path))))
    assert records[0].ranks == ()
    assert "val/normals/mean_angle" in records[0].metrics


def close(ours: list[EpochRecord], theirs: list[EpochRecord]) -> None:
    """The same ranks, and losses as near as another order of sums leaves them.

    In fp64: in fp32 another order of sums moves a rank across its coverage threshold, on some processors.
    """
    for a, b in zip(ours, theirs, strict=True):
        assert [row.rank for row in a.ranks] == [row.rank for row in b.ranks]
        assert a.metrics["train/loss"] == pytest.approx(b.metrics["train/loss"], rel=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["faar", "faar_sinewich"])
def test_a_compiled_run_trains_as_a_plain_one(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the tracing half of torch.compile, with drop-path off; a shrink after each epoch."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    short = {"method": method, "optim.epochs": 2, "backbone.drop_path": 0.0, "optim.precision": "fp64"}
    close(run(tmp_path / "a", **short, **{"optim.compile": True}), run(tmp_path / "b", **short))


@pytest.mark.slow
@pytest.mark.nightly
def test_a_run_compiled_by_inductor_trains_as_a_plain_one(tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    short = {"optim.epochs": 1, "backbone.drop_path": 0.0, "optim.precision": "fp64"}
    close(run(tmp_path / "a", **short, **{"optim.compile": True}), run(tmp_path / "b", **short))


def test_without_a_compiler_a_compiled_run_is_refused_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import cpp_builder
    from torch._inductor.exc import InvalidCxxCompiler

    def none() -> str:
        raise InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    with pytest.raises(ConfigError, match=r"optim\.compile: must be false here"):
        check_compiler()


def test_a_task_without_labels_on_val_is_nan_in_every_record_also_of_a_resumed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_normals(config: DataConfig, splits: Sequence[Split], **_: Any) -> dict[Split, SplitData]:
        loaded = load_datasets(config, splits)
        assert isinstance(loaded["val"], DenseDataset)
        loaded["val"].stored["normals"][:] = 0
        return loaded

    monkeypatch.setattr("faar_ray.train.trial.load_datasets", without_normals)
    whole = run(tmp_path / "whole", **{"optim.epochs": 2})
    run(tmp_path / "cut", epochs=1, **{"optim.epochs": 2})
    resumed = run(tmp_path / "cut", **{"optim.epochs": 2})
    assert repr(timeless(resumed)) == repr(timeless(whole))
    assert repr(run(tmp_path / "cut", **{"optim.epochs": 2})) == repr(resumed)  # only read
    for record in resumed:
        lacking = {name for name, value in record.metrics.items() if math.isnan(value)}
        assert lacking == {"val/normals/mean_angle", "val/normals/rmse_angle", "delta_m"}
