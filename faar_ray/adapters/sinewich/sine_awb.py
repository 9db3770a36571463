"""Sine-AWB (Free Sinewich): one base M per layer becomes every task's weights by M_t = sin(omega_t M), then a low-pass.

Axes: T tasks, P taps of the kernel (1, or 3x3), O out, I in, R rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from faar_ray.adapters.adapter import Site
from faar_ray.adapters.low_rank import LowRankFactors
from faar_ray.adapters.sinewich.clock import ClockNet
from faar_ray.adapters.sinewich.low_pass import low_pass, norm_kept
from faar_ray.adapters.sinewich.task_tokens import TaskTokens
from faar_ray.config.trial import SinewichConfig

SHARED = "shared"
SPREAD = 5.0


class FullBase(nn.Module):
    """A base M = 5 sqrt(I) / s U without factors (the decoder's); U is drawn as torch draws a convolution.

    So omega_t M has a std of about 4 at the start, whatever the clock's first scale s: far enough for tasks to start
    with weights of their own (at c = 1.5 cosines of three tasks are below 0.1), and a learning rate that suits heads
    does not spin it. Held as M itself, a step would turn it by s times that rate: at s = 150 by a radian.
    """

    def __init__(self, out_channels: int, in_channels: int, scale: float) -> None:
        super().__init__()
        self.weight_OI = nn.Parameter(nn.Conv2d(in_channels, out_channels, kernel_size=1).weight.detach().flatten(1))
        self.unit = SPREAD * in_channels**0.5 / scale

    @property
    def rank(self) -> int:
        """Its smaller side."""
        return min(self.weight_OI.shape)

    def matrix(self) -> Tensor:
        """M, (1, O, I)."""
        M_OI: Tensor = self.unit * self.weight_OI
        return M_OI[None]


class SineBase(LowRankFactors):
    """M = A W B^T (fuse, then sine), where A^T is `B_RO`, B^T is `A_RI`, and W the core, R x R or R x R x 3 x 3.

    Component i is row i of both factors, and row and column i of the core. With a mask z on each side of the core,
    M(z) = A diag(z) W diag(z) B^T, so that dL/dz_i splits into <A_i, dL/dA_i> and <B_i, dL/dB_i>, through the sine and
    all tasks: PDRS scores a base by the formula that it scores LoRA by. (In LoRA both halves are equal; here they equal
    <W_i, dL/dW_i> along the core's row and column.) `B_RO` starts at 0 and the core at the identity, in the middle tap.
    """

    RANK_AXES: ClassVar[Mapping[str, tuple[int, ...]]] = {"A_RI": (0,), "B_RO": (0,), "core": (0, 1)}

    def __init__(self, weight_OI: Tensor, rank: int, conv_size: int) -> None:
        super().__init__(weight_OI, rank)
        self.core = nn.Parameter(self.first_core(rank, conv_size))

    @staticmethod
    def first_core(rank: int, conv_size: int) -> Tensor:
        """The identity, in the middle tap."""
        taps = () if conv_size == 1 else (conv_size, conv_size)
        core = torch.zeros(rank, rank, *taps)
        middle = core if conv_size == 1 else core[:, :, conv_size // 2, conv_size // 2]
        middle.fill_diagonal_(1)
        return core

    def matrix(self) -> Tensor:
        """M over the masked components, (P, O, I)."""
        A_RI, B_RO = self.masked_factors()
        if self.masks_all:
            B_RO = B_RO * self.mask_R[:, None]
        return B_RO.t() @ self.through_core(A_RI)

    def through_core(self, A_RI: Tensor) -> Tensor:
        """W B^T of the components in A_RI, for each tap, (P, R, I)."""
        r = len(A_RI)
        core: Tensor = self.core[:r, :r]
        core_PRR = core.flatten(2).movedim(2, 0) if core.ndim == 4 else core[None]
        return core_PRR @ A_RI


class DepthwiseBase(SineBase):
    """The same with a diagonal core at each tap, held as (R, P): a filter per component, that mixes none."""

    RANK_AXES: ClassVar[Mapping[str, tuple[int, ...]]] = {"A_RI": (0,), "B_RO": (0,), "core": (0,)}

    @staticmethod
    def first_core(rank: int, conv_size: int) -> Tensor:
        """1 in the middle tap."""
        core = torch.zeros(rank, conv_size**2)
        core[:, conv_size**2 // 2] = 1
        return core

    def through_core(self, A_RI: Tensor) -> Tensor:
        """W B^T of the components in A_RI, for each tap, (P, R, I)."""
        return self.core[: len(A_RI)].t()[..., None] * A_RI


CORES: Mapping[str, type[SineBase]] = {"dense": SineBase, "depthwise": DepthwiseBase}
"""By `sinewich.core`."""


class SineWeights(nn.Module):
    """The weights of all tasks at one layer, from one base or from one each.

    Args:
        bases: `{"shared": base}`, or a base per task.
        clock: of the whole model, which registers it.
        config: modulation, low-pass, gain.
        site: where the layer is; `task` is `shared`.
    """

    def __init__(
        self, bases: Mapping[str, SineBase | FullBase], clock: ClockNet, config: SinewichConfig, site: Site
    ) -> None:
        super().__init__()
        self.bases = nn.ModuleDict(bases)
        self.config, self.site = config, site
        self._of_model = (clock,)  # in a tuple: one clock serves all layers, and only the model holds its parameters
        self._cached: Tensor | None = None

    @property
    def clock(self) -> ClockNet:
        """Of the whole model."""
        return self._of_model[0]

    def bases_of_tasks(self) -> list[SineBase | FullBase]:
        """Each task's base: the same one, or its own."""
        return [self._base(SHARED if SHARED in self.bases else task) for task in self.clock.tasks]

    def matrices(self) -> Tensor:
        """M of every base, (1 or T, P, O, I)."""
        return torch.stack([self._base(owner).matrix() for owner in self.bases])

    def _base(self, owner: str) -> SineBase | FullBase:
        base = self.bases[owner]
        assert isinstance(base, SineBase | FullBase)
        return base

    def kernels(self) -> Tensor:
        """M_t of every task after the low-pass, over the gain, (T, P, O, I)."""
        if self._cached is not None:
            return self._cached
        with torch.autocast(next(self.parameters()).device.type, enabled=False):  # omega M is an angle: no bf16 product
            return task_kernels(self.matrices(), self.clock(), self.config)


def task_kernels(matrices: Tensor, omega_T: Tensor, config: SinewichConfig) -> Tensor:
    """From bases (1 or T, P, O, I) to task weights (T, P, O, I)."""
    if config.modulation == "sine":
        modulated = sines(matrices, omega_T)
    elif config.modulation == "linear":
        modulated = omega_T[:, None, None, None] * matrices
    else:
        modulated = matrices.expand(len(omega_T), -1, -1, -1)

    scale = fan_in(matrices) ** -0.5 if config.gain == "sqrt_fan_in" else 1.0
    if config.blur == "none":
        return modulated * scale

    size, sigma = config.blur_size, config.sigma
    if config.blur == "kernel":
        side = round(matrices.shape[1] ** 0.5)
        shape = (side, side)
        image = modulated.movedim(1, -1).unflatten(-1, shape)
        filtered = low_pass(image, size, sigma).flatten(-2).movedim(-1, 1)
    else:
        shape = (matrices.shape[-2], matrices.shape[-1])
        filtered = low_pass(modulated, size, sigma)
    return filtered * (scale / norm_kept(shape, size, sigma) if config.rescale else scale)


def fan_in(matrices: Tensor) -> int:
    """Inputs of one output: those of all taps."""
    return matrices.shape[-3] * matrices.shape[-1]


def sines(matrices: Tensor, omega_T: Tensor) -> Tensor:
    """sin(omega_t M), (1 or T, P, O, I) -> (T, P, O, I)."""
    if torch.compiler.is_compiling():
        return torch.sin(omega_T[:, None, None, None] * matrices)
    out: Tensor = _Sines.apply(matrices, omega_T)
    return out


class _Sines(Function):
    """Keeps M and omega alone: for all tasks, what autograd would keep is several times the weights themselves."""

    @staticmethod
    def forward(ctx: Any, matrices: Tensor, omega_T: Tensor) -> Tensor:
        ctx.save_for_backward(matrices, omega_T)
        return torch.stack([(omega * M).sin_() for M, omega in _pairs(matrices, omega_T)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_TPOI: Tensor) -> tuple[Tensor, Tensor]:
        matrices, omega_T = ctx.saved_tensors
        g_matrices, g_omega = torch.zeros_like(matrices), []
        for t, (M, omega) in enumerate(_pairs(matrices, omega_T)):
            slope = (omega * M).cos_().mul_(g_TPOI[t])
            g_omega.append((slope * M).sum())
            g_matrices[t if len(matrices) > 1 else 0] += slope.mul_(omega)
        return g_matrices, torch.stack(g_omega)


def _pairs(matrices: Tensor, omega_T: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return ((matrices[t if len(matrices) > 1 else 0], omega) for t, omega in enumerate(omega_T))


@contextmanager
def cached_kernels(layers: Sequence[SineWeights]) -> Iterator[None]:
    """Within the block every layer's task weights are computed once, however often they are used.

    Where gradients are on, the gradients of the cached weights reach bases and clock at the block's end.
    """
    assert all(layer._cached is None for layer in layers)  # blocks do not nest: the inner one would end the outer
    in_trunk = list({id(tokens): tokens for layer in layers if (tokens := layer.clock.in_trunk)}.values())
    users: list[SineWeights | TaskTokens] = [*layers, *in_trunk]
    computed = [user.kernels() if isinstance(user, SineWeights) else user.tokens_TC for user in users]
    # leaves collect the gradients of all uses, so that backward goes through the sine once per layer
    leaves = [kernels.detach().requires_grad_(kernels.requires_grad) for kernels in computed]
    for user, leaf in zip(users, leaves, strict=True):
        user._cached = leaf

    try:
        yield
        pairs = [(k, h.grad) for k, h in zip(computed, leaves, strict=True) if h.grad is not None]
        if pairs:
            torch.autograd.backward([kernels for kernels, _ in pairs], [grad for _, grad in pairs])
    finally:
        for user in users:
            user._cached = None
