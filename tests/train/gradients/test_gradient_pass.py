"""Gradients of training batches without training: they are those of steps, and nothing of the trial moves."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from faar_ray.config.trial import TrialConfig
from faar_ray.seeding import seed_of
from faar_ray.train.finite import NonFiniteLoss
from faar_ray.train.fit import train_epoch
from faar_ray.train.gradients.gradient_pass import gradient_pass
from faar_ray.train.runtimes.runtime import InProcess
from faar_ray.train.step import to_device
from faar_ray.train.trial import Trial, random_states

RAW: dict[str, Any] = {
    "method": "dora",
    "data": {"tasks": ["semseg", "normals"], "image_size": 32, "train_images": 20, "val_images": 8, "test_images": 8},
    "backbone": {"pretrained": False, "drop_path": 0.3},
    "adapter": {"dropout": 0.1},
    "ranks": {"init_rank": 4},
    "optim": {"epochs": 2, "batch_size": 8, "warmup_steps": 2, "lr": 5e-3},
}
CONVOLUTIONAL = {"backbone.name": "test_efficientnet", "backbone.pyramid": "stages"}


def trained(**dotted: Any) -> Trial:
    """A trial after one epoch."""
    trial = Trial(TrialConfig.resolve(RAW, **dotted), InProcess("cpu"))
    train_epoch(trial, 0)
    return trial


def everything(trial: Trial) -> dict[str, Any]:
    state = {**copy.deepcopy(trial.state()), "random": random_states()}
    buffers = {f"buffer {name}": buffer.clone() for name, buffer in trial.model.named_buffers()}
    grads = {f"gradient {name}": p.grad for name, p in trial.model.named_parameters()}
    modes = {f"mode {name}": module.training for name, module in trial.model.named_modules()}
    return {**state, **buffers, **grads, **modes, "skipped": trial.skipped_steps, "rank": trial.scheduler.last_epoch}


def assert_equal(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, Tensor):
        assert torch.equal(ours, theirs)
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            assert_equal(ours[key], theirs[key])
    elif isinstance(theirs, list | tuple):
        for one, other in zip(ours, theirs, strict=True):
            assert_equal(one, other)
    else:
        assert ours == theirs


def gradients(trial: Trial, batches: int, epoch: int = 0) -> list[dict[str, Tensor]]:
    return [
        {name: p.grad.clone() for name, p in trial.model.named_parameters() if p.grad is not None}
        for _ in gradient_pass(trial, epoch, batches)
    ]


@pytest.mark.parametrize(
    "over",
    [
        pytest.param({}, id="fp32"),
        pytest.param({"optim.precision": "fp16"}, id="fp16"),
        pytest.param({"optim.precision": "bf16"}, id="bf16", marks=pytest.mark.slow),
        pytest.param(CONVOLUTIONAL, id="batch norm"),
        pytest.param({"optim.loss_norm": "running_mean", "optim.accumulate": 2}, id="normalised"),
        pytest.param({"method": "free_sinewich", "adapter.dropout": 0.0}, id="sine", marks=pytest.mark.slow),
    ],
)
def test_a_pass_leaves_everything_as_it_was_and_training_goes_on_as_without_it(over: dict[str, Any]) -> None:
    ends = []
    for batches in (0, 7):  # one after the other: drop-outs of all trials draw from one generator
        trial = trained(**over)
        before = everything(trial)
        assert len(gradients(trial, batches)) == batches
        assert_equal(everything(trial), before)
        ends.append([train_epoch(trial, 1), everything(trial)])
    assert_equal(*ends)


def test_what_a_pass_must_leave_alone_does_move_within_it() -> None:
    """The buffers of batch norms, the random generator and the training mode: else the test above shows nothing."""
    trial = trained(**CONVOLUTIONAL)
    trial.model.eval()
    buffers = {name: buffer.clone() for name, buffer in trial.model.named_buffers()}
    for _ in gradient_pass(trial, 0, 1):
        assert any(not torch.equal(buffer, buffers[name]) for name, buffer in trial.model.named_buffers())
        assert trial.model.training
    assert not trial.model.training


def test_the_gradients_are_those_of_the_weighted_loss_of_the_drawn_batches() -> None:
    """By a plain backward pass over the same private order, without drop-outs."""
    trial = trained(**{"optim.precision": "fp64", "backbone.drop_path": 0.0, "adapter.dropout": 0.0})
    ours = gradients(trial, 4)  # 3 batches of 20 images in 8, then the first of the next order
    expected = []
    for number in (0, 1):
        order = trial.train_data.batches(batch_size=8, seed=seed_of(0, "scores", 0), epoch=number, train=True)
        for batch in order:
            placed = {name: to_device(trial, values) for name, values in batch.items()}
            trial.optimizer.zero_grad()
            predictions = trial.model(placed["image"])
            torch.stack(
                [t.weight * t.loss(predictions[name], placed[name]) for name, t in trial.tasks.items()]
            ).sum().backward()
            expected.append({name: p.grad.clone() for name, p in trial.model.named_parameters() if p.grad is not None})
    assert len(expected) == 6
    for a, b in zip(ours, expected[:4], strict=True):
        assert a.keys() == b.keys()
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-9, atol=1e-12)


def test_a_pass_draws_the_same_each_time_and_others_after_another_epoch_or_seed() -> None:
    trial = trained()
    first, second, other = gradients(trial, 2), gradients(trial, 2), gradients(trial, 2, epoch=1)
    assert_equal(first, second)
    assert any(not torch.equal(first[0][name], other[0][name]) for name in first[0])


def test_an_overflow_of_fp16_is_tried_again_with_a_lower_scale_of_the_pass_alone() -> None:
    trial = trained(**{"optim.precision": "fp16"})
    trial.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    plain = trained(**{"optim.precision": "fp16"})
    plain.model.load_state_dict(trial.model.state_dict())
    plain.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    ours, theirs = gradients(trial, 2), gradients(plain, 2)
    assert trial.scaler.get_scale() == 2.0**40
    assert all(value.isfinite().all() for of_batch in ours for value in of_batch.values())
    norm = [sum(float(v.norm()) for v in of[0].values()) for of in (ours, theirs)]
    assert norm[0] == pytest.approx(norm[1], rel=0.5)  # unscaled: drop-outs differ after a retry


def test_a_loss_that_is_not_finite_ends_the_pass_and_all_is_as_before() -> None:
    trial = trained()
    with torch.no_grad():
        for head in trial.model.decoder.parameters():
            head.fill_(torch.nan)
            break
    before = random_states()
    with pytest.raises(NonFiniteLoss, match=r"step 0: the loss of semseg is nan"):
        gradients(trial, 2)
    assert_equal(random_states(), before)
    assert all(p.grad is None for p in trial.model.parameters())
