"""What each `recipe` stands for: how the papers train, as data, each value with its place in the authors' code.

A recipe lies beneath the method's preset, and both beneath what the user writes. It says how is trained; what is
trained (method, backbone, tasks, data set, `data.protocol`) is the user's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Setting:
    """One key's value in a recipe."""

    value: Any
    source: str
    """File and name in the authors' code."""


Recipe = dict[str, Setting]
FREEZES = "FREEZE_PATCH_EMBED, FREEZE_LAYER_NORM and FREEZE_RELATIVE_POSITION_BIAS are False"

MTLORA: Recipe = {
    "data.image_size": Setting(448, "configs/mtlora/tiny_448: DATA.IMG_SIZE"),
    "data.augment.preset": Setting(
        "auto",
        "data/mtl_ds.py: flips; PASCAL: rotation -20 to 20 degrees, scale 0.75 to 1.25; NYUD: scale 1, 1.2 or 1.5",
    ),
    "data.augment.flip": Setting(None, "data/mtl_ds.py: as the preset"),
    "data.augment.rotation": Setting(None, "data/mtl_ds.py: as the preset"),
    "data.augment.scale": Setting(None, "data/mtl_ds.py: as the preset"),
    "data.augment.crop": Setting(None, "data/mtl_ds.py: no crops"),
    "data.augment.colour": Setting(None, "data/mtl_ds.py: no changes of colour"),
    "backbone.trainable": Setting("light", f"config.py: TRAIN.{FREEZES}; the merging reductions train there too"),
    "backbone.drop_path": Setting(0.2, "configs/mtlora/tiny_448: MODEL.DROP_PATH_RATE, linear over the blocks"),
    "adapter.scale": Setting(4.0, "configs/mtlora/tiny_448: MTLORA.SHARED_SCALE, TASK_SCALE"),
    "adapter.dropout": Setting(0.05, "configs/mtlora/tiny_448: MTLORA.DROPOUT, on the input of the low-rank branches"),
    "optim.epochs": Setting(300, "config.py: TRAIN.EPOCHS"),
    "optim.batch_size": Setting(32, "the paper's batch on one GPU; TADFormer's README repeats it"),
    "optim.lr": Setting(5e-4, "config.py: TRAIN.BASE_LR"),
    "optim.decoder_lr": Setting(None, "optimizer.py: one learning rate for all parameters"),
    "optim.backbone_lr": Setting(None, "optimizer.py: one learning rate for all parameters"),
    "optim.lr_batch": Setting(512, "main.py: TRAIN.BASE_LR, WARMUP_LR and MIN_LR times batch * world / 512"),
    "optim.warmup_epochs": Setting(20.0, "config.py: TRAIN.WARMUP_EPOCHS"),
    "optim.warmup_steps": Setting(None, "config.py: the warm-up is counted in epochs"),
    "optim.warmup_lr": Setting(5e-7, "config.py: TRAIN.WARMUP_LR"),
    "optim.min_lr": Setting(5e-6, "config.py: TRAIN.MIN_LR"),
    "optim.weight_decay": Setting(0.05, "config.py: TRAIN.WEIGHT_DECAY"),
    "optim.decay_position_tables": Setting(
        True, "optimizer.py: the exemption asks the model around the backbone, which has no `no_weight_decay`"
    ),
    "optim.clip": Setting(5.0, "config.py: TRAIN.CLIP_GRAD"),
    "optim.precision": Setting("fp16", "main.py: cuda.amp.autocast and a scaler of losses, AMP_ENABLE is True"),
}
"""MTLoRA (Agiza et al. 2024). Its heads have no drop-out, nor has its attention (MODEL.DROP_RATE is 0)."""

TADFORMER: Recipe = MTLORA | {
    "data.image_size": Setting(448, "configs/TADFormer: DATA.IMG_SIZE"),
    "backbone.trainable": Setting("light", f"config.py: TRAIN.{FREEZES}; configs/TADFormer freezes the reductions"),
    "backbone.drop_path": Setting(0.2, "configs/TADFormer: MODEL.DROP_PATH_RATE, linear over the blocks"),
    "adapter.scale": Setting(4.0, "configs/TADFormer: TADMTL.SHARED_SCALE, TASK_SCALE"),
    "adapter.dropout": Setting(0.05, "configs/TADFormer: TADMTL.DROPOUT, on the input of the low-rank branches"),
    "optim.batch_size": Setting(32, "README.md: --batch-size 32 on one GPU"),
}
"""TADFormer (Baek et al. 2025): a fork of MTLoRA's code with the same values."""

FAAR: Recipe = MTLORA | {
    "adapter.dropout": Setting(0.05, "models/lora8.py: W x + (W' - W) d(x)"),
    "optim.batch_size": Setting(32, "the paper: batch size 32 on one A40"),
    "optim.min_lr": Setting(
        3.2e-3, "lr_scheduler.py:39: 2e-4, after the scaling (3.2e-3 * 32 / 512), so the rate rises from 3.1e-5 to 2e-4"
    ),
}
"""FAAR's released code: a fork of MTLoRA's code. Its paper names lr 5e-4, batch 32 and no schedule."""

RECIPES: Mapping[str, Recipe] = {"mtlora": MTLORA, "tadformer": TADFORMER, "faar": FAAR}
