"""`swin_micro` is really pretrained, and what is loaded is what was shipped."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from faar_ray.config.trial import TrialConfig
from faar_ray.errors import DataError
from faar_ray.models import build_model, micro
from faar_ray.storage.run_location import RunLocation
from faar_ray.train.fit import fit
from faar_ray.train.pretrain import SOURCE
from faar_ray.train.trial_spec import TrialSpec


def test_the_card_describes_the_shipped_file_and_the_config_that_made_it() -> None:
    assert micro.weights_path().stat().st_size < 4e6
    assert TrialConfig.resolve(micro.card()["config"]) == TrialConfig.resolve(SOURCE)  # keys added since: defaults
    assert micro.card()["metrics"]["val/semseg/miou"] > 50
    assert 1.2e6 < sum(p.numel() for p in micro.architecture().parameters()) < 1.4e6


def test_a_changed_byte_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "swin_micro.safetensors"
    for name in (copy.name, "swin_micro.json"):
        shutil.copy(micro.weights_path().parent / name, tmp_path / name)
    monkeypatch.setattr(micro, "weights_path", lambda: copy)
    build_model(TrialConfig())
    content = bytearray(copy.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    with pytest.raises(DataError, match="sha256 must be"):
        build_model(TrialConfig())


def test_pretraining_is_used_random_weights_lose_tens_of_points(tmp_path: Path) -> None:
    """Decoder-only on the target domain; delta_m against the pretrained one."""
    result: dict[bool, dict[str, float]] = {}
    for pretrained in (True, False):
        config = TrialConfig.resolve(
            {
                "method": "decoder_only",
                "backbone": {"pretrained": pretrained, "pyramid": "stages"},
                "data": {"tasks": ["semseg", "normals"], "train_images": 120, "val_images": 60, "test_images": 60},
                "optim": {"epochs": 4, "batch_size": 10, "lr": 6e-3, "clip": 1.0, "weight_decay": 1e-4},
            }
        )
        references = None if pretrained else {"semseg": result[True]["miou"], "normals": result[True]["angle"]}
        folder = tmp_path / str(pretrained)
        *_, last = fit(TrialSpec("t", config, RunLocation(folder), references=references))
        metrics = last.metrics
        result[pretrained] = {"miou": metrics["val/semseg/miou"], "angle": metrics["val/normals/mean_angle"]}
    assert metrics["delta_m"] < -20
