"""Multiply-adds of grouped convolutions, against their count by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from faar_ray.bench.step.macs import macs_of


@pytest.mark.parametrize("groups", [1, 4, 8])
def test_each_gradient_of_a_convolution_takes_what_its_forward_pass_took(groups: int) -> None:
    images = torch.randn(2, 8, 10, 12, requires_grad=True)
    kernel = torch.randn(8, 8 // groups, 3, 3, requires_grad=True)
    forward = 2 * 8 * (8 // groups) * 9 * 10 * 12

    assert macs_of(lambda: F.conv2d(images, kernel, padding=1, groups=groups)) == forward
    assert macs_of(lambda: F.conv2d(images, kernel, padding=1, groups=groups).sum().backward()) == 3 * forward
    assert macs_of(lambda: F.conv2d(images.detach(), kernel, padding=1, groups=groups).sum().backward()) == 2 * forward
