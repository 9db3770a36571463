"""Multiply-adds of a computation, forward and backward, as torch counts them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count


def macs_of(compute: Callable[[], object]) -> float:
    """Multiply-adds of what a function computes."""
    counter = FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: _convolution_backward}
    )
    with counter:
        compute()
    return counter.get_total_flops() / 2


def _convolution_backward(
    gradient: list[int], images: list[int], kernel: list[int], *rest: Any, out_shape: Any = None, **_: Any
) -> int:
    """Of a convolution's backward pass: each gradient takes what the forward pass took.

    torch's own formula counts a gradient of the kernel as if all groups were one, 86 times too many for a whole step
    of TADFormer.
    """
    transposed, wanted = rest[4], rest[7]  # wanted: of images, of kernel, of bias
    return int(sum(wanted[:2])) * conv_flop_count(images, kernel, gradient, transposed)
