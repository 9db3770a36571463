"""The same steps on an accelerator: near those of the CPU in fp32 and in bf16, compiled or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from faar_ray.cluster.ray_cluster import connected
from faar_ray.config.trial import TrialConfig
from faar_ray.models import MultiTaskModel, adapter_list, build_model
from faar_ray.storage.run_location import RunLocation
from faar_ray.train.fit import fit
from faar_ray.train.runtimes.ray_train import TrainRun
from faar_ray.train.runtimes.runtime import InProcess
from faar_ray.train.step import train_step
from faar_ray.train.trial import Trial
from faar_ray.train.trial_spec import TrialSpec

pytestmark = pytest.mark.gpu
PATHS: dict[str, dict[str, Any]] = {
    "own": {"placement": {"task_path": "own"}},
    "shared": {"placement": {"task_path": "shared"}},
    "sines": {"method": "faar_sinewich", "sinewich": {"scale": 5.0}},  # a large s magnifies rounding
}


def moved(path: str, **dotted: Any) -> MultiTaskModel:
    """Away from its start, under a prefix."""
    raw = {"backbone": {"pretrained": False}, "ranks": {"init_rank": 6}, **PATHS[path]}
    model = build_model(TrialConfig.resolve(raw, **dotted)).eval()
    torch.manual_seed(0)
    for i, adapter in enumerate(adapter_list(model)):
        torch.nn.init.normal_(adapter.B_RO, std=0.05)
        adapter.mask_prefix(1 + i % 6)
    return model


def step(model: MultiTaskModel, forward: Any = None) -> dict[str, Tensor]:
    """Predictions and gradients of one step, on the CPU."""
    device = next(model.parameters()).device
    image = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)).to(device)
    model.zero_grad(set_to_none=True)
    predictions = (forward or model)(image)
    torch.stack([p.float().square().mean() for p in predictions.values()]).sum().backward()
    result = {task: p.detach() for task, p in predictions.items()}
    result |= {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: tensor.float().cpu() for name, tensor in result.items()}


@pytest.mark.parametrize("path", PATHS)
def test_fp32_is_near_the_cpu(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    expected = step(moved(path))
    result = step(moved(path).cuda())
    for name, value in expected.items():
        torch.testing.assert_close(result[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("path", PATHS)
def test_bf16_is_near_fp32(path: str) -> None:
    expected = step(moved(path))
    model = moved(path).cuda()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        result = step(model)
    ours, theirs = (torch.cat([of[name].flatten() for name in expected]) for of in (result, expected))
    assert torch.cosine_similarity(ours, theirs, dim=0) > 0.98


@pytest.mark.parametrize("path", PATHS)
def test_compiled_is_near_plain(path: str) -> None:
    model = moved(path).cuda()
    torch.compiler.reset()
    expected, result = step(model), step(model, torch.compile(model))
    for name, value in expected.items():
        torch.testing.assert_close(result[name], value, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("loss_norm", ["none", "running_mean"])
def test_a_step_waits_for_no_value(loss_norm: str) -> None:
    """torch raises where the host would wait for the device."""
    raw = {"data": {"train_images": 32, "val_images": 8}, "ranks": {"init_rank": 6}, "backbone": {"pretrained": False}}
    dotted = {"optim.batch_size": 8, "optim.loss_norm": loss_norm}
    made = Trial(TrialConfig.resolve(raw, **dotted), InProcess("cuda"))
    made.model.train()
    order = made.train_data.batches(batch_size=8, seed=0, epoch=0, train=True, device=made.runtime.device)
    for step, batch in enumerate(order):  # the first fills caches
        with waiting_is("error" if step else "default"):
            made.policy.sample_mask(0, step)
            train_step(made, batch, step)


@contextmanager
def waiting_is(mode: str) -> Iterator[None]:
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_trial_shrinks_and_learns(tmp_path: Path) -> None:
    raw = {"data": {"train_images": 48, "val_images": 24}, "ranks": {"init_rank": 6}, "pdrs": {"rho_shared": 0.7}}
    config = TrialConfig.resolve(raw, **{"optim.epochs": 3, "optim.batch_size": 16})
    first, *_, last = fit(TrialSpec("t", config, RunLocation(tmp_path)))
    assert last.metrics["train/loss"] < first.metrics["train/loss"]
    assert last.metrics["rank/mean"] < 6


def test_two_workers_share_an_accelerator(tmp_path: Path) -> None:
    raw = {"data": {"train_images": 48, "val_images": 24}, "ranks": {"init_rank": 6}, "pdrs": {"rho_shared": 0.7}}
    config = TrialConfig.resolve(raw, **{"optim.epochs": 2, "optim.batch_size": 16, "optim.precision": "bf16"})
    spec = TrialSpec("t", config, RunLocation(tmp_path), test=True, workers=2, gpus_per_worker=0.5, keep_checkpoints=1)
    with connected(None):
        first, last = TrainRun(spec).epochs()
    assert last.metrics["train/loss"] < first.metrics["train/loss"]
    assert last.metrics["rank/mean"] < 6


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_rotation_and_cut_there_go_on_training(precision: str, tmp_path: Path) -> None:
    raw = {
        "method": "dora",
        "data": {"image_size": 32, "train_images": 32, "val_images": 8, "test_images": 8},
        "backbone": {"pretrained": False},
        "ranks": {"kind": "spectral", "init_rank": 6, "budget": 0.5},
        "spectral": {"cut_epoch": 0, "score_batches": 3},
        "optim": {"epochs": 2, "batch_size": 8, "warmup_steps": 2, "precision": precision},
    }
    records = list(fit(TrialSpec("t", TrialConfig.resolve(raw), RunLocation(tmp_path)), InProcess("cuda")))
    assert len({row.rank for row in records[0].ranks}) > 2
    assert all(sum(row.importance) > 0 for row in records[0].ranks)
    assert records[1].metrics["train/loss"] > 0
