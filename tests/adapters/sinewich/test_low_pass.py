"""The Gaussian low-pass against scipy, and what it must leave alone."""

from __future__ import annotations

import pytest
import torch
from scipy.ndimage import correlate1d

from faar_ray.adapters.sinewich import low_pass as module
from faar_ray.adapters.sinewich.low_pass import low_pass, norm_kept, taps


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(3, 3), (40, 24), (300, 130)])
@pytest.mark.parametrize(("size", "sigma"), [(3, 0.5), (7, 1.0), (9, 2.0)])
def test_equals_scipy_with_mirrored_edges(shape: tuple[int, int], size: int, sigma: float) -> None:
    x, weights = random(2, *shape), taps(size, sigma)
    expected = x.numpy()
    for axis in (-1, -2):
        expected = correlate1d(expected, weights, axis=axis, mode="reflect")
    torch.testing.assert_close(low_pass(x, size, sigma), torch.from_numpy(expected), rtol=0, atol=1e-14)


def test_chunks_of_rows_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    x = random(2, 300, 130)
    chunked = low_pass(x, 7, 1.0)
    monkeypatch.setattr(module, "IN_CACHE", 10**9)
    torch.testing.assert_close(low_pass(x, 7, 1.0), chunked, rtol=0, atol=1e-15)


@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_constant_stays_one(size: int) -> None:
    constant = torch.full((30, 20), 0.7, dtype=torch.float64)
    torch.testing.assert_close(low_pass(constant, size, 1.3), constant, rtol=0, atol=1e-15)


def test_one_tap_is_the_identity() -> None:
    x = random(8, 5)
    assert torch.equal(low_pass(x, 1, 1.0), x)


@pytest.mark.parametrize("shape", [(3, 3), (17, 9)])
def test_is_its_own_adjoint_and_its_gradient_is_right(shape: tuple[int, int]) -> None:
    x = random(2, *shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: low_pass(x, 7, 1.0), (x,))
    a, b = random(*shape), random(*shape).flip(0)
    torch.testing.assert_close((low_pass(a, 7, 1.0) * b).sum(), (a * low_pass(b, 7, 1.0)).sum())


def test_white_noise_loses_the_norm_that_is_given_back() -> None:
    """METHODS: K = 7, sigma = 1 keeps 0.28."""
    kept = norm_kept((384, 384), 7, 1.0)
    assert kept == pytest.approx(0.282, abs=0.01)
    x = random(384, 384)
    assert float(low_pass(x, 7, 1.0).norm() / x.norm()) == pytest.approx(kept, rel=0.02)
    small = random(4000, 3, 3)
    assert float(low_pass(small, 7, 1.0).norm() / small.norm()) == pytest.approx(norm_kept((3, 3), 7, 1.0), rel=0.02)


def test_high_frequencies_are_what_goes() -> None:
    alternating = torch.tensor([1.0, -1.0]).repeat(20).expand(40, 40)
    slow = torch.cos(torch.linspace(0, 6.28, 40)).expand(40, 40)
    assert low_pass(alternating, 7, 1.0).norm() < 0.1 * alternating.norm()
    assert low_pass(slow, 7, 1.0).norm() > 0.95 * slow.norm()
