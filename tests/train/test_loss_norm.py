"""Losses over their running means: the reference in plain numbers, what moves them, resume."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from faar_ray.config.trial import TrialConfig
from faar_ray.train.loss_norm import LossNorm
from faar_ray.train.runtimes.runtime import InProcess
from faar_ray.train.step import train_step, weighted_sum
from faar_ray.train.trial import Trial

from .test_fit import checkpoint, run, timeless, trained_tensors
from .test_step import RAW, first_batch, trial, without_labels

NORMED: dict[str, Any] = {"optim.loss_norm": "running_mean", "optim.loss_norm_beta": 0.8}
STEPS = [(4.0, 0.5, None), (2.0, None, None), (3.0, 0.25, 7.0), (0.0, 0.125, 5.0)]
"""Losses of three tasks in four steps; None where a task has no labels."""


def means_of(steps: list[tuple[float | None, ...]], beta: float) -> list[float]:
    """Weighted means over the steps with labels, the newest weighing most; 1 without any."""
    result = []
    for losses in zip(*steps, strict=True):
        seen = [loss for loss in losses if loss is not None][::-1]
        weights = [beta**i for i in range(len(seen))]
        result.append(sum(w * x for w, x in zip(weights, seen, strict=True)) / sum(weights) if seen else 1.0)
    return result


def test_the_divisors_are_the_weighted_means_of_the_steps_before() -> None:
    norm = LossNorm(3, 0.8)
    for i in range(len(STEPS)):
        assert norm.divisors().tolist() == pytest.approx(means_of(STEPS[:i], 0.8) if i else [1.0] * 3, rel=1e-12)
        losses_T = torch.tensor([0.0 if loss is None else loss for loss in STEPS[i]])
        norm.observe(losses_T, torch.tensor([loss is not None for loss in STEPS[i]]))
    assert norm.divisors().tolist() == pytest.approx(means_of(STEPS, 0.8), rel=1e-12)


def test_a_loss_that_is_always_zero_is_no_division_by_zero() -> None:
    norm = LossNorm(1, 0.8)
    norm.observe(torch.zeros(1), torch.tensor([True]))
    assert (torch.zeros(1) / norm.divisors()).item() == 0.0


def stepped(made: Trial, steps: int) -> list[Tensor]:
    """Losses of some steps on one batch, each of all tasks."""
    result = []
    batch = first_batch(made)
    for step in range(steps):
        made.policy.sample_mask(0, step)
        result.append(torch.stack([*train_step(made, batch, step).values()]))
    return result


def weights(made: Trial) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in made.model.named_parameters() if p.requires_grad}


def test_each_step_is_that_of_weights_over_the_means_and_losses_are_reported_raw() -> None:
    """Against plain steps whose tasks' weights are set by hand."""
    exact = {"optim.precision": "fp64"}
    normed, plain = trial(**exact, **NORMED), trial(**exact)
    tasks, batch = dict(plain.tasks), first_batch(plain)
    seen: list[tuple[float | None, ...]] = []
    for step in range(3):
        divisors = means_of(seen, 0.8) if seen else [1.0] * len(tasks)
        pairs = zip(tasks.items(), divisors, strict=True)
        plain.tasks = {name: replace(task, weight=task.weight / divisor) for (name, task), divisor in pairs}
        losses = []
        for made in (normed, plain):
            made.policy.sample_mask(0, step)
            losses.append(train_step(made, batch, step))
        torch.testing.assert_close(losses[0], losses[1], rtol=1e-9, atol=0)
        seen.append(tuple(loss.item() for loss in losses[1].values()))
    assert divisors != [1.0] * len(tasks)
    torch.testing.assert_close(weights(normed), weights(plain), rtol=1e-9, atol=1e-12)


def test_without_it_what_is_minimised_is_the_weighted_sum_bit_for_bit() -> None:
    made, shares = trial(), {"semseg": torch.tensor(1.3), "normals": torch.tensor(0.7), "depth": torch.tensor(0.1)}
    expected = torch.stack([made.tasks[task].weight * share for task, share in shares.items()]).sum()
    assert torch.equal(weighted_sum(made, shares), expected)
    assert made.state()["loss_norm"] == {}


def test_the_mean_of_a_task_without_labels_stays() -> None:
    made = trial(**NORMED)
    stepped(made, 2)
    assert made.loss_norm is not None
    before = made.loss_norm.divisors()
    without_labels(made, "normals", slice(None))
    (losses_T,) = stepped(made, 1)
    moved = dict(zip(made.config.data.tasks, (before != made.loss_norm.divisors()).tolist(), strict=True))
    assert moved == {"semseg": True, "normals": False, "depth": True}
    assert losses_T.isnan().tolist() == [False, True, False]


def test_a_step_that_fp16_skips_moves_no_mean() -> None:
    made = trial(**NORMED, **{"optim.precision": "fp16"})
    made.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    stepped(made, 1)
    assert made.skipped_steps == 1
    assert made.loss_norm is not None and not made.loss_norm.weight_T.any()
    made.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    stepped(made, 1)
    assert made.loss_norm.weight_T.all()


def test_a_step_in_parts_is_the_step_in_one() -> None:
    result = []
    for parts in (1, 3):
        made = trial(**NORMED, **{"optim.precision": "fp64", "optim.accumulate": parts})
        for module in made.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        stepped(made, 2)
        assert made.loss_norm is not None
        result.append((weights(made), made.loss_norm.divisors()))
    torch.testing.assert_close(result[1], result[0], rtol=1e-6, atol=1e-9)


def test_a_resumed_trial_goes_on_bit_for_bit(tmp_path: Path) -> None:
    short = {**NORMED, "optim.epochs": 2}
    whole = run(tmp_path / "whole", **short)
    run(tmp_path / "cut", epochs=1, **short)
    assert timeless(run(tmp_path / "cut", **short)) == timeless(whole)
    ours, theirs = (trained_tensors(tmp_path / name, 1) for name in ("cut", "whole"))
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    states = [torch.load(checkpoint(tmp_path / name, 1), weights_only=True)["loss_norm"] for name in ("cut", "whole")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in ("ema", "weight"))
    plain = run(tmp_path / "plain", **{"optim.epochs": 2})
    assert plain[0].metrics["train/loss"] != whole[0].metrics["train/loss"]
    assert not math.isclose(plain[1].metrics["train/loss"], whole[1].metrics["train/loss"], rel_tol=1e-6)


def test_the_state_that_was_saved_is_used() -> None:
    made = trial(**NORMED)
    stepped(made, 2)
    other = Trial(TrialConfig.resolve(RAW, **NORMED), InProcess("cpu"))
    other.restore(made.state())
    assert made.loss_norm is not None and other.loss_norm is not None
    assert torch.equal(other.loss_norm.divisors(), made.loss_norm.divisors())
