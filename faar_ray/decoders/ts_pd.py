"""The Task-Spectral Pyramidal Decoder's spectral part: CW-SP, then XT-Cons, on the reduced maps of all tasks (FAAR).

Both only ever add to a map, and what they add starts at exactly 0: y = x + IFFT(D (.) FFT(x) + Delta) + shift.

Axes: B batch, C channels, H W space, X columns of the half plane.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from faar_ray.config import DecoderConfig
from faar_ray.decoders.spectral import FILTERS, Size, low_band

HALVES = (torch.float16, torch.bfloat16)


class Consensus(nn.Module):
    """XT-Cons of one primary task at one resolution.

    Delta = (alpha_low M_low + alpha_high M_high) (F_avg - F_main), F_avg the mean spectrum of the other tasks. Both
    alphas start at 0; their gradients do not.
    """

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.alpha_low = nn.Parameter(torch.zeros(()))
        self.alpha_high = nn.Parameter(torch.zeros(()))

    def forward(self, main_BCHX: Tensor, others: Sequence[Tensor], size: Size) -> Tensor:
        """Delta (B, C, H, X), of maps of this size."""
        average_BCHX = torch.stack(list(others)).mean(0)
        strength_HX = torch.where(low_band(size, self.cutoff, main_BCHX.device), self.alpha_low, self.alpha_high)
        return strength_HX * (average_BCHX - main_BCHX)


class SpectralLevel(nn.Module):
    """One resolution: a filter for every task, a consensus for every primary task.

    Args:
        tasks: all of them.
        channels: of the maps at this resolution.
        native: their size at the image size of the config; the filters hold a cell per frequency of it.
        config: which of the two are on, the filter's kind, the cut-off, the primary tasks.
    """

    def __init__(self, tasks: Sequence[str], channels: int, native: Size, config: DecoderConfig) -> None:
        super().__init__()
        filtered = tasks if config.cw_sp else ()
        primary = (config.primary or tasks) if config.xt_cons else ()
        self.filters = nn.ModuleDict({task: FILTERS[config.filter](channels, native) for task in filtered})
        self.consensus = nn.ModuleDict({task: Consensus(config.cutoff) for task in primary})

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{task: (B, C, H, W)} -> the same, computed in float32 (or float64) whatever autocast says."""
        with torch.autocast(next(iter(maps.values())).device.type, enabled=False):
            full = {task: x.float() if x.dtype in HALVES else x for task, x in maps.items()}
            out = self._in_full_precision(full)
        return {task: y.to(maps[task].dtype) for task, y in out.items()}

    def _in_full_precision(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        size: Size = tuple(next(iter(maps.values())).shape[-2:])  # type: ignore[assignment]
        spectra = {task: torch.fft.rfft2(x) for task, x in maps.items()}
        added: dict[str, Tensor] = {}
        out = dict(maps)
        for task, cw_sp in self.filters.items():
            deviation_CHX, shift_C = cw_sp(size)
            added[task] = deviation_CHX * spectra[task]
            spectra[task] = spectra[task] + added[task] + _spectrum_of_constant(shift_C, size)
            out[task] = out[task] + shift_C[:, None, None]
        for task, xt_cons in self.consensus.items():
            delta = xt_cons(spectra[task], [other for name, other in spectra.items() if name != task], size)
            added[task] = added[task] + delta if task in added else delta
        return {task: y + torch.fft.irfft2(added[task], s=size) if task in added else y for task, y in out.items()}


def _spectrum_of_constant(value_C: Tensor, size: Size) -> Tensor:
    """`rfft2` of maps that are constant: all at DC, (C, H, X)."""
    at_dc = value_C.new_zeros(size[0], size[1] // 2 + 1)
    at_dc[0, 0] = size[0] * size[1]
    return value_C[:, None, None] * at_dc


class SpectralPyramid(nn.Module):
    """TS-PD between the reductions and the concatenation of all heads: one `SpectralLevel` per resolution."""

    def __init__(
        self, tasks: Sequence[str], channels: Sequence[int], native: Sequence[Size], config: DecoderConfig
    ) -> None:
        super().__init__()
        pairs = zip(channels, native, strict=True)
        self.levels = nn.ModuleList(SpectralLevel(tasks, c, size, config) for c, size in pairs)

    def forward(self, maps: Mapping[str, Sequence[Tensor]]) -> dict[str, list[Tensor]]:
        """{task: [(B, C_i, H_i, W_i), finest first]} -> the same shapes."""
        out: dict[str, list[Tensor]] = {task: [] for task in maps}
        for i, level in enumerate(self.levels):
            for task, y in level({task: of_task[i] for task, of_task in maps.items()}).items():
                out[task].append(y)
        return out
