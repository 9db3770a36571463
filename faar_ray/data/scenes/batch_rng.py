"""Random tensors for a chunk of images, all from one private generator."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from faar_ray.data.scenes.domains import Range


class BatchRng:
    """Random tensors whose first axis is the N images of a chunk."""

    def __init__(self, images: int, source: torch.Generator) -> None:
        """Draw for `images` images from the private generator `source`."""
        self.images = images
        self.source = source

    def uniform(self, bounds: Range, *shape: int) -> Tensor:
        """Uniform in bounds, shape (N, *shape)."""
        low, high = bounds
        return low + (high - low) * torch.rand(self.images, *shape, generator=self.source)

    def signed(self, reach: float, *shape: int) -> Tensor:
        """Uniform in -reach..reach, shape (N, *shape)."""
        return self.uniform((-reach, reach), *shape)

    def normal(self, spread: float, *shape: int) -> Tensor:
        """Gaussian of standard deviation `spread`, shape (N, *shape)."""
        return spread * torch.randn(self.images, *shape, generator=self.source)

    def chance(self, share: float, *shape: int) -> Tensor:
        """True with probability `share`, shape (N, *shape), bool."""
        return torch.rand(self.images, *shape, generator=self.source) < share

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Whole numbers low..high, both included, shape (N, *shape)."""
        return torch.randint(low, high + 1, (self.images, *shape), generator=self.source)

    def choice(self, weights: tuple[float, ...], *shape: int) -> Tensor:
        """Index into weights, drawn in proportion to them, shape (N, *shape)."""
        count = self.images * int(np.prod(shape))
        drawn = torch.multinomial(torch.tensor(weights), count, replacement=True, generator=self.source)
        return drawn.view(self.images, *shape)
