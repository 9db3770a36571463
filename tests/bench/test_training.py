"""`bench train` takes real steps and says what they took; no verdict depends on times."""

from __future__ import annotations

import json

import pytest

from faar_ray.bench.__main__ import main


def test_steps_of_a_trial_are_measured_with_their_reading(capsys: pytest.CaptureFixture[str]) -> None:
    keys = ["data.train_images=8", "data.val_images=4", "data.image_size=32", "optim.batch_size=4"]
    assert main(["train", "scenes", *keys, "--steps", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["device"] == "cpu"
    assert result["images_per_s"] > 0 and 0 <= result["waiting_share"] <= 1
    assert result["launches"]["count"] > 100 and result["busy"] is None
    assert "of the time waits for batches" in result["says"]
