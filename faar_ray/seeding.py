"""Private random streams, named by what they are for: the same names give the same draws, nothing else moves them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed_of(*names: int | str) -> int:
    """A 63-bit seed for a named stream, e.g. `seed_of(seed, "order", epoch)`."""
    digest = hashlib.blake2b(repr(names).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def private(*names: int | str) -> torch.Generator:
    """A CPU generator for a named stream."""
    import torch  # seconds and half a gigabyte, which names alone do not need

    return torch.Generator().manual_seed(seed_of(*names))


@contextmanager
def seeded(*names: int | str) -> Iterator[None]:
    """Library draws (inits) inside the block use the named stream; the global state is as before afterwards."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(*names))
        yield
