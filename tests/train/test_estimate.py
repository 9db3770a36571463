"""What a dry run says of the time that a trial takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from faar_ray.config.trial import TrialConfig
from faar_ray.train.estimate import data_is_here, seconds_per_epoch

from ..data.photographs.trees import nyud_tree


def small(root: Path | None = None, **keys: object) -> TrialConfig:
    data = {"name": "nyud", "root": str(root), "tasks": ["semseg", "depth"], "image_size": 32, "val_share": 0.25}
    raw = {"data": data, "backbone": {"pretrained": False}, "ranks": {"init_rank": 4}, "optim": {"batch_size": 2}}
    return TrialConfig.resolve(raw, **keys)


def test_a_few_steps_stand_for_an_epoch_and_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAAR_RAY_CACHE", str(tmp_path / "cache"))
    config = small(nyud_tree(tmp_path / "NYUD_MT"))
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    assert 0 < seconds_per_epoch(config) < 600
    assert torch.get_num_threads() == threads and torch.equal(state, torch.get_rng_state())
    assert not (tmp_path / "cache").exists()  # nothing is decoded for later trials


def test_data_that_are_elsewhere_or_not_made_yet_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAAR_RAY_CACHE", str(tmp_path / "cache"))
    assert data_is_here(small(nyud_tree(tmp_path / "here")))
    assert not data_is_here(small(tmp_path / "absent"))
    assert not data_is_here(small(**{"data.root": "s3://bucket/nyud"}))
    assert not data_is_here(TrialConfig())
