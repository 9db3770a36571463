"""Warnings of a trial's process."""

from __future__ import annotations

import logging

from faar_ray.tune.execute.trainable import notes


def test_warnings_of_the_package_are_kept_until_taken() -> None:
    kept = notes()
    assert notes() is kept
    kept.taken()  # what other tests' trials in this process warned of
    logging.getLogger("faar_ray.train.checkpoint").warning("%s: damaged", "epoch_0001.pt")
    logging.getLogger("faar_ray.data").info("nobody needs this")
    assert kept.taken() == ["epoch_0001.pt: damaged"]
    assert kept.taken() == []
    logging.getLogger("faar_ray").removeHandler(kept)
