"""Orders of tokens against the rolls, partitions and merges that they replace."""

from __future__ import annotations

import pytest
import torch
from timm.models.swin_transformer import window_partition

from faar_ray.models.swin.token_layout import Layout, reorder

PLAIN = Layout(8, 12)


def raster(channels: int = 3) -> torch.Tensor:
    return torch.randn(2, 96, channels, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shift", [(0, 0), (2, 1)])
def test_window_order_is_roll_and_partition(shift: tuple[int, int]) -> None:
    x = raster()
    rolled = torch.roll(x.view(2, 8, 12, 3), shifts=(-shift[0], -shift[1]), dims=(1, 2))
    ours = reorder(x, PLAIN, Layout(8, 12, (4, 4), shift))
    assert torch.equal(ours.reshape(-1, 16, 3), window_partition(rolled, (4, 4)).flatten(1, 2))


def test_merging_order_is_that_of_timms_patch_merging() -> None:
    x = raster()
    expected = x.view(2, 4, 2, 6, 2, 3).permute(0, 1, 3, 4, 2, 5).flatten(3)
    assert torch.equal(reorder(x, PLAIN, PLAIN.merging()).reshape(2, 4, 6, 12), expected)


@pytest.mark.parametrize("compiling", [False, True])
def test_from_any_order_to_any_other_and_back_is_the_identity_with_its_gradient(
    compiling: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    orders = [PLAIN, PLAIN.merging(), Layout(8, 12, (4, 4), (2, 2)), Layout(8, 12, (4, 3))]
    for source in orders:
        for target in orders:
            x = raster().double().requires_grad_()
            moved = reorder(x, source, target)
            assert torch.equal(reorder(moved, target, source), x)
            assert torch.autograd.gradcheck(lambda x, s=source, t=target: reorder(x, s, t), (x[:1, :, :1],))


def test_streams_lie_before_images() -> None:
    x = torch.randn(3, 2, 96, 5)
    target = Layout(8, 12, (4, 4), (1, 1))
    assert torch.equal(reorder(x, PLAIN, target)[2], reorder(x[2], PLAIN, target))
