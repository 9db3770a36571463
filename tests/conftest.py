"""What all tests share: one thread, and a cache that is not the user's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Data and references that tests make go to a folder of their own."""
    folder = tmp_path_factory.mktemp("faar_ray_cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAAR_RAY_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Bit-for-bit tests need a fixed number of threads, and the machine may be shared."""
    torch.set_num_threads(1)
