"""Blocks of EfficientNet and MobileNet with their pointwise convolutions as linears over channels-last tokens.

A 1x1 convolution is a linear applied to every pixel, so what adapts a linear adapts it. Everything else of a block
(depthwise and k x k convolutions, norms, activations, squeeze-and-excitation) stays timm's own module.

Axes: T tasks, S streams in (1 until the first task-specific layer, then K), K streams out (the shared one first, if
it goes on, then T), B batch, C channels, H W space.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timm.models._efficientnet_blocks import (
    ConvBnAct,
    DepthwiseSeparableConv,
    EdgeResidual,
    InvertedResidual,
    UniversalInvertedResidual,
)
from torch import Tensor, nn

from faar_ray.models.channels_last import LAYERS, TokenBlock, as_linear, by_image

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


class ConvBlock(TokenBlock):
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
