"""Warnings of a trial's process."""

from __future__ import annotations

import logging

from faar_ray.tune.execute.trainable import warning_collector


def test_warnings_of_the_package_are_kept_until_taken() -> None:
    kept = warning_collector()
    assert warning_collector() is kept
    kept.take()  # what other tests' trials in this process warned of
    logging.getLogger("faar_ray.train.checkpoint").warning("%s: damaged", "epoch_0001.pt")
    logging.getLogger("faar_ray.data").info("nobody needs this")
    assert kept.take() == ["epoch_0001.pt: damaged"]
    assert kept.take() == []
    logging.getLogger("faar_ray").removeHandler(kept)
