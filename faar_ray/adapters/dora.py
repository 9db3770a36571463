"""DoRA: direction and magnitude of a row apart, as its paper has it and as FAAR's released code does.

Axes: R rank, I in, O out.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from faar_ray.adapters.fast.low_rank_update import LowRankUpdate
from faar_ray.adapters.low_rank import LoRA

DAMPING = 0.1
"""Of anchored magnitudes (the released code's)."""


class DoRA(LoRA):
    """W' = m V / ||V|| with V = W + s B A, row-wise norm; m starts at ||W||, so W' starts at W (FAAR, DoRA adapters).

    With `norm="detached"` the norm is a constant to the gradient (DoRA, section 4.3); the norm is always that of
    the masked change. With `direction="normalised"` V = W / ||W|| + s B A (the released code), which gives W' as if the
    columns of B^T were ||W|| times as long: so it is computed.
    """

    row_norm_O: Tensor
    """||W||, where it is needed besides W."""
    anchored = False
    """Whether m is relative to ||W||."""

    def __init__(
        self,
        weight_OI: Tensor,
        rank: int,
        scale: float,
        norm: Literal["detached", "attached"] = "detached",
        direction: Literal["weight", "normalised"] = "weight",
    ) -> None:
        super().__init__(weight_OI, rank, scale)
        self.detached, self.normalised = norm == "detached", direction == "normalised"
        if self.normalised or self.anchored:  # in double precision until the model is moved to another
            norm_O = torch.linalg.vector_norm(weight_OI.detach().double(), dim=1).clamp_min(1e-6)
            self.register_buffer("row_norm_O", norm_O, persistent=False)
        self.start_magnitude(torch.linalg.vector_norm(weight_OI.detach(), dim=1))

    def start_magnitude(self, norm_O: Tensor) -> None:
        """Let m start at this, shape (O,)."""
        self.m_O = nn.Parameter(norm_O)

    def magnitude(self) -> Tensor:
        """m, (O,)."""
        return self.m_O

    def masked_factors(self) -> tuple[Tensor, Tensor]:
        """See `LowRankFactors`; B^T as it acts on W itself."""
        A_RI, B_RO = super().masked_factors()
        return A_RI, B_RO * self.row_norm_O.to(B_RO) if self.normalised else B_RO

    def adapt(self, weight_OI: Tensor) -> Tensor:
        """m V / ||V|| over the masked components, shape (O, I)."""
        direction_OI = super().adapt(weight_OI)
        return direction_OI * self._gain(direction_OI)[:, None]

    def adapt_product(self, weight_OI: Tensor, product: Tensor, x: Tensor) -> Tensor:
        """m (W x' + s B A x) / ||W + s B A||."""
        return super().adapt_product(weight_OI, product, x) * self._gain(super().adapt(weight_OI))

    def low_rank_update(self) -> LowRankUpdate | None:
        """Includes the magnitude and how the norm is treated."""
        return LowRankUpdate(*self.masked_factors(), self.magnitude(), self.scale, self.detached)

    def _gain(self, direction_OI: Tensor) -> Tensor:
        norm_O = torch.linalg.vector_norm(direction_OI.detach() if self.detached else direction_OI, dim=1)
        gain_O: Tensor = self.magnitude() / norm_O.clamp_min(torch.finfo(norm_O.dtype).tiny)
        return gain_O


class AnchoredDoRA(DoRA):
    """m = ||W|| exp(0.1 (theta - log ||W||)): a step of theta moves log m by a tenth of it (FAAR's released code)."""

    anchored = True

    def start_magnitude(self, norm_O: Tensor) -> None:
        """Let theta start at the logarithm of this, shape (O,)."""
        self.theta_O = nn.Parameter(norm_O.clamp_min(1e-6).log())

    def magnitude(self) -> Tensor:
        """m, (O,)."""
        norm_O = self.row_norm_O.to(self.theta_O)
        return norm_O * torch.exp(DAMPING * (self.theta_O - norm_O.log()))


MAGNITUDES: dict[str, type[DoRA]] = {"free": DoRA, "anchored": AnchoredDoRA}


def drawn_norms(weight_OI: Tensor) -> Tensor:
    """||W|| of a linear of this shape as torch initialises it: entries uniform in +-1/sqrt(I)."""
    bound = weight_OI.shape[1] ** -0.5
    norm_O: Tensor = torch.linalg.vector_norm(torch.empty_like(weight_OI).uniform_(-bound, bound), dim=1)
    return norm_O
