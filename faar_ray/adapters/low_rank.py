"""Low-rank changes of a frozen weight, under a mask of their components (FAAR, rank masking).

Axes: R rank, I in, O out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from faar_ray.adapters.adapter import Adapter, Site
from faar_ray.adapters.fast.low_rank_update import LowRankUpdate


class LowRankFactors(nn.Module):
    """Two factors of a change under a mask z over their components, which is a prefix (sliced) or any vector.

    Component i is row i of both: A_RI (rank, in), and B_RO (rank, out), which holds the papers' B transposed, so that
    shrinking slices both alike. B starts at 0: the change starts as none.
    """

    RANK_AXES: ClassVar[Mapping[str, tuple[int, ...]]] = {"A_RI": (0,), "B_RO": (0,)}
    """Parameters with a component axis, and these axes."""
    site: Site
    E_R: nn.Parameter | None
    """Singular values between the factors, B diag(E) A, which a rank policy may put there (AdaLoRA); None: ones."""
    gain: Tensor | None
    """What the change under a prefix mask is multiplied by, a tensor of one number; None: 1."""
    trained_R: Tensor | None
    """1 for components that get gradients, 0 for others; None: all do."""

    def __init__(self, weight_OI: Tensor, rank: int) -> None:
        super().__init__()
        out_features, in_features = weight_OI.shape
        self.A_RI = nn.Parameter(torch.empty(rank, in_features))
        self.B_RO = nn.Parameter(torch.zeros(rank, out_features))
        nn.init.kaiming_uniform_(self.A_RI, a=math.sqrt(5))
        self.register_parameter("E_R", None)
        self.register_buffer("mask_R", torch.ones(rank), persistent=False)
        self.register_buffer("gain", None, persistent=False)
        self.register_buffer("trained_R", None, persistent=False)
        self.mask_R: Tensor
        self.prefix_length: int | None = rank
        """Components 0..b-1 take part, wholly; None under a mask that is no prefix."""

    def mask_prefix(self, b: int, gain: float = 1.0) -> None:
        """Let components 0..b-1 take part: products are over these alone, times the gain."""
        if self.prefix_length is None:  # the vector was passed to `set_mask`: do not write into it
            self.mask_R = torch.ones_like(self.A_RI.detach()[:, 0])
        self.prefix_length = b
        self.mask_R[:b] = 1
        self.mask_R[b:] = 0
        if gain != 1 or self.gain is not None:
            self.gain = torch.full_like(self.mask_R[:1], gain)

    def train_only(self, component: int) -> None:
        """Let the factors' gradients be those of one component, and 0 for all others, until components are dropped."""
        self.trained_R = torch.zeros_like(self.mask_R)
        self.trained_R[component] = 1

    def set_mask(self, mask_R: Tensor) -> None:
        """Let components take part by any factor each, shape (rank,); gradients flow to it where it requires them.

        Raises:
            ValueError: of another shape.
        """
        if mask_R.shape != (self.rank,):
            raise ValueError(f"a mask must have shape ({self.rank},), got {tuple(mask_R.shape)}")
        self.mask_R = mask_R.to(self.A_RI)
        self.prefix_length = None

    def clear_mask(self) -> None:
        """Let all components take part."""
        self.mask_prefix(self.rank)

    @property
    def rank(self) -> int:
        """Components that are left."""
        return self.A_RI.shape[0]

    @property
    def factors(self) -> tuple[nn.Parameter, nn.Parameter]:
        """A_RI and B_RO."""
        return self.A_RI, self.B_RO

    @property
    def masks_all(self) -> bool:
        """Whether the mask is applied as a vector over all components, and not by slicing.

        Under `torch.compile` always: shapes that change every step would make it compile every step.
        """
        return torch.compiler.is_compiling() or self.prefix_length is None  # in this order: no guard on the length

    def component_axes(self) -> dict[str, tuple[int, ...]]:
        """`RANK_AXES`, and those of what a rank policy has put between the factors."""
        return {**self.RANK_AXES, **({} if self.E_R is None else {"E_R": (0,)})}

    def masked_factors(self) -> tuple[Tensor, Tensor]:
        """diag(z E) A and B^T, or under a prefix mask the first b rows of diag(E) A and B^T."""
        A_RI, B_RO = self._masked_factors(*(self._trained(factor) for factor in self.factors))
        if self.gain is not None:
            B_RO = B_RO * self.gain
        return (A_RI, B_RO) if self.E_R is None else (A_RI * self.E_R[: len(A_RI), None], B_RO)

    def _trained(self, factor: Tensor) -> Tensor:
        """The factor itself, with gradients for the components that train."""
        if self.trained_R is None:
            return factor
        return factor.detach() + (factor - factor.detach()) * self.trained_R[:, None]

    def _masked_factors(self, A_RI: Tensor, B_RO: Tensor) -> tuple[Tensor, Tensor]:
        if self.masks_all:
            return A_RI * self.mask_R[:, None], B_RO
        if self.prefix_length == self.rank:
            return A_RI, B_RO
        return A_RI[: self.prefix_length], B_RO[: self.prefix_length]

    @torch.no_grad()
    def importance(self) -> Tensor:
        """Scores of the prefix's components, (|<A_i, dL/dA_i>| + |<B_i, dL/dB_i>|) / 2, shape (b,) (FAAR, coverage).

        Under a mask that is no prefix, of all components, shape (rank,); those with factor 0 have score 0.

        Raises:
            RuntimeError: before backward() or after zero_grad().
        """
        if self.A_RI.grad is None or self.B_RO.grad is None:
            raise RuntimeError("importance needs gradients: call it between backward() and zero_grad()")
        b = self.prefix_length
        of_A, of_B = ((p[:b] * p.grad[:b]).sum(1).abs() for p in self.factors if p.grad is not None)
        return (of_A + of_B) / 2

    def keep(self, index_K: Tensor) -> None:
        """Keep these components, in this order, as new parameters; the caller moves optimizer state."""
        for name, axes in self.component_axes().items():
            setattr(self, name, nn.Parameter(select(getattr(self, name).detach(), index_K, axes)))
        self.mask_R = torch.ones_like(self.mask_R[: self.rank])
        self.prefix_length, self.gain, self.trained_R = self.rank, None, None

    def parameter_count(self) -> int:
        """Trainable numbers of this adapter."""
        return sum(p.numel() for p in self.parameters())


def select(tensor: Tensor, index_K: Tensor, axes: Sequence[int]) -> Tensor:
    """A copy with these cells of every axis, in this order."""
    for axis in axes:
        tensor = tensor.index_select(axis, index_K)
    return tensor


class LoRA(LowRankFactors, Adapter):
    """W' = W + s B diag(z) A (Hu et al. 2021)."""

    def __init__(self, weight_OI: Tensor, rank: int, scale: float) -> None:
        super().__init__(weight_OI, rank)
        self.scale = scale
        self.alpha: float | None = None
        """The scale is this over the rank, also after components are dropped (DyLoRA); None: it stays."""

    def keep(self, index_K: Tensor) -> None:
        """See `LowRankFactors`."""
        super().keep(index_K)
        if self.alpha is not None:
            self.scale = self.alpha / max(1, self.rank)

    def adapt(self, weight_OI: Tensor) -> Tensor:
        """W + s B A over the masked components, shape (O, I)."""
        A_RI, B_RO = self.masked_factors()
        return torch.addmm(weight_OI, B_RO.t(), A_RI, alpha=self.scale)

    def adapt_product(self, weight_OI: Tensor, product: Tensor, x: Tensor) -> Tensor:
        """W x' + s B A x for a given product W x' (..., O) and x (..., I): MTLoRA's task path."""
        A_RI, B_RO = self.masked_factors()
        return product + self.scale * (x @ A_RI.t() @ B_RO)

    def low_rank_update(self) -> LowRankUpdate | None:
        """The adapter as plain tensors, for the products of `fast.functional`; None where `adapt` is the only form."""
        return LowRankUpdate(*self.masked_factors(), None, self.scale)
