"""A Swin, its patch merging and HRNet heads as plain functions of weights, window by window: a reference.

Axes: B batch, L tokens of a grid of H x H, C channels, n tokens of a window.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]
MICRO: dict[str, Any] = {"depths": (2, 2, 2, 2), "heads": (2, 4, 8, 16), "window": 4}


def weights_of(model: Any) -> Weights:
    """By timm's names where timm has one; adapters beside the weight that they change."""
    return {
        re.sub(r"\.(block|base)\.", ".", name.removeprefix("backbone.")): value
        for name, value in model.state_dict(keep_vars=True).items()
        if not re.search(r"task_linears\.\w+\.base", name)
    }


def linear(w: Weights, at: str, x: Tensor) -> Tensor:
    y = x @ w[f"{at}.weight"].T
    return y + w[f"{at}.bias"] if f"{at}.bias" in w else y


def norm(w: Weights, at: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w[f"{at}.weight"] + w[f"{at}.bias"]


def low_rank(w: Weights, at: str, x: Tensor) -> Tensor:
    """B A x; zero where nothing is there."""
    if f"{at}.A_RI" not in w:
        return x.new_zeros(())
    return torch.einsum("...i,ri,ro->...o", x, w[f"{at}.A_RI"], w[f"{at}.B_RO"])


def patches(w: Weights, image: Tensor) -> tuple[Tensor, int]:
    x = F.conv2d(image, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=4)
    return norm(w, "patch_embed.norm", x.flatten(2).transpose(1, 2)), x.shape[-1]


def window_of(side: int, window: int, block: int) -> tuple[int, int]:
    """Window and shift of a block on a grid."""
    return (side, 0) if side <= window else (window, window // 2 if block % 2 else 0)


def windows(side: int, window: int, shift: int) -> Iterator[tuple[list[int], Tensor]]:
    """Of every window: its tokens' places in the grid, row by row, and which pairs must not see each other, (n, n)."""
    for top in range(0, side, window):
        for left in range(0, side, window):
            rolled = [(top + i, left + j) for i in range(window) for j in range(window)]
            places = [(y + shift) % side * side + (x + shift) % side for y, x in rolled]
            wraps = torch.tensor([[y + shift >= side, x + shift >= side] for y, x in rolled])
            yield places, (wraps[:, None] != wraps[None]).any(-1) & (shift > 0)


def position_bias(w: Weights, at: str, window: int) -> Tensor:
    """(heads, n, n), from the table of relative positions."""
    table = w[f"{at}.relative_position_bias_table"].unflatten(0, (2 * window - 1, 2 * window - 1))
    at_y, at_x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    y, x = at_y.flatten(), at_x.flatten()
    bias: Tensor = table[y[:, None] - y[None] + window - 1, x[:, None] - x[None] + window - 1].permute(2, 0, 1)
    return bias


def by_head(x: Tensor, heads: int) -> Tensor:
    """(B, n, C) -> (B, heads, n, d)."""
    parts: Tensor = x.unflatten(-1, (heads, -1)).transpose(1, 2)
    return parts


def attention(w: Weights, at: str, qkv: Tensor, heads: int, window: int, shift: int) -> Tensor:
    """(B, L, 3C) -> (B, L, C)."""
    out, side = torch.zeros_like(qkv.chunk(3, -1)[0]), round(qkv.shape[1] ** 0.5)
    bias = position_bias(w, f"{at}.attn", window)
    for places, apart in windows(side, window, shift):
        q, k, v = (by_head(part, heads) for part in qkv[:, places].chunk(3, -1))
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + bias - 100.0 * apart
        out[:, places] = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    return out


def neighbours(w: Weights, stage: int, x: Tensor) -> Tensor:
    """Four neighbours side by side and normed, (B, L, C) -> (B, L / 4, 4C)."""
    grid = x.unflatten(1, (round(x.shape[1] ** 0.5), -1))
    four = torch.cat([grid[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)
    return norm(w, f"layers.{stage + 1}.downsample.norm", four.flatten(1, 2))


Layer = Callable[[Weights, str, Tensor], Tensor]
"""(weights, name of a linear, x) -> the output of the shared stream."""
Change = Callable[[Weights, str, str, str, Tensor], Tensor]
"""(weights, name of a block, layer, task, x) -> what a task's own stream adds to W x + b of the shared one."""


def maps_on_shared_input(
    w: Weights, image: Tensor, tasks: Sequence[str], layer: Layer, change: Change
) -> dict[str, list[Tensor]]:
    """Each task's four maps, (B, L, C), where the frozen weights of last blocks see the shared stream."""
    x, side = patches(w, image)
    maps: dict[str, list[Tensor]] = {task: [] for task in tasks}
    for stage, (depth, heads) in enumerate(zip(MICRO["depths"], MICRO["heads"], strict=True)):
        for block in range(depth):
            at, window = f"layers.{stage}.blocks.{block}", window_of(side, MICRO["window"], block)
            y = attention(w, at, layer(w, f"{at}.attn.qkv", norm(w, f"{at}.norm1", x)), heads, *window)
            shared = x + layer(w, f"{at}.attn.proj", y)
            normed = norm(w, f"{at}.norm2", shared)
            hidden = F.gelu(layer(w, f"{at}.mlp.fc1", normed))
            out = shared + layer(w, f"{at}.mlp.fc2", hidden)
            for task in tasks if block == depth - 1 else ():
                own = x + linear(w, f"{at}.attn.proj", y) + change(w, at, "proj", task, y)
                of_fc1 = linear(w, f"{at}.mlp.fc1", normed) + change(w, at, "fc1", task, norm(w, f"{at}.norm2", own))
                own = own + linear(w, f"{at}.mlp.fc2", hidden) + change(w, at, "fc2", task, F.gelu(of_fc1))
                if stage < 3:
                    own = layer(w, f"layers.{stage + 1}.downsample.reduction", neighbours(w, stage, own))
                maps[task].append(own)
            x = out
        if stage < 3:
            x, side = layer(w, f"layers.{stage + 1}.downsample.reduction", neighbours(w, stage, x)), side // 2
    return maps


def reduced(w: Weights, task: str, maps: Sequence[Tensor]) -> list[Tensor]:
    """(B, L_i, C_i) -> images of few channels, all upsampled to the finest one."""
    side = round(maps[0].shape[1] ** 0.5)
    images = (x.transpose(1, 2).unflatten(2, (round(x.shape[1] ** 0.5), -1)) for x in maps)
    few = [F.conv2d(x, w[f"decoder.heads.{task}.reductions.{i}.weight"]) for i, x in enumerate(images)]
    return [F.interpolate(x, size=(side, side), mode="bilinear") for x in few]


def prediction(w: Weights, task: str, joined: Sequence[Tensor], size: int) -> Tensor:
    """Images of one size -> (B, N, size, size)."""
    at = f"decoder.heads.{task}"
    y = F.conv2d(torch.cat([*joined], 1), w[f"{at}.hidden.weight"], w[f"{at}.hidden.bias"])
    statistics = (w[f"{at}.norm.running_mean"], w[f"{at}.norm.running_var"])
    y = F.batch_norm(y, *statistics, w[f"{at}.norm.weight"], w[f"{at}.norm.bias"]).relu()
    return F.interpolate(F.conv2d(y, w[f"{at}.output.weight"], w[f"{at}.output.bias"]), size=size, mode="bilinear")


def head(w: Weights, task: str, maps: list[Tensor], size: int) -> Tensor:
    """(B, L_i, C_i), finest first -> (B, N, size, size)."""
    return prediction(w, task, reduced(w, task, maps), size)
