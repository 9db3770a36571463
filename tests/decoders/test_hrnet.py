"""The HRNet head."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from faar_ray.bench.step.floor import plain_head
from faar_ray.decoders import HRNetHead
from faar_ray.decoders.upsample import upsampled


def test_parameters_on_swin_tiny_are_those_of_the_recipe() -> None:
    """METHODS, shared ground: 1x1 to (18, 36, 72, 144), 270 -> 1080 with bias, BN, 1080 -> n."""
    head = HRNetHead((192, 384, 768, 768), 21, width=18)
    reductions = 192 * 18 + 384 * 36 + 768 * 72 + 768 * 144
    assert reductions == 183_168
    total = sum(p.numel() for p in head.parameters())
    assert total == reductions + 270 * 1080 + 1080 + 2 * 1080 + 1080 * 21 + 21


@pytest.mark.parametrize("size", [(64, 64), (40, 72), (33, 47)])
def test_any_size_gives_a_map_of_that_size(size: tuple[int, int]) -> None:
    head = HRNetHead((8, 16), 3, width=2)
    maps = [torch.randn(2, 8, -(-size[0] // 8), -(-size[1] // 8)), torch.randn(2, 16, 3, 3)]
    assert head(maps, size).shape == (2, 3, *size)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [(64, 64), (40, 72), (33, 47)])
def test_outputs_and_gradients_equal_those_of_plain_convolutions(size: tuple[int, int], training: bool) -> None:
    torch.manual_seed(0)
    head = HRNetHead((8, 16), 3, width=2).double().train(training)
    maps = [torch.randn(2, 8, -(-size[0] // 8), -(-size[1] // 8)), torch.randn(2, 16, 3, 3)]
    of = [x.double().requires_grad_() for x in maps]
    result = []
    for forward in (head, partial(plain_head, head)):
        y = forward(of, size)
        result.append([y, *torch.autograd.grad(y.square().sum(), [*of, *head.parameters()])])
    torch.testing.assert_close(*result, rtol=1e-9, atol=1e-9)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 30), st.integers(1, 30))
def test_upsampling_by_products_is_bilinear_interpolation(h: int, w: int, height: int, width: int) -> None:
    x = torch.randn(2, 3, h, w, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.interpolate(x, size=(height, width), mode="bilinear")
    torch.testing.assert_close(upsampled(x, (height, width)), expected, rtol=1e-10, atol=1e-10)
