"""Pictures of predictions: one per image and task, at the image's size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from faar_ray.config.trial import TrialConfig
from faar_ray.export.adapter_file import write_adapter
from faar_ray.models import build_model
from faar_ray.predict import coloured, main

TASKS = ("semseg", "human_parts", "saliency", "normals", "depth", "edge")


@pytest.fixture
def trial(tmp_path: Path) -> Path:
    raw = {"backbone": {"pretrained": False}, "ranks": {"init_rank": 2}, "data": {"tasks": TASKS}}
    config = TrialConfig.resolve(raw)
    write_adapter(tmp_path / "t" / "adapter.safetensors", build_model(config), config)
    pixels = np.random.default_rng(0).integers(0, 255, (40, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "street.png")
    return tmp_path


def test_every_task_becomes_a_picture_of_the_images_size(trial: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(trial / "t"), str(trial / "street.png"), "--out", str(trial / "out")]) == 0
    expected = {trial / "out" / f"street_{task}.png" for task in TASKS}
    assert set((trial / "out").iterdir()) == expected
    assert set(map(Path, capsys.readouterr().out.split())) == expected
    for path in expected:
        with Image.open(path) as opened:
            assert opened.size == (90, 40)
    assert main([str(trial / "t"), str(trial / "street.png"), "--out", str(trial / "out")]) == 2
    assert "street_semseg.png exists and is not written over" in capsys.readouterr().err


def test_outputs_are_coloured_by_what_they_say() -> None:
    labels = torch.tensor([0, 3]).repeat(4, 1)
    logits = torch.nn.functional.one_hot(labels, 9).movedim(-1, 0).float()
    by_label = coloured("semseg", logits)
    assert not np.allclose(by_label[:, 0], by_label[:, 1])
    all_labels = torch.arange(40)[None]
    many = coloured("semseg", torch.nn.functional.one_hot(all_labels, 40).movedim(-1, 0).float())
    assert many.shape == (1, 40, 3) and len(np.unique(many[0], axis=0)) == 40
    assert np.allclose(coloured("saliency", torch.tensor([[[-50.0, 50.0]]])), [[[0] * 3, [1] * 3]])


@pytest.mark.parametrize(("name", "says"), [("none.png", "no such image"), ("text.png", "cannot be read as an image")])
def test_what_is_no_image_is_refused_by_name(
    trial: Path, name: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (trial / "text.png").write_text("hello")
    assert main([str(trial / "t"), str(trial / name), "--out", str(trial / "out")]) == 2
    assert f"{name}: {says}" in capsys.readouterr().err
