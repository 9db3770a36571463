"""AdamW with a learning rate per part, linear warm-up and cosine decay per step."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from faar_ray.config.trial import OptimConfig
from faar_ray.models import MultiTaskModel, adapter_list, task_independent_parameters


def build_optimizer(model: MultiTaskModel, config: OptimConfig) -> AdamW:
    """Adapters, decoder and the backbone's own weights, each with its learning rate.

    Weight decay is 0 on 1-D tensors and relative-position tables (MTLoRA's recipe), and on the clock: it would pull
    the tasks' frequencies together.
    """
    adapters = [(name, p) for a in adapter_list(model) for name, p in a.named_parameters()]
    parts = (
        (adapters, config.lr),
        (list(model.decoder.named_parameters()), config.decoder_lr or config.lr),
        (task_independent_parameters(model), config.backbone_lr or config.lr),
    )
    groups = [group for part, lr in parts for group in _decayed_and_not(part, lr, config.weight_decay)]
    if model.clock is not None and (clock := [p for p in model.clock.parameters() if p.requires_grad]):
        groups.append({"params": clock, "lr": config.lr, "weight_decay": 0.0})
    return AdamW(groups, fused=True)


def _decayed_and_not(part: Iterable[tuple[str, nn.Parameter]], lr: float, decay: float) -> list[dict[str, object]]:
    trained = [(name, p) for name, p in part if p.requires_grad]
    free = [p for name, p in trained if p.ndim < 2 or name.endswith(("relative_position_bias_table", "pos_embed"))]
    undecayed = {id(p) for p in free}
    decayed = [p for _, p in trained if id(p) not in undecayed]
    groups = ((decayed, decay), (free, 0.0))
    return [{"params": params, "lr": lr, "weight_decay": wd} for params, wd in groups if params]


def build_scheduler(optimizer: AdamW, config: OptimConfig, steps: int) -> LambdaLR:
    """Linear warm-up over `warmup_steps`, then a cosine to 0 at `steps` optimizer steps."""

    def factor(step: int) -> float:
        if step < config.warmup_steps:
            return (step + 1) / config.warmup_steps
        progress = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    return LambdaLR(optimizer, factor)
