"""The ranks that a trial ended with, as HF PEFT's `LoraConfig` takes them."""

from __future__ import annotations

from typing import Any

from faar_ray.config.trial import TrialConfig
from faar_ray.errors import ConfigError
from faar_ray.models.backbone import family_of

SHARED = "shared"


def rank_pattern(ranks: dict[str, int], config: TrialConfig, task: str | None = None) -> dict[str, Any]:
    """Keyword arguments of `peft.LoraConfig`: r, lora_alpha, target_modules, rank_pattern, alpha_pattern.

    PEFT has one adapter per linear, so this is the shared adapters, or with `task` the model that this task sees: its
    own adapters in place of the shared ones where it has them. PEFT scales by alpha / r, so alpha = s r.

    Args:
        ranks: `stage/block/layer/task` -> rank.
        config: of the trial.
        task: one of its tasks.

    Raises:
        ConfigError: no such task, no adapters, or a backbone whose blocks have other names.
    """
    if task is not None and task not in config.data.tasks:
        raise ConfigError(f"--task: must be one of {', '.join(config.data.tasks)}, got {task!r}")
    if config.adapter.adapts and not config.adapter.has_ranks:
        raise ConfigError(
            f"--rank-pattern: adapter.kind {config.adapter.kind} has no ranks; --merge gives plain weights"
        )
    if not ranks:
        raise ConfigError(f"method {config.method} has no adapters, so there are no ranks")
    if config.adapter.entry.task_bases:
        raise ConfigError("--rank-pattern: HF PEFT has no sine-modulated bases; --merge gives plain weights")
    if config.adapter.entry.peft is None:
        raise ConfigError(f"--rank-pattern: HF PEFT has no adapter like {config.adapter.kind}; --merge gives weights")
    if config.placement.task_path == "prompted":
        raise ConfigError("--rank-pattern: HF PEFT has no prompts of tasks and no filters between a LoRA's factors")
    family = family_of(config.backbone.name)
    if family.peft_module is None:
        raise ConfigError(f"--rank-pattern: {config.backbone.name} is adapted where timm's own model has no such layer")
    module_ranks: dict[str, int] = {}
    alphas: dict[str, float | int] = {}
    for whose in (SHARED, task):
        for site, rank in ranks.items():
            stage, block, layer, owner = site.split("/")
            if owner == whose and rank:
                name = family.peft_module(config.backbone.name, int(stage), int(block), layer)
                module_ranks[name] = rank
                alphas[name] = _alpha(_scale(config, site, rank), rank)
    usual = max(set(module_ranks.values()), key=list(module_ranks.values()).count)
    return {
        "r": usual,
        "lora_alpha": alphas[next(name for name, rank in module_ranks.items() if rank == usual)],
        "use_dora": config.adapter.entry.peft == "dora",
        "target_modules": list(module_ranks),
        "rank_pattern": module_ranks,
        "alpha_pattern": alphas,
    }


def _scale(config: TrialConfig, place: str, rank: int) -> float:
    """s of an adapter, which the rank policy may have set."""
    stage, _, _, owner = place.split("/")
    scale, initial = (
        config.ranks.entry.scale,
        config.ranks.initial(shared=owner == SHARED, stage=int(stage), place=place),
    )
    return config.adapter.scale if scale is None else scale(config, initial, rank)


def _alpha(scale: float, rank: int) -> float | int:
    alpha = scale * rank
    return int(alpha) if alpha.is_integer() else alpha
