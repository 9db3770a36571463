"""The HRNet head."""

from __future__ import annotations

import pytest
import torch

from faar_ray.decoders import HRNetHead


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
