"""Blocks of EfficientNet and MobileNet with their pointwise convolutions as linears over channels-last tokens.

A 1x1 convolution is a linear applied to every pixel, so what adapts a linear adapts it. Everything else of a block
(depthwise and k x k convolutions, norms, activations, squeeze-and-excitation) stays timm's own module.

Axes: T tasks, S streams in (1 until the first task-specific layer, then K), K streams out (the shared one first, if
it goes on, then T), B batch, C channels, H W space.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.models._efficientnet_blocks import (
    ConvBnAct,
    DepthwiseSeparableConv,
    EdgeResidual,
    InvertedResidual,
    UniversalInvertedResidual,
)
from torch import Tensor, nn

from faar_ray.models.task_streams import TaskStreams

LAYERS = ("fc1", "fc2")
"""Expansion and projection."""
PARTS: dict[type[nn.Module], tuple[str, ...]] = {
    ConvBnAct: ("fc1=conv", "bn1", "aa"),
    DepthwiseSeparableConv: ("conv_s2d", "bn_s2d", "conv_dw", "bn1", "aa", "se", "fc2=conv_pw", "bn2"),
    InvertedResidual: (
        *("conv_s2d", "bn_s2d", "fc1=conv_pw", "bn1", "conv_dw", "bn2", "aa", "se"),
        *("fc2=conv_pwl", "bn3"),
    ),
    EdgeResidual: ("fc1=conv_exp", "bn1", "aa", "se", "fc2=conv_pwl", "bn2"),
    UniversalInvertedResidual: (
        *("dw_start", "fc1=pw_exp.conv", "pw_exp.bn", "dw_mid", "se"),
        *("fc2=pw_proj.conv", "pw_proj.bn", "dw_end", "layer_scale"),
    ),
}
"""timm's blocks, and their modules in the order in which they apply; `fc1=` and `fc2=` where they are pointwise."""


class ConvBlock(nn.Module):
    """One of timm's blocks: what is before, between and after its pointwise convolutions, and its skip connection.

    A block without an expansion has `fc1` None (and all before the projection is `between`), and so with `fc2`.
    """

    fc1: nn.Module | None
    fc2: nn.Module | None

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        sections: dict[str, nn.Sequential] = {name: nn.Sequential() for name in ("before", "between", "after")}
        linears = {layer: pointwise(block, layer) for layer in LAYERS}
        for layer, conv in linears.items():
            setattr(self, layer, None if conv is None else as_linear(conv))

        section = "between" if linears["fc1"] is None else "before"
        for name, module in parts(block):
            if module is linears["fc1"]:
                section = "between"
            elif module is linears["fc2"]:
                section = "after"
            else:
                sections[section].add_module(name, module)

        self.before, self.between, self.after = sections.values()
        self.has_skip: bool = getattr(block, "has_skip", False)
        self.drop_path: nn.Module = getattr(block, "drop_path", nn.Identity())

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H', W', C')."""
        return self.run(x_BHWC[None], lambda _, linear, x: linear(x[0])[None])[0]

    def run(self, x_1BHWC: Tensor, apply: Callable[[str, nn.Module, Tensor], Tensor]) -> Tensor:
        """(1, B, H, W, C) -> (S, B, H', W', C').

        Args:
            x_1BHWC: the one stream.
            apply: (layer, its module, streams) -> streams.
        """
        y = by_image(self.before, x_1BHWC)
        if self.fc1 is not None:
            y = apply("fc1", self.fc1, y)
        y = by_image(self.between, y)
        if self.fc2 is not None:
            y = apply("fc2", self.fc2, y)
        y = by_image(self.after, y)
        if not self.has_skip:
            return y
        kept: Tensor = self.drop_path(y.flatten(0, 1)).view_as(y)
        return kept + x_1BHWC


class ConvTaskBlock(TaskStreams):
    """A `ConvBlock` with a stream for each task; all streams pass its frozen parts in one batch."""

    ORDER = LAYERS

    def forward(self, x_BHWC: Tensor) -> tuple[Tensor | None, Tensor]:
        """(B, H, W, C) -> the shared stream (B, H', W', C') or None, and the task streams (T, B, H', W', C')."""
        return self.parted(self.block.run(x_BHWC[None], lambda layer, linear, x: self.linear(layer, linear, x, RASTER)))


class Raster:
    """Tokens that lie as the pixels of an image: (..., H, W, C)."""

    def image(self, x: Tensor) -> Tensor:
        """(..., H, W, C) -> (..., C, H, W)."""
        return x.movedim(-1, -3)

    def tokens(self, x: Tensor) -> Tensor:
        """(..., C, H, W) -> (..., H, W, C)."""
        return x.movedim(-3, -1)


RASTER = Raster()


def parts(block: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules of one of timm's blocks in their order, those left out that do nothing."""
    paths = (part.split("=")[-1] for part in PARTS[type(block)])
    named = ((path, _submodule(block, path)) for path in paths)
    return [(name.replace(".", "_"), m) for name, m in named if m is not None and type(m) is not nn.Identity]


def pointwise(block: nn.Module, layer: str) -> nn.Conv2d | None:
    """The convolution of a layer, if the block has it and it looks at one pixel alone."""
    path = path_of(block, layer)
    conv = _submodule(block, path) if path else None
    if isinstance(conv, nn.Conv2d) and conv.kernel_size == conv.stride == (1, 1) and conv.groups == 1:
        return conv
    return None


def path_of(block: nn.Module, layer: str) -> str:
    """Where one of timm's blocks would have the convolution of a layer; "" if nowhere."""
    paths = (part.removeprefix(f"{layer}=") for part in PARTS[type(block)] if part.startswith(f"{layer}="))
    return next(paths, "")


def _submodule(block: nn.Module, path: str) -> nn.Module | None:
    module: Any = block
    for name in path.split("."):
        module = getattr(module, name)
    assert module is None or isinstance(module, nn.Module)
    return module


def as_linear(conv: nn.Conv2d) -> nn.Linear:
    """A 1x1 convolution as a linear; draws no random numbers."""
    linear = nn.Linear(conv.in_channels, conv.out_channels, bias=conv.bias is not None, device="meta")
    linear.weight = nn.Parameter(conv.weight.detach().flatten(1))
    if conv.bias is not None:
        linear.bias = nn.Parameter(conv.bias.detach())
    return linear


def by_image(modules: nn.Sequential, x_SBHWC: Tensor) -> Tensor:
    """Modules that take images, over all streams in one batch: (S, B, H, W, C) -> (S, B, H', W', C')."""
    if not len(modules):
        return x_SBHWC
    y: Tensor = modules(x_SBHWC.flatten(0, 1).permute(0, 3, 1, 2))
    grid: Tensor = y.permute(0, 2, 3, 1).unflatten(0, x_SBHWC.shape[:2])
    return grid


def run_blocks(blocks: nn.ModuleList, x_BHWC: Tensor) -> tuple[Tensor | None, Tensor]:
    """All blocks of a stage: the shared stream (None where it ends), and those of the tasks (or the shared one alone).

    A block behind the task-specific one has nothing that could be task-specific; all streams pass it in one batch.
    """
    shared: Tensor | None = x_BHWC
    streams: Tensor | None = None
    for block in blocks:
        if isinstance(block, ConvTaskBlock):
            shared, streams = block(shared)
        elif streams is None:
            shared = block(shared)
        else:
            together = streams if shared is None else torch.cat([shared[None], streams])
            out = block(together.flatten(0, 1)).unflatten(0, together.shape[:2])
            shared, streams = (None, out) if shared is None else (out[0], out[1:])
    if streams is None:
        assert shared is not None
        streams = shared[None]
    return shared, streams
