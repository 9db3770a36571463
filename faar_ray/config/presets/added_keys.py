"""Keys of a trial's config that are younger than searches that can be resumed."""

from __future__ import annotations

ADDED = (
    "recipe",
    "data.absent_classes",
    "data.depth_floor",
    "backbone.statistics",
    "adapter.dropout",
    "placement.reductions",
    "placement.dead_parameters",
    "tad.filter",
    "tad.skip",
    "spectrum.cells",
    "spectrum.task_cells",
    "spectrum.warp",
    "spectrum.init",
    "spectrum.dead_qkv",
    "optim.lr_batch",
    "optim.warmup_epochs",
    "optim.warmup_lr",
    "optim.min_lr",
    "optim.decay_position_tables",
    "optim.loss_norm",
    "optim.loss_norm_beta",
    "ranks.pattern",
    "ranks.budget",
    "pdrs.basis",
    "pdrs.mask_share",
    "pdrs.bias_correction",
    "pdrs.score_clamp",
    "pdrs.scored_gradients",
    "pdrs.dropped",
    "pdrs.floor_holds_margin",
    "spectral.rotation",
    "spectral.cut_epoch",
    "spectral.score_batches",
    "spectral.floor",
)
"""Keys that came after searches were run: at their defaults they are no part of a config's id, so `--resume` of an
older search knows its configurations again."""
