"""The Task-Spectral Pyramidal Decoder's spectral part: CW-SP, then XT-Cons, on the reduced maps of all tasks (FAAR).

Both only ever add to a map, and what they add starts at exactly 0: y = x + IFFT(D (.) FFT(x) + Delta) + shift.

Axes: B batch, C channels, H W space, X columns of the half plane.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from faar_ray.config.trial import DecoderConfig
from faar_ray.decoders.spectral import FILTERS, Size, low_band

HALVES = (torch.float16, torch.bfloat16)


class Consensus(nn.Module):
    """XT-Cons of one primary task at one resolution: the alphas of Delta = alpha M (F_avg - F_main), one per band.

    Both start at 0; their gradients do not.
    """

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.alpha_low = nn.Parameter(torch.zeros(()))
        self.alpha_high = nn.Parameter(torch.zeros(()))

    def forward(self, size: Size) -> Tensor:
        """alpha_low M_low + alpha_high M_high for maps of this size, (H, X)."""
        low_HX = low_band(size, self.cutoff, self.alpha_low.device)
        return torch.where(low_HX, self.alpha_low, self.alpha_high)


class SpectralLevel(nn.Module):
    """One resolution: a filter for every task, a consensus for every primary task; all tasks in one transform.

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
        """{task: (B, C, H, W)} -> the same, computed in float32 (or float64) also under autocast."""
        x_TBCHW = torch.stack(list(maps.values()))
        with torch.autocast(x_TBCHW.device.type, enabled=False):
            full = x_TBCHW.float() if x_TBCHW.dtype in HALVES else x_TBCHW
            y_TBCHW = full + self._added(list(maps), full)
        return dict(zip(maps, y_TBCHW.to(x_TBCHW.dtype).unbind(0), strict=True))

    def _added(self, tasks: Sequence[str], x_TBCHW: Tensor) -> Tensor:
        """IFFT(D (.) FFT(x) + Delta) + shift."""
        size = (x_TBCHW.shape[-2], x_TBCHW.shape[-1])
        spectra = torch.fft.rfft2(x_TBCHW)
        added, constant = torch.zeros_like(spectra), x_TBCHW.new_zeros(())
        if self.filters:
            filters = [self.filters[task](size) for task in tasks]
            added = torch.stack([deviation_CHX for deviation_CHX, _ in filters])[:, None] * spectra
            constant = torch.stack([shift_C for _, shift_C in filters])[:, None, :, None, None]
        if self.consensus:
            filtered = spectra + added + constant * _dc(size, x_TBCHW)
            average = (filtered.sum(0) - filtered) / (len(tasks) - 1)
            added = added + self._strength(tasks, size, x_TBCHW) * (average - filtered)
        back: Tensor = torch.fft.irfft2(added, s=size)
        return back + constant

    def _strength(self, tasks: Sequence[str], size: Size, like: Tensor) -> Tensor:
        """How far each task is pulled at each frequency, (T, 1, 1, H, X); 0 where it is not primary."""
        none = like.new_zeros(size[0], size[1] // 2 + 1)
        strengths = [self.consensus[task](size) if task in self.consensus else none for task in tasks]
        return torch.stack(strengths)[:, None, None]


def _dc(size: Size, like: Tensor) -> Tensor:
    """`rfft2` of maps that are 1 everywhere: all at DC, (H, X)."""
    at_dc = like.new_zeros(size[0], size[1] // 2 + 1)
    at_dc[0, 0] = size[0] * size[1]
    return at_dc


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
