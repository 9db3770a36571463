"""Shrinking for good: an adapter's components, and the optimizer's memory of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from faar_ray.adapters import LowRankFactors
from faar_ray.adapters.low_rank import select


def shrink(adapter: LowRankFactors, index_K: Tensor, optimizer: Optimizer | None = None) -> None:
    """Keep the components `index_K` in that order; Adam's moments follow their components, `step` stays.

    New parameters replace the old ones in the optimizer: a parameter whose `.data` changes shape would crash the
    next backward pass.
    """
    index_K = index_K.to(adapter.A_RI.device)
    before = {name: getattr(adapter, name) for name in adapter.component_axes()}
    adapter.keep(index_K)
    if optimizer is not None:
        for name, axes in adapter.component_axes().items():
            _replace(optimizer, before[name], getattr(adapter, name), partial(select, index_K=index_K, axes=axes))


def _replace(optimizer: Optimizer, old: nn.Parameter, new: nn.Parameter, kept: Callable[[Tensor], Tensor]) -> None:
    for group in optimizer.param_groups:
        group["params"] = [new if p is old else p for p in group["params"]]
    if (state := optimizer.state.pop(old, None)) is not None:
        moved = {k: kept(v) for k, v in state.items() if torch.is_tensor(v) and v.shape == old.shape}
        optimizer.state[new] = {**state, **moved}
