"""The frequency plane: where DC lies, how bands part it, and filters that fit maps of every size."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from faar_ray.decoders.spectral import (
    GridFilter,
    RadialFilter,
    frequency_radius,
    hermitian,
    low_band,
    resampled,
)

SIZES = st.tuples(st.integers(1, 17), st.integers(1, 17))
CUTOFFS = st.floats(0.01, 1.0)


@given(SIZES, CUTOFFS)
def test_dc_is_low_at_every_size_and_cutoff(size: tuple[int, int], cutoff: float) -> None:
    assert frequency_radius(size)[0, 0] == 0
    assert low_band(size, cutoff)[0, 0]


@given(SIZES, CUTOFFS, CUTOFFS)
def test_low_and_high_partition_the_plane_and_a_higher_cutoff_only_adds_to_low(
    size: tuple[int, int], a: float, b: float
) -> None:
    low = low_band(size, min(a, b))
    assert low.dtype == torch.bool
    assert low.shape == torch.fft.rfft2(torch.zeros(size)).shape
    assert (low | ~low).all()
    assert not (low & ~low_band(size, max(a, b))).any()


@given(SIZES, CUTOFFS)
def test_a_constant_image_has_only_low_energy(size: tuple[int, int], cutoff: float) -> None:
    energy = torch.fft.rfft2(torch.full(size, 3.0, dtype=torch.float64)).abs().square()
    assert energy[~low_band(size, cutoff)].sum() <= 1e-18 * energy.sum()


@pytest.mark.parametrize("size", [(8, 8), (9, 12), (8, 7)])
def test_the_fastest_stripes_have_only_high_energy(size: tuple[int, int]) -> None:
    """Every second pixel along the columns; the mistake to avoid is a mask in which DC counts as high."""
    stripes = (torch.arange(size[1]) % 2).double().expand(size) - 0.5
    energy = torch.fft.rfft2(stripes - stripes.mean()).abs().square()
    assert energy[low_band(size, 0.5)].sum() < 0.1 * energy.sum()


@given(SIZES)
def test_a_filter_at_its_own_size_is_taken_as_it_is(size: tuple[int, int]) -> None:
    grid = torch.rand(size[0], size[1] // 2 + 1)
    assert torch.equal(resampled(grid, size, size), grid)


@given(SIZES, SIZES)
def test_resampling_keeps_dc_constants_and_bounds(native: tuple[int, int], size: tuple[int, int]) -> None:
    grid = torch.rand(native[0], native[1] // 2 + 1, dtype=torch.float64)
    out = resampled(grid, native, size)
    assert out.shape == (size[0], size[1] // 2 + 1)
    torch.testing.assert_close(out[0, 0], grid[0, 0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        resampled(torch.ones_like(grid), native, size), torch.ones_like(out), rtol=1e-5, atol=1e-5
    )
    assert grid.min() - 1e-5 <= out.min()
    assert out.max() <= grid.max() + 1e-5


def test_resampling_reads_a_smooth_filter_at_the_right_frequencies() -> None:
    def of(size: tuple[int, int]) -> torch.Tensor:
        rows = torch.fft.fftfreq(size[0], dtype=torch.float64)
        columns = torch.fft.rfftfreq(size[1], dtype=torch.float64)
        return torch.cos(2 * torch.pi * rows)[:, None] * torch.cos(2 * torch.pi * columns)

    for size in [(20, 31), (64, 80), (33, 48)]:
        assert (resampled(of((64, 64)), (64, 64), size) - of(size)).abs().max() < 0.005


@pytest.mark.parametrize("size", [(6, 6), (5, 7), (7, 4), (1, 1), (1, 6)])
def test_a_real_filter_on_the_half_plane_is_that_filter_on_the_whole_plane(size: tuple[int, int]) -> None:
    """Reference in float64 over the whole plane, W(-f) = W(f), by complex transforms."""
    torch.manual_seed(0)
    half = hermitian(torch.randn(size[0], size[1] // 2 + 1, dtype=torch.float64), size)
    mirrored = {(y, x): half[-y % size[0], size[1] - x] for y in range(size[0]) for x in range(half.shape[1], size[1])}
    whole = torch.zeros(size, dtype=torch.float64)
    whole[:, : half.shape[1]] = half
    for place, value in mirrored.items():
        whole[place] = value
    x = torch.randn(size, dtype=torch.float64)
    expected = torch.fft.ifft2(whole * torch.fft.fft2(x))
    assert expected.imag.abs().max() < 1e-12
    torch.testing.assert_close(torch.fft.irfft2(half * torch.fft.rfft2(x), s=size), expected.real)


@pytest.mark.parametrize("kind", [GridFilter, RadialFilter])
@pytest.mark.parametrize("size", [(8, 8), (5, 9), (1, 1)])
def test_a_filter_starts_by_adding_exactly_nothing(kind: type, size: tuple[int, int]) -> None:
    deviation, shift = kind(3, (8, 8))(size)
    assert deviation.expand(3, size[0], size[1] // 2 + 1).abs().max() == 0
    assert shift.abs().max() == 0


def test_a_radial_filter_treats_all_directions_alike_and_channels_apart() -> None:
    torch.manual_seed(0)
    filter_ = RadialFilter(2, (16, 16))
    torch.nn.init.normal_(filter_.gain_CN)
    deviation, _ = filter_((16, 16))
    torch.testing.assert_close(deviation[:, 3, 0], deviation[:, 0, 3])
    torch.testing.assert_close(deviation[:, 3, 2], deviation[:, -3, 2])
    assert not torch.equal(deviation[0], deviation[1])
