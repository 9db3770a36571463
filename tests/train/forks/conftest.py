"""Forks are compared by what they train, not by their pictures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from faar_ray.train import trial_sink


@pytest.fixture(scope="module", autouse=True)
def no_pictures() -> Iterator[None]:
    """Drawing takes as long as an epoch of these trials; the scope is that of the fixtures that train them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial_sink, "draw_pictures", lambda paths, title: False)
        yield
