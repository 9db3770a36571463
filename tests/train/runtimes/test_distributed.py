"""Two workers on half a batch each are one process on the whole batch: weights, ranks, metrics, over shrinks."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from faar_ray.config.trial import TrialConfig
from faar_ray.errors import StorageError
from faar_ray.records import MEASURED, EpochRecord, RankRecord
from faar_ray.storage.run_location import RunLocation
from faar_ray.train.checkpoint import checkpoint_path
from faar_ray.train.fit import fit
from faar_ray.train.runtimes.distributed import Disagreement, Distributed
from faar_ray.train.trial_spec import TrialSpec
from tests.process_group import leave

RAW: dict[str, Any] = {
    # 46 images in batches of 12: the last one holds 10; human parts are missing from some images
    "data": {"tasks": ["semseg", "human_parts", "saliency", "normals", "depth"], "image_size": 32,
             "train_images": 46, "val_images": 21, "test_images": 8},
    "backbone": {"pretrained": False},
    "ranks": {"init_rank": 6}, "pdrs": {"rho_shared": 0.7, "beta": 0.9},
    "optim": {"epochs": 3, "batch_size": 12, "lr": 5e-3, "decoder_lr": 6e-3, "warmup_steps": 2},
}  # fmt: skip
REFERENCES = {"semseg": 30.0, "human_parts": 20.0, "saliency": 40.0, "normals": 30.0, "depth": 1.0}
Found = tuple[list[EpochRecord], dict[str, Tensor]]


def worker(rank: int, workers: int, folder: Path, dotted: dict[str, Any], epochs: int | None) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store{epochs}", rank=rank, world_size=workers)
    records = train(folder, dotted, epochs, Distributed(torch.device("cpu")))
    if rank == 0:
        (folder / "records.pkl").write_bytes(pickle.dumps(records))
    leave()


def train(folder: Path, dotted: dict[str, Any], epochs: int | None, runtime: Any = None) -> list[EpochRecord]:
    config = TrialConfig.resolve(RAW, **dotted)
    records = []
    for record in fit(TrialSpec("t", config, RunLocation(folder), references=REFERENCES), runtime):
        records.append(record)
        if len(records) == epochs:
            break
    return records


def run(folder: Path, workers: int, dotted: dict[str, Any], epochs: int | None = None) -> Found:
    folder.mkdir(exist_ok=True)
    if workers == 1:
        records = train(folder, dotted, epochs)
    else:
        spawn(worker, (workers, folder, dotted, epochs), nprocs=workers)
        records = pickle.loads((folder / "records.pkl").read_bytes())
    last = torch.load(checkpoint_path(folder / "trials" / "t", records[-1].epoch), weights_only=True)
    return records, last["model"]


def compare(ours: Found, theirs: Found, *, rtol: float, atol: float) -> None:
    for a, b in zip(ours[0], theirs[0], strict=True):
        assert [row.rank for row in a.ranks] == [row.rank for row in b.ranks]
        values = {name: value for name, value in b.metrics.items() if not name.startswith(MEASURED)}
        assert {name: a.metrics[name] for name in values} == pytest.approx(values, rel=rtol, abs=atol)
    assert ours[1].keys() == theirs[1].keys()
    for name, tensor in theirs[1].items():
        torch.testing.assert_close(ours[1][name], tensor, rtol=rtol, atol=atol)


@pytest.mark.parametrize("method", ["faar", pytest.param("pdrs_lora", marks=pytest.mark.slow), "faar_sinewich"])
def test_in_fp64_two_workers_equal_one(method: str, tmp_path: Path) -> None:
    exact = {"method": method, "optim.precision": "fp64"}
    one, two = (run(tmp_path / str(workers), workers, exact) for workers in (1, 2))
    assert one[0][-1].metrics["rank/mean"] < one[0][0].ranks[0].rank_before
    compare(two, one, rtol=1e-8, atol=1e-8)


def test_in_fp64_two_workers_rotate_and_cut_as_one(tmp_path: Path) -> None:
    """Each scores its part of the batches; after the cut both train the same components on."""
    cut = {"method": "dora", "ranks.kind": "spectral", "ranks.budget": 0.5, "spectral.score_batches": 3}
    cut |= {"spectral.cut_epoch": 0, "optim.precision": "fp64", "optim.epochs": 2}
    one, two = (run(tmp_path / str(workers), workers, cut) for workers in (1, 2))
    assert len({row.rank for row in one[0][0].ranks}) > 2
    compare(two, one, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("own", [{"method": "adalora", "adalora.t_final": 2}, {"method": "dylora", "dylora.rank": 2}])
def test_in_fp64_two_workers_of_a_rank_policy_equal_one(own: dict[str, Any], tmp_path: Path) -> None:
    """A penalty counts once; scores of entries, and the one rank of a step, are the same on both."""
    exact = {"optim.precision": "fp64", "optim.epochs": 2, **own}
    one, two = (run(tmp_path / str(workers), workers, exact) for workers in (1, 2))
    assert one[0][-1].metrics["rank/mean"] < 6
    compare(two, one, rtol=1e-6, atol=1e-7)


def test_in_fp64_two_workers_hold_the_running_means_of_one(tmp_path: Path) -> None:
    normed = {"optim.loss_norm": "running_mean", "optim.precision": "fp64", "optim.epochs": 1}
    one, two = (run(tmp_path / str(workers), workers, normed) for workers in (1, 2))
    compare(two, one, rtol=1e-8, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mtlora", "mtlora_plus", "tadformer", "tadformer_release"])
def test_two_workers_do_not_wait_for_gradients_of_dead_parameters(method: str, tmp_path: Path) -> None:
    exact = {"method": method, "adapter.dropout": 0.0, "optim.precision": "fp64", "optim.epochs": 1}
    one, two = (run(tmp_path / str(workers), workers, exact) for workers in (1, 2))
    assert any("unused" in name for name in one[1])
    compare(two, one, rtol=1e-8, atol=1e-8)


@pytest.mark.slow
def test_two_workers_equal_one_over_batch_norms_of_a_backbone(tmp_path: Path) -> None:
    network = {"backbone.name": "test_efficientnet", "backbone.pyramid": "stages", "backbone.drop_path": 0.0}
    exact = {**network, "optim.precision": "fp64", "optim.epochs": 1}
    one, two = (run(tmp_path / str(workers), workers, exact) for workers in (1, 2))
    assert any("bn1.running_mean" in name for name in one[1])
    compare(two, one, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_two_workers_equal_one_over_warped_spectra_beside_numbers_that_reach_nothing(tmp_path: Path) -> None:
    short = {"optim.epochs": 1, "data.train_images": 24, "data.tasks": ["semseg", "depth"], "adapter.dropout": 0.0}
    exact = {"method": "ditask_release", "optim.precision": "fp64", **short}
    one, two = (run(tmp_path / str(workers), workers, exact) for workers in (1, 2))
    compare(two, one, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("over", [{"sinewich.modulation": "none"}, {"sinewich.phi": "frozen"}])
def test_two_workers_equal_one_whatever_the_clock_and_phi(over: dict[str, Any], tmp_path: Path) -> None:
    exact = {"method": "free_sinewich", "optim.precision": "fp64", "optim.epochs": 1, **over}
    one, two = (run(tmp_path / str(workers), workers, exact) for workers in (1, 2))
    compare(two, one, rtol=1e-5, atol=1e-6)  # Adam divides gradients near 0 by themselves


@pytest.mark.slow
def test_workers_that_compute_a_step_in_parts_hold_the_same_bases(tmp_path: Path) -> None:
    """A base's gradient comes at the step's end, after all parts: it must be reduced like any other."""
    dotted = {"method": "faar_sinewich", "optim.accumulate": 2, "optim.epochs": 2}
    records, _ = run(tmp_path, 2, dotted)  # workers compare scores and ranks at every epoch's end, and raise
    assert any(row.rank < row.rank_before for row in records[-1].ranks if row.layer.endswith("_awb"))


def test_in_fp32_two_workers_have_the_ranks_of_one_and_metrics_nearby(tmp_path: Path) -> None:
    tame = {"optim.lr": 1e-4, "optim.decoder_lr": 2e-4, "optim.epochs": 2}
    one, two = (run(tmp_path / str(workers), workers, tame) for workers in (1, 2))
    for ours, theirs in zip(two[0], one[0], strict=True):
        pairs = [pair for pair in zip(ours.ranks, theirs.ranks, strict=True) if not near_threshold(pair[1])]
        assert len(pairs) > 0.8 * len(theirs.ranks)
        assert [row.rank for row, _ in pairs] == [row.rank for _, row in pairs]
    values = {name: value for name, value in one[0][-1].metrics.items() if not name.startswith(MEASURED)}
    assert {name: two[0][-1].metrics[name] for name in values} == pytest.approx(values, rel=1e-3, abs=0.05)  # mIoU in %


def near_threshold(row: RankRecord) -> bool:
    """Whether rounding may decide a rank: a cumulative share of the scores lies next to rho."""
    cumulative = torch.tensor(row.importance, dtype=torch.float64).cumsum(0)
    return bool((cumulative / cumulative[-1] - row.rho).abs().min() < 1e-3)


def disagree(rank: int, workers: int, folder: Path) -> None:
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=workers)
    runtime = Distributed(torch.device("cpu"))
    runtime.assert_same("ranks", torch.tensor([3, 5]))
    try:
        runtime.assert_same("ranks", torch.tensor([3, 5 + rank]))
    except Disagreement as fault:
        (folder / f"said-{rank}").write_text(str(fault))
    leave()


def test_workers_that_hold_different_ranks_all_say_so(tmp_path: Path) -> None:
    spawn(disagree, (2, tmp_path), nprocs=2)
    assert ["disagree on ranks" in (tmp_path / f"said-{rank}").read_text() for rank in range(2)] == [True, True]


def failing(rank: int, workers: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=workers)
    runtime = Distributed(torch.device("cpu"))
    try:
        list(fit(TrialSpec("t", TrialConfig.resolve(RAW), RunLocation(folder)), runtime))
    except StorageError as fault:
        (folder / f"told-{rank}").write_text(str(fault))
    leave()


def test_a_storage_that_the_first_worker_cannot_write_is_told_by_all(tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / "t").write_text("in the way")
    spawn(failing, (2, tmp_path), nprocs=2)
    message = {(tmp_path / f"told-{rank}").read_text() for rank in (0, 1)}
    assert message == {f"storage.path: {tmp_path}/trials/t/config.yaml cannot be written (File exists)"}
