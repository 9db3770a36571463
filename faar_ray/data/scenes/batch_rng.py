"""Random tensors for a chunk of images, all from one private generator."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from faar_ray.data.scenes.domains import Range


class BatchRng:
    """Random tensors whose first axis is the N images of a chunk."""

    def __init__(self, images: int, generator: torch.Generator) -> None:
        """Draw for `images` images from a private generator."""
        self.images = images
        self.generator = generator

    def uniform(self, bounds: Range, *shape: int) -> Tensor:
        """Uniform in bounds, shape (N, *shape)."""
        low, high = bounds
        return low + (high - low) * torch.rand(self.images, *shape, generator=self.generator)

    def signed(self, bound: float, *shape: int) -> Tensor:
        """Uniform in -bound..bound, shape (N, *shape)."""
        return self.uniform((-bound, bound), *shape)

    def normal(self, deviation: float, *shape: int) -> Tensor:
        """Gaussian of standard deviation `deviation`, shape (N, *shape)."""
        return deviation * torch.randn(self.images, *shape, generator=self.generator)

    def chance(self, probability: float, *shape: int) -> Tensor:
        """True with probability `probability`, shape (N, *shape), bool."""
        return torch.rand(self.images, *shape, generator=self.generator) < probability

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Whole numbers low..high, both included, shape (N, *shape)."""
        return torch.randint(low, high + 1, (self.images, *shape), generator=self.generator)

    def choice(self, weights: tuple[float, ...], *shape: int) -> Tensor:
        """Index into weights, drawn in proportion to them, shape (N, *shape)."""
        count = self.images * int(np.prod(shape))
        index = torch.multinomial(torch.tensor(weights), count, replacement=True, generator=self.generator)
        return index.view(self.images, *shape)
