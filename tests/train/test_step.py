"""One optimizer step: its order under mixed precision, and its parts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from faar_ray.config.trial import BackboneConfig, TrialConfig
from faar_ray.data import DenseDataset
from faar_ray.models.backbone import build_backbone
from faar_ray.ranks import PDRS, Importance
from faar_ray.records import EpochRecord
from faar_ray.tasks import delta_m
from faar_ray.train.evaluation import evaluate
from faar_ray.train.finite import NonFiniteGradient
from faar_ray.train.fit import end_epoch, run_epoch, train_epoch, warn_of_skips
from faar_ray.train.runtimes.runtime import InProcess
from faar_ray.train.step import train_step
from faar_ray.train.trial import Trial

RAW: dict[str, Any] = {
    "data": {"tasks": ["semseg", "normals", "depth"], "image_size": 32, "train_images": 20, "val_images": 8,
             "test_images": 8},
    "backbone": {"pretrained": False},
    "ranks": {"init_rank": 4},
    "optim": {"epochs": 2, "batch_size": 8, "warmup_steps": 2},
}  # fmt: skip


def trial(**dotted: Any) -> Trial:
    made = Trial(TrialConfig.resolve(RAW, **dotted), InProcess("cpu"))
    made.model.train()
    return made


def first_batch(made: Trial) -> dict[str, Tensor]:
    config = made.config
    return dict(next(iter(made.train_data.batches(batch_size=config.optim.batch_size, seed=0, epoch=0, train=True))))


def observed(made: Trial, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The order of what happens in a step, from here on."""
    output: list[str] = []
    for owner, name in (
        (made.scaler, "unscale_"),
        (made.policy, "observe"),
        (made.scaler, "step"),
        (made.scaler, "update"),
    ):
        real = getattr(owner, name)

        def told(*args: Any, real: Any = real, name: str = name) -> Any:
            output.append(name)
            return real(*args)

        monkeypatch.setattr(owner, name, told)
    clip = torch.nn.utils.clip_grads_with_norm_

    def told_clip(*args: Any) -> None:
        output.append("clip")
        clip(*args)

    monkeypatch.setattr("faar_ray.train.step.clip_grads_with_norm_", told_clip)
    return output


@pytest.mark.parametrize(
    ("precision", "scored"), [("fp32", "whole"), ("bf16", "whole"), ("fp16", "whole"), ("fp16", "clipped")]
)
def test_gradients_are_unscaled_then_scored_then_clipped(
    precision: str, scored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trial(**{"optim.precision": precision, "pdrs.scored_gradients": scored})
    made.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, enabled=precision == "fp16")
    output = observed(made, monkeypatch)
    made.policy.sample_mask(0, 0)
    losses = train_step(made, first_batch(made), 0)
    order = ["observe", "clip"] if scored == "whole" else ["clip", "observe"]
    assert output == ["unscale_", *order, "step", "update"]
    assert all(loss.isfinite() for loss in losses.values())


def test_scores_do_not_depend_on_the_loss_scale() -> None:
    scores = []
    for scale in (1.0, 64.0):
        made = trial(**{"optim.precision": "fp16"})
        made.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        torch.manual_seed(0)
        for adapter in made.adapters:
            nn.init.normal_(adapter.B_RO, std=0.05)
        made.policy.sample_mask(0, 0)
        train_step(made, first_batch(made), 0)
        scores.append(made.policy.state_for_agreement())
    assert scores[0].abs().max() > 0
    torch.testing.assert_close(scores[1], scores[0], rtol=2e-2, atol=1e-4)


def test_an_overflow_moves_neither_importance_nor_weights_and_halves_the_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    made = trial(**{"optim.precision": "fp16"})
    made.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    output = observed(made, monkeypatch)
    before = {name: p.detach().clone() for name, p in made.model.named_parameters()}
    made.policy.sample_mask(0, 0)
    train_step(made, first_batch(made), 0)
    assert output == ["unscale_", "step", "update"]
    assert not made.policy.state_for_agreement().any()
    assert all(torch.equal(p, before[name]) for name, p in made.model.named_parameters())
    assert made.scaler.get_scale() == 2.0**39
    assert (made.scheduler.last_epoch, made.skipped_steps) == (0, 1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("size", [1e25, torch.inf])
def test_finite_losses_with_gradients_of_no_finite_norm_end_the_trial(precision: str, size: float) -> None:
    """1e25 is finite, but its square is not: the norm is infinite, and clipping made every gradient 0."""
    made = trial(**{"optim.precision": precision})
    name, parameter = next((n, p) for n, p in made.model.named_parameters() if p.requires_grad)
    before = parameter.detach().clone()
    parameter.register_hook(lambda gradient: torch.full_like(gradient, size))
    made.policy.sample_mask(0, 3)
    words = "is inf" if size == torch.inf else r"is as large as 1\.0e\+25"
    with pytest.raises(NonFiniteGradient, match=f"step 3: the losses are finite, but the gradient of {name} {words}"):
        train_step(made, first_batch(made), 3)
    assert torch.equal(parameter, before)


def test_weights_with_a_row_near_zero_are_said_at_the_step_whose_gradients_overflow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DoRA divides by the row's norm: once its adapter has moved, its gradient is about 1e25."""

    def build(config: BackboneConfig, image_size: int, seed: int) -> nn.Module:
        backbone = build_backbone(config, image_size, seed)
        with torch.no_grad():
            backbone.get_submodule("layers.0.blocks.0.mlp.fc1").weight[0] *= 1e-25
        return backbone

    monkeypatch.setattr("faar_ray.models.build.build_backbone", build)
    made = trial()
    batch = first_batch(made)
    made.policy.sample_mask(0, 0)
    train_step(made, batch, 0)
    made.policy.sample_mask(0, 1)
    named = "step 1: the losses are finite, but the gradient of backbone.layers.0.blocks.0.mlp.fc1.adapter"
    with pytest.raises(NonFiniteGradient, match=named):
        train_step(made, batch, 1)


def test_fp16_gradients_that_are_finite_without_a_finite_norm_are_no_matter_of_the_scale() -> None:
    made = trial(**{"optim.precision": "fp16"})
    made.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    parameter = next(p for p in made.model.parameters() if p.requires_grad)
    parameter.register_hook(lambda gradient: torch.full_like(gradient, 1e25))
    made.policy.sample_mask(0, 0)
    with pytest.raises(NonFiniteGradient, match="is as large as"):
        train_step(made, first_batch(made), 0)


def test_an_epoch_of_nothing_but_skips_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """The first epoch is all overflows; in the second the scale settles, and the learning rate moves by its steps."""
    made = trial(**{"optim.precision": "fp16"})
    made.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    metrics = run_epoch(made, 0, None).metrics
    assert metrics["train/skipped"] == 1.0
    assert made.scheduler.last_epoch == 0
    warn_of_skips(EpochRecord(0, metrics))
    made.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    metrics = run_epoch(made, 1, None).metrics
    assert metrics["train/skipped"] == 0.0
    assert made.scheduler.last_epoch == made.steps_per_epoch
    warn_of_skips(EpochRecord(1, metrics))
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["epoch 0"]
    assert "train/skipped" not in run_epoch(trial(), 0, None).metrics


def test_a_step_in_parts_is_the_step_in_one_under_one_mask() -> None:
    """Batch statistics aside, which are those of each part."""
    result = []
    for parts in (1, 3):
        made = trial(**{"optim.precision": "fp64", "optim.accumulate": parts})
        for module in made.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        made.policy.sample_mask(0, 0)
        losses = train_step(made, first_batch(made), 0)
        weights = {name: p.detach() for name, p in made.model.named_parameters() if p.requires_grad}
        result.append((losses, weights, made.policy.state_for_agreement()))
    torch.testing.assert_close(result[1], result[0], rtol=1e-9, atol=1e-11)


def test_parts_draw_one_mask_for_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    made = trial(**{"optim.accumulate": 2})
    draws: list[int] = []
    forwards: list[int] = []
    draw, forward = made.policy.sample_mask, made.forward

    def told_draw(epoch: int, step: int) -> None:
        draws.append(step)
        draw(epoch, step)

    def told_forward(image: Tensor) -> dict[str, Tensor]:
        forwards.append(len(image))
        return forward(image)

    monkeypatch.setattr(made.policy, "sample_mask", told_draw)
    monkeypatch.setattr(made, "forward", told_forward)
    train_epoch(made, 0)
    assert draws == [0, 1, 2]
    assert forwards == [4, 4, 4, 4, 2, 2]  # 20 images in batches of 8


BLANK = {"semseg": 255, "normals": 0}


def without_labels(made: Trial, task: str, rows: slice, split: str = "train_data") -> None:
    """Blank the labels of some images."""
    dataset = getattr(made, split)
    assert isinstance(dataset, DenseDataset)
    dataset.stored[task][rows] = BLANK[task]


def adapters_of(made: Trial, task: str) -> list[Importance]:
    assert isinstance(made.policy, PDRS)
    return [i for a, i in zip(made.adapters, made.policy.importance, strict=True) if a.site.task == task]


def test_a_task_without_labels_in_a_step_has_no_loss_and_moves_no_score() -> None:
    made = trial()
    for adapter in made.adapters:
        nn.init.normal_(adapter.B_RO, std=0.05)
    without_labels(made, "normals", slice(None))
    made.policy.sample_mask(0, 0)
    losses = train_step(made, first_batch(made), 0)
    assert losses["normals"].isnan()
    assert losses["semseg"].isfinite() and losses["depth"].isfinite()
    assert all(p.isfinite().all() for p in made.model.parameters())
    assert not any(i.evidence().observed_R.any() for i in adapters_of(made, "normals"))
    assert all(i.evidence().observed_R.any() for i in adapters_of(made, "depth"))


def test_the_mean_loss_is_that_of_the_steps_with_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    made = trial()
    given = iter([(1.0, math.nan, 2.0), (3.0, 5.0, 2.0), (2.0, math.nan, 5.0)])
    tasks = made.config.data.tasks
    monkeypatch.setattr(
        "faar_ray.train.fit.train_step", lambda *_: dict(zip(tasks, map(torch.tensor, next(given)), strict=True))
    )
    weight = {task: made.tasks[task].weight for task in tasks}
    expected = weight["semseg"] * 2 + weight["normals"] * 5 + weight["depth"] * 3
    losses = {f"train/loss/{task}": mean for task, mean in zip(tasks, (2, 5, 3), strict=True)}
    assert train_epoch(made, 0) == pytest.approx({"train/loss": expected, **losses})


def test_a_task_without_any_label_has_no_loss_no_metric_and_no_say_in_delta_m() -> None:
    made, plain = trial(), trial()
    for split, of in (("train", made.train_data), ("val", made.val_data)):
        without_labels(made, "normals", slice(len(of)), f"{split}_data")
    losses = train_epoch(made, 0)
    assert math.isnan(losses["train/loss/normals"])
    assert losses["train/loss"] == pytest.approx(losses["train/loss/semseg"] + losses["train/loss/depth"])

    references = {"semseg": 20.0, "normals": math.nan, "depth": 1.0}
    found = evaluate(plain, made.val_data, split="val", references=references)
    assert math.isnan(found["val/normals/mean_angle"]) and math.isnan(found["val/normals/rmse_angle"])
    of_others = {task: found[f"val/{task}/{made.tasks[task].metric}"] for task in ("semseg", "depth")}
    assert found["delta_m"] == delta_m(of_others, references, made.tasks)
    assert math.isnan(evaluate(plain, made.val_data, split="val", references=references | {"normals": 30.0})["delta_m"])


@pytest.mark.parametrize("method", ["faar", "pdrs_lora", "faar_sinewich"])
def test_the_first_step_in_which_b_is_zero_scores_no_component(method: str) -> None:
    made = trial(method=method)
    made.policy.sample_mask(0, 0)
    train_step(made, first_batch(made), 0)
    assert {(r.unobserved, r.rank) for r in end_epoch(made, 0)} == {(4, 4)}


@pytest.mark.parametrize("scope", ["adapter", "pooled"])
def test_coverage_of_one_drops_nothing_at_three_steps_an_epoch(scope: str) -> None:
    made = trial(**{"pdrs.rho_shared": 1.0, "pdrs.scope": scope})
    for epoch in range(2):
        train_epoch(made, epoch)
        assert {(r.rank, r.rho) for r in end_epoch(made, epoch)} == {(4, 1.0)}


def test_the_penalty_of_magnitudes_is_in_the_gradients_once_and_in_no_reported_loss() -> None:
    keys = {"adapter.magnitude_start": "drawn", "optim.clip": 1e9, "optim.accumulate": 2, "ranks.kind": "fixed"}
    results = []
    for rate in (0.0, 0.5):
        made = trial(**keys, **{"adapter.magnitude_penalty": rate})
        linear = made.model.backbone.layers[0].blocks[0].attn.qkv
        norm, m = linear.base.weight.norm(dim=1), linear.adapter.m_O.detach().clone()
        losses = train_step(made, first_batch(made), 0)
        results.append((losses, linear.adapter.m_O.grad))
    (plain, without), (penalised, with_it) = results
    assert all(torch.equal(plain[task], penalised[task]) for task in plain)
    torch.testing.assert_close(with_it - without, 0.5 * 2 * (m / norm - 1) / norm / len(m), rtol=1e-3, atol=1e-5)
