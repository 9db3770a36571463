"""The learning rate of every step, and what weight decay is on."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.optim import AdamW

from faar_ray.config.trial import OptimConfig, TrialConfig
from faar_ray.models import MultiTaskModel, build_model
from faar_ray.train.optimizer import POSITION_TABLES, build_optimizer, build_scheduler

RATES = (1.0, 0.3)
"""Of two groups, as shares of lr."""


def optimizer_of(config: OptimConfig) -> AdamW:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": config.effective(config.lr * rate)} for rate in RATES]
    return AdamW(groups)


def rates(config: OptimConfig, steps: int) -> list[list[float]]:
    """Of each step, each group's learning rate."""
    optimizer = optimizer_of(config)
    scheduler, out = build_scheduler(optimizer, config, steps), []
    for _ in range(steps + 2):
        out.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return out


def timms(config: OptimConfig, steps: int) -> list[list[float]]:
    """The same of timm's scheduler, as the forks call it."""
    optimizer, warmup = optimizer_of(config), config.warmup(steps)
    scheduler = CosineLRScheduler(
        optimizer,
        t_initial=steps - warmup,
        lr_min=config.effective(config.min_lr),
        warmup_lr_init=config.effective(config.warmup_lr or 0.0),
        warmup_t=warmup,
        cycle_limit=1,
        t_in_epochs=False,
        warmup_prefix=True,
    )
    out = []
    for step in range(steps + 2):
        scheduler.step_update(step)
        out.append([group["lr"] for group in optimizer.param_groups])
    return out


@pytest.mark.parametrize(
    "keys",
    [
        {"epochs": 6, "warmup_epochs": 2, "lr_batch": 512, "warmup_lr": 5e-7, "min_lr": 5e-6, "batch_size": 32},
        {"epochs": 6, "warmup_epochs": 0.5, "lr_batch": 512, "warmup_lr": 5e-7, "min_lr": 3.2e-3, "batch_size": 32},
        {"epochs": 6, "warmup_steps": 7, "warmup_lr": 0.0, "min_lr": 1e-5},
        {"epochs": 6, "warmup_steps": 0, "min_lr": 1e-5},
        {"epochs": 6, "warmup_steps": None},
    ],
)
def test_every_steps_rate_is_that_of_timms_scheduler(keys: dict[str, Any]) -> None:
    config = OptimConfig.model_validate(keys)
    for ours, theirs in zip(rates(config, 66), timms(config, 66), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-12, abs=1e-18)


def test_mtloras_rates_begin_peak_and_end_where_the_paper_says() -> None:
    config, per_epoch = TrialConfig.resolve({"recipe": "mtlora"}).optim, 5
    of_lr = [rate for rate, _ in rates(config, 300 * per_epoch)]
    assert (of_lr[0], of_lr[20 * per_epoch], of_lr[-1]) == pytest.approx((3.125e-8, 3.125e-5, 3.125e-7), rel=1e-12)
    assert max(of_lr) == of_lr[20 * per_epoch]
    middle = 3.125e-7 + 0.5 * (3.125e-5 - 3.125e-7)
    assert of_lr[160 * per_epoch] == pytest.approx(middle, rel=1e-9)


def test_faars_rate_rises_after_warm_up() -> None:
    config, per_epoch = TrialConfig.resolve({"recipe": "faar"}).optim, 2
    of_lr = [rate for rate, _ in rates(config, 300 * per_epoch)]
    assert of_lr == sorted(of_lr)
    assert (of_lr[20 * per_epoch], of_lr[-1]) == pytest.approx((3.125e-5, 2e-4), rel=1e-12)


def test_the_default_schedule_is_to_the_bit_what_it_was() -> None:
    config, steps = OptimConfig(), 90

    def before(step: int) -> float:
        if step < 20:
            return (step + 1) / 20
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - 20) / (steps - 20))))

    groups = [config.lr * rate for rate in RATES]
    assert rates(config, steps) == [[base * before(step) for base in groups] for step in range(steps + 2)]


def model_of(**dotted: Any) -> tuple[MultiTaskModel, OptimConfig]:
    raw = {"data": {"tasks": ["depth", "normals"], "image_size": 32}, "backbone": {"pretrained": False}}
    config = TrialConfig.resolve(raw, **{"ranks.init_rank": 2, **dotted})
    return build_model(config), config.optim


@pytest.mark.parametrize("decays", [False, True])
def test_position_tables_are_decayed_where_the_key_says_so(decays: bool) -> None:
    model, config = model_of(**{"optim.decay_position_tables": decays})
    decay = {id(p): g["weight_decay"] for g in build_optimizer(model, config).param_groups for p in g["params"]}
    tables = [p for name, p in model.named_parameters() if name.endswith(POSITION_TABLES)]
    assert len(tables) > 3
    assert {decay[id(p)] for p in tables} == {0.05 if decays else 0.0}
    others = [p for name, p in model.named_parameters() if p.requires_grad and not name.endswith(POSITION_TABLES)]
    assert {(p.ndim > 1, decay[id(p)]) for p in others} == {(True, 0.05), (False, 0.0)}


def test_every_part_is_scaled_by_the_batch() -> None:
    keys = {"optim.lr": 1e-3, "optim.decoder_lr": 2e-3, "optim.backbone_lr": 4e-3}
    model, config = model_of(method="free_sinewich", **keys, **{"optim.batch_size": 8, "optim.lr_batch": 32})
    scaled = build_optimizer(model, config).param_groups
    model, config = model_of(method="free_sinewich", **keys)
    plain = build_optimizer(model, config).param_groups
    assert [group["lr"] for group in scaled] == [group["lr"] / 4 for group in plain]
    assert {group["lr"] for group in plain} == {1e-3, 2e-3, 4e-3}
