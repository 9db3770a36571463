"""The singular value decomposition of a frozen linear, which all adapters on it share.

Axes: Q blocks of the weight, I in, O out of a block, P singular values, the smaller of I and O.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

SPLIT = (2, 3)
"""Ratios of outputs to inputs that stand for 2 or 3 square weights, one above the other: keys and values, or with
queries. A ratio of 4 is one weight (an MLP's first)."""


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """W = U diag(S) V of every block, S descending."""

    U_QOP: Tensor
    S_QP: Tensor
    V_QPI: Tensor


class Decomposition(nn.Module):
    """Of a linear's weight, made when it is first asked for, and anew where the weight is another.

    It is in no checkpoint: it is made in double precision on the CPU, with signs that do not depend on the library, so
    it comes out the same again.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._of_linear = (linear,)  # in a tuple: the linear holds this module
        self._factors: Factors | None = None
        self._made_of: tuple[Any, ...] = ()

    @property
    def blocks(self) -> int:
        """Q."""
        outs, ins = self._of_linear[0].weight.shape
        return outs // ins if outs % ins == 0 and outs // ins in SPLIT else 1

    def factors(self) -> Factors:
        """In the weight's precision, on its device."""
        weight_OI = self._of_linear[0].weight
        if torch.compiler.is_compiling() and self._factors is not None:
            return self._factors
        made_of = (weight_OI.dtype, weight_OI.device, weight_OI.data_ptr(), weight_OI._version)
        if self._factors is None or made_of != self._made_of:
            self._factors, self._made_of = decompose(weight_OI, self.blocks), made_of
        return self._factors


def decomposition_of(linear: nn.Linear) -> Decomposition:
    """The one of a linear, which it holds from then on."""
    if not hasattr(linear, "decomposition"):
        linear.add_module("decomposition", Decomposition(linear))
    decomposition = linear.get_submodule("decomposition")
    assert isinstance(decomposition, Decomposition)
    return decomposition


def decompose_all(model: nn.Module) -> None:
    """Make all decompositions of a model now, before torch.compile sees it; it stays on its device from then on."""
    for module in model.modules():
        if isinstance(module, Decomposition):
            module.factors()


@torch.no_grad()
def decompose(weight_OI: Tensor, blocks: int = 1) -> Factors:
    """The singular values and vectors of each of `blocks` parts of the rows.

    The entry of a left vector that is largest is positive.
    """
    exact_QOI = weight_OI.detach().to("cpu", torch.float64).unflatten(0, (blocks, -1))
    U_QOP, S_QP, V_QPI = torch.linalg.svd(exact_QOI, full_matrices=False)
    largest_Q1P = U_QOP.abs().argmax(1, keepdim=True)
    signs_Q1P = U_QOP.gather(1, largest_Q1P).sign()
    parts = U_QOP * signs_Q1P, S_QP, V_QPI * signs_Q1P.mT
    return Factors(*(part.to(weight_OI) for part in parts))
