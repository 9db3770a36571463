"""The frequency plane of `rfft2`: radii, bands, and learned filters on it (FAAR, CW-SP).

Frequencies come from `fftfreq` and `rfftfreq`, in cycles per sample, so that a cell's place in the tensor is that of
its frequency: DC is cell (0, 0). A filter G is held as its deviation D = G - 1 and starts at D = 0: the identity,
exactly; weight decay pulls towards it. `RingFilter` alone starts elsewhere.

Axes: C channels, H rows (all frequencies), X columns (W // 2 + 1, the half plane), N bins.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from faar_ray.config.trial import DecoderConfig

NYQUIST = 0.5
RADIAL_BINS = 16
RADIAL_GAIN = 0.6
DRAWN = 0.02
"""Standard deviation of what `RingFilter` draws."""
Size = tuple[int, int]


def frequency_radius(size: Size, device: torch.device | None = None) -> Tensor:
    """Distance from DC of every cell of `rfft2`, in cycles per sample, shape (H, W // 2 + 1)."""
    rows_H = torch.fft.fftfreq(size[0], device=device)
    columns_X = torch.fft.rfftfreq(size[1], device=device)
    return torch.hypot(rows_H[:, None], columns_X[None, :])


def radius_on(plane: str, size: Size, device: torch.device | None = None) -> Tensor:
    """What tells rings and bands apart, in units of Nyquist's radius, (H, W // 2 + 1).

    `frequencies`: of a cell's frequency. `unshifted` (the released code): rows from -1 to 1 as if DC lay in the middle,
    though `rfft2` has it in the first, columns from 0 to 1; at most 1.
    """
    if plane == "frequencies":
        return frequency_radius(size, device) / NYQUIST
    rows_H = torch.linspace(-1, 1, size[0], device=device)
    columns_X = torch.linspace(0, 1, size[1] // 2 + 1, device=device)
    return (rows_H[:, None].square() + columns_X[None, :].square()).clamp(0, 1).sqrt()


def low_band(size: Size, cutoff: float, device: torch.device | None = None) -> Tensor:
    """Boolean mask M_low (H, X): radius at most `cutoff` of Nyquist's; M_high is its complement."""
    return frequency_radius(size, device) <= cutoff * NYQUIST


def resampled(grid_HX: Tensor, native: Size, size: Size) -> Tensor:
    """A filter over the plane of maps of size `native`, read at the frequencies of maps of another size.

    Linear between neighbouring frequencies, periodic over rows, constant beyond the last column; equal sizes give the
    grid itself.
    """
    if native == size:
        return grid_HX
    rows = torch.fft.fftfreq(size[0], 1 / native[0], device=grid_HX.device)
    columns = torch.fft.rfftfreq(size[1], 1 / native[1], device=grid_HX.device)
    up = (rows[:, None] - torch.arange(native[0], device=grid_HX.device)).remainder(native[0])
    along = columns.clamp_max(native[1] // 2)[:, None] - torch.arange(native[1] // 2 + 1, device=grid_HX.device)
    weights_hH = _hat(up) + _hat(native[0] - up)  # periodic: a row is reached from both sides
    return weights_hH.to(grid_HX) @ grid_HX @ _hat(along).to(grid_HX).t()


def _hat(distance: Tensor) -> Tensor:
    return (1 - distance.abs()).clamp_min(0)


def hermitian(filter_HX: Tensor, size: Size) -> Tensor:
    """Filters (..., H, X) with W(-f) = W(f) on the columns that hold both f and -f, so that real maps stay real."""
    height, width = size
    mirror = -torch.arange(height, device=filter_HX.device) % height
    self_conjugate = torch.zeros(width // 2 + 1, dtype=torch.bool, device=filter_HX.device)
    self_conjugate[0] = True
    self_conjugate[-1] = self_conjugate[-1] | (width % 2 == 0)
    return torch.where(self_conjugate, (filter_HX + filter_HX[..., mirror, :]) / 2, filter_HX)


class GridFilter(nn.Module):
    """A real matrix W over the frequency plane, shared by channels (the seed's), then scale and shift per channel.

    y = scale (W (.) FFT(x)) + shift; all channels of one task at one resolution.
    """

    def __init__(self, channels: int, native: Size) -> None:
        super().__init__()
        self.native = native
        self.deviation_HX = nn.Parameter(torch.zeros(native[0], native[1] // 2 + 1))
        self.scale_C = nn.Parameter(torch.ones(channels))
        self.shift_C = nn.Parameter(torch.zeros(channels))

    def forward(self, size: Size) -> tuple[Tensor, Tensor]:
        """What the filter adds to the identity at maps of this size: D (C, H, X), and the shift (C,)."""
        filter_HX = 1 + hermitian(resampled(self.deviation_HX, self.native, size), size)
        return self.scale_C[:, None, None] * filter_HX - 1, self.shift_C


class RadialFilter(nn.Module):
    """A gain per channel and ring of frequencies: y = x + 0.6 (scale (V (.) FFT(x)) + shift).

    V starts at 0 and the shift at 0, so y starts as x.
    """

    def __init__(self, channels: int, native: Size) -> None:
        super().__init__()
        self.gain_CN = nn.Parameter(torch.zeros(channels, RADIAL_BINS))
        self.scale_C = nn.Parameter(torch.ones(channels))
        self.shift_C = nn.Parameter(torch.zeros(channels))

    def forward(self, size: Size) -> tuple[Tensor, Tensor]:
        """What the filter adds to the identity at maps of this size: D (C, H, X), and the shift (C,)."""
        radius = frequency_radius(size, self.gain_CN.device) / (NYQUIST * 2**0.5)
        ring_HX = (radius * RADIAL_BINS).long().clamp_max(RADIAL_BINS - 1)
        gain = self.scale_C[:, None, None] * self.gain_CN[:, ring_HX]
        return RADIAL_GAIN * gain, RADIAL_GAIN * self.shift_C


class RingFilter(nn.Module):
    """Around 1 per channel and ring, with a trained residual (the released code's): y = x + a (scale (W (.) FFT(x)) +
    shift), inverse FFT within.

    All but a are drawn at the start: W = 1 + N(0, 0.02^2), scale N(1, 0.02^2), shift N(0, 0.02^2); so y starts at about
    (1 + a) x. All have two axes, so that weight decay is on them, as it is there.
    """

    def __init__(self, channels: int, gain: float, plane: str) -> None:
        super().__init__()
        self.plane = plane
        self.deviation_NC = nn.Parameter(DRAWN * torch.randn(RADIAL_BINS, channels))
        self.scale_1C = nn.Parameter(1 + DRAWN * torch.randn(1, channels))
        self.shift_1C = nn.Parameter(DRAWN * torch.randn(1, channels))
        self.gain_11 = nn.Parameter(torch.full((1, 1), gain))

    def forward(self, size: Size) -> tuple[Tensor, Tensor]:
        """What the filter adds to the identity at maps of this size: D (C, H, X), and the shift (C,)."""
        radius_HX = radius_on(self.plane, size, self.gain_11.device)
        borders = torch.linspace(0, 1, RADIAL_BINS + 1, device=radius_HX.device)[1:-1]
        filter_CHX = 1 + self.deviation_NC.t()[:, torch.bucketize(radius_HX, borders)]
        scale_C11 = (self.gain_11 * self.scale_1C)[0, :, None, None]
        return scale_C11 * hermitian(filter_CHX, size), (self.gain_11 * self.shift_1C)[0]


FILTERS: dict[str, Callable[[int, Size, DecoderConfig], nn.Module]] = {
    "grid": lambda channels, native, config: GridFilter(channels, native),
    "radial": lambda channels, native, config: RadialFilter(channels, native),
    "rings": lambda channels, native, config: RingFilter(channels, config.filter_gain, config.plane),
}
