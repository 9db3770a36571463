"""The Task-Spectral Pyramidal Decoder's spectral part: CW-SP, then XT-Cons, on the reduced maps of all tasks (FAAR).

Both only ever add to a map: y = x + IFFT(D (.) FFT(x) + Delta) + shift. What they add starts at exactly 0, unless
`decoder.filter` is rings or `decoder.consensus` amplitude, as in FAAR's released code.

Axes: B batch, C channels, H W space, X columns of the half plane.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from faar_ray.config.trial import DecoderConfig
from faar_ray.decoders.consensus import CONSENSUS
from faar_ray.decoders.spectral import FILTERS, Size
from faar_ray.decoders.upsample import upsampled

HALVES = (torch.float16, torch.bfloat16)


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
        self.filters = nn.ModuleDict({task: FILTERS[config.filter](channels, native, config) for task in filtered})
        self.kind, self.unfiltered = CONSENSUS[config.consensus], config.donors == "unfiltered"
        self.consensus = nn.ModuleDict({task: self.kind(config.cutoff, config.plane) for task in primary})

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
            donors = spectra if self.unfiltered else filtered
            average = (donors.sum(0) - donors) / (len(tasks) - 1)
            pulled: dict[str, Any] = dict(self.consensus.items())
            added = added + self.kind.pulls([pulled.get(task) for task in tasks], filtered, average, size)
        back: Tensor = torch.fft.irfft2(added, s=size)
        return back + constant


def _dc(size: Size, like: Tensor) -> Tensor:
    """`rfft2` of maps that are 1 everywhere: all at DC, (H, X)."""
    at_dc = like.new_zeros(size[0], size[1] // 2 + 1)
    at_dc[0, 0] = size[0] * size[1]
    return at_dc


class SpectralPyramid(nn.Module):
    """TS-PD between the reductions and the concatenation of all heads: one `SpectralLevel` per map of the pyramid.

    With `decoder.spectra: upsampled` all maps are first upsampled to the finest one's size.
    """

    def __init__(
        self, tasks: Sequence[str], channels: Sequence[int], native: Sequence[Size], config: DecoderConfig
    ) -> None:
        super().__init__()
        self.upsamples = config.spectra == "upsampled"
        pairs = zip(channels, [native[0]] * len(native) if self.upsamples else native, strict=True)
        self.levels = nn.ModuleList(SpectralLevel(tasks, c, size, config) for c, size in pairs)

    def forward(self, maps: Mapping[str, Sequence[Tensor]]) -> dict[str, list[Tensor]]:
        """{task: [(B, C_i, H_i, W_i), finest first]} -> the same shapes, or the finest one's size."""
        out: dict[str, list[Tensor]] = {task: [] for task in maps}
        for i, level in enumerate(self.levels):
            of_level = {task: of_task[i] for task, of_task in maps.items()}
            if self.upsamples:
                finest = next(iter(maps.values()))[0].shape
                of_level = {task: upsampled(x, (finest[-2], finest[-1])) for task, x in of_level.items()}
            for task, y in level(of_level).items():
                out[task].append(y)
        return out
