"""Shrinking for good: an adapter's components, and the optimizer's memory of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from faar_ray.adapters import LowRankFactors


def shrink(adapter: LowRankFactors, index_K: Tensor, optimizer: Optimizer | None = None) -> None:
    """Keep the components `index_K` in that order; Adam's moments follow their rows, `step` stays.

    New parameters replace the old ones in the optimizer: a parameter whose `.data` changes shape would crash the
    next backward pass.
    """
    index_K = index_K.to(adapter.A_RI.device)
    before = adapter.factors
    adapter.keep(index_K)
    if optimizer is not None:
        for old, new in zip(before, adapter.factors, strict=True):
            _replace(optimizer, old, new, index_K)


def _replace(optimizer: Optimizer, old: nn.Parameter, new: nn.Parameter, index_K: Tensor) -> None:
    for group in optimizer.param_groups:
        group["params"] = [new if p is old else p for p in group["params"]]
    if (state := optimizer.state.pop(old, None)) is not None:
        rows = {k: v[index_K].clone() for k, v in state.items() if torch.is_tensor(v) and v.shape == old.shape}
        optimizer.state[new] = {**state, **rows}
