"""Ranges of the values in shards of scenes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from faar_ray.data.scenes.object_table import CLASSES, PARTS
from faar_ray.tasks import IGNORE

HIGHEST = {"semseg": len(CLASSES) - 1, "human_parts": len(PARTS) - 1, "saliency": 1, "edge": 1}
FARTHEST = 20.0  # metres; no room is larger


def value_problems(columns: Mapping[str, Tensor]) -> list[str]:
    """Rules that the columns of a shard break, each with the value that breaks it."""
    problems = []
    for name, highest in HIGHEST.items():
        known = columns[name][columns[name] != IGNORE]
        if known.numel() and known.max() > highest:
            problems.append(f"{name}: must be 0..{highest} or {IGNORE}, got {int(known.max())}")

    lengths = columns["normals"].float().square().sum(1).sqrt() / 127
    if not bool(((lengths - 1).abs() < 0.02).all()):
        problems.append(f"normals: must have length 1, got {lengths.min():.2f}..{lengths.max():.2f}")

    depth = columns["depth"].float()
    if not bool((torch.isfinite(depth) & (depth > 0) & (depth < FARTHEST)).all()):
        problems.append(f"depth: must be 0..{FARTHEST:g} m, got {depth.min():.2f}..{depth.max():.2f}")
    return problems
