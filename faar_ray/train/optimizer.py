"""AdamW with a learning rate per part, linear warm-up and cosine decay per step.

With `optim.warmup_lr` the schedule is that of timm's CosineLRScheduler (warmup_prefix, t_in_epochs off), which MTLoRA,
TADFormer and FAAR's release use: step k trains at its value at k. The authors' loops set it one step late.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from faar_ray.adapters import warps_of
from faar_ray.config.trial import OptimConfig
from faar_ray.models import MultiTaskModel, adapter_list, task_independent_parameters

POSITION_TABLES = ("relative_position_bias_table", "pos_embed")
"""Ends of their names."""


def build_optimizer(model: MultiTaskModel, config: OptimConfig) -> AdamW:
    """Adapters, decoder and the backbone's own weights, each with its learning rate.

    Weight decay is 0 on 1-D tensors, on relative-position tables unless `decay_position_tables`, and on the clock and
    the tokens that it reads: it would pull the tasks' frequencies together.
    """
    adapters = [(name, p) for a in (*adapter_list(model), *warps_of(model)) for name, p in a.named_parameters()]
    parts = (
        (adapters, config.lr),
        (list(model.decoder.named_parameters()), config.decoder_lr or config.lr),
        (task_independent_parameters(model), config.backbone_lr or config.lr),
    )
    groups = [group for part, lr in parts for group in _decayed_and_not(part, config.effective(lr), config)]
    clock = [p for p in model.clock.parameters() if p.requires_grad] if model.clock is not None else []
    if model.clock is not None and model.clock.in_trunk is not None:
        clock.append(model.clock.in_trunk.tokens_TC)
    if model.prompts is not None:
        others = [(name, p) for name, p in model.prompts.named_parameters() if all(p is not read for read in clock)]
        groups += _decayed_and_not(others, config.effective(config.lr), config)
    if clock:
        groups.append({"params": clock, "lr": config.effective(config.lr), "weight_decay": 0.0})
    return AdamW(groups, fused=True)


def _decayed_and_not(
    part: Iterable[tuple[str, nn.Parameter]], lr: float, config: OptimConfig
) -> list[dict[str, object]]:
    trained = [(name, p) for name, p in part if p.requires_grad]
    exempt = () if config.decay_position_tables else POSITION_TABLES
    free = [p for name, p in trained if p.ndim < 2 or name.endswith(exempt)]
    undecayed = {id(p) for p in free}
    decayed = [p for _, p in trained if id(p) not in undecayed]
    groups = ((decayed, config.weight_decay), (free, 0.0))
    return [{"params": params, "lr": lr, "weight_decay": wd} for params, wd in groups if params]


def build_scheduler(optimizer: AdamW, config: OptimConfig, steps: int) -> LambdaLR:
    """Linear warm-up, then a cosine from each group's learning rate to `min_lr` at `steps` optimizer steps."""
    factors: list[Callable[[int], float]] = [
        partial(rate_factor, float(group["lr"]), config, steps) for group in optimizer.param_groups
    ]
    return LambdaLR(optimizer, factors)


def rate_factor(lr: float, config: OptimConfig, steps: int, step: int) -> float:
    """Share of a group's learning rate `lr` (effective) that step `step` of `steps` trains at."""
    warmup = config.warmup(steps)
    if step < warmup:
        if config.warmup_lr is None:
            return (step + 1) / warmup
        first = config.effective(config.warmup_lr) / lr
        return first + (1 - first) * step / warmup

    progress = (step - warmup) / max(1, steps - warmup)
    last = config.effective(config.min_lr) / lr
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
