"""Pictures of predictions: one per image and task, at the image's size."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from faar_ray.config.trial import DataConfig, TrialConfig
from faar_ray.export.adapter_file import write_adapter
from faar_ray.models import build_model
from faar_ray.predict import coloured, enlarged, main, painted, predict
from faar_ray.tasks import tasks_of

TASKS = ("semseg", "human_parts", "saliency", "normals", "depth", "edge")

KNOWN = tasks_of(DataConfig(tasks=TASKS))


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
    by_label = coloured(KNOWN["semseg"], logits)
    assert not np.allclose(by_label[:, 0], by_label[:, 1])
    all_labels = torch.arange(40)[None]
    nyud = tasks_of(DataConfig(name="nyud", tasks=("semseg",)))
    many = coloured(nyud["semseg"], torch.nn.functional.one_hot(all_labels, 40).movedim(-1, 0).float())
    assert many.shape == (1, 40, 3) and len(np.unique(many[0], axis=0)) == 40
    assert np.allclose(coloured(KNOWN["saliency"], torch.tensor([[[-50.0, 50.0]]])), [[[0] * 3, [1] * 3]])


@pytest.mark.parametrize(
    ("name", "says"), [("none.png", "no such picture"), ("text.png", "cannot be read as a picture")]
)
def test_what_is_no_image_is_refused_by_name(
    trial: Path, name: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (trial / "text.png").write_text("hello")
    assert main([str(trial / "t"), str(trial / name), "--out", str(trial / "out")]) == 2
    assert f"{name}: {says}" in capsys.readouterr().err
    assert not (trial / "out").exists()


def arrays_of(pixels: int) -> Iterator[object]:
    """Pictures and tensors in memory with at least so many pixels."""
    for thing in gc.get_objects():
        if type(thing) is torch.Tensor and thing.numel() >= pixels:
            yield thing
        if isinstance(thing, Image.Image) and thing.width * thing.height >= pixels:
            yield thing


def test_one_picture_at_a_time_is_in_memory(trial: Path) -> None:
    height, width = 300, 7000  # more pixels than any weight of the model has values
    paths = [trial / f"{name}.png" for name in "abc"]
    for path in paths:
        Image.new("RGB", (width, height)).save(path)
    written = predict(str(trial / "t"), paths, trial / "out", tracking_uri="")
    for _ in range(len(TASKS) + 1):  # the second picture's first
        next(written)
        gc.collect()
        assert len(list(arrays_of(width * height))) == 1


def test_a_broken_picture_is_refused_before_anything_is_written(
    trial: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (trial / "cut.png").write_bytes((trial / "street.png").read_bytes()[:2000])
    arguments = [str(trial / "t"), str(trial / "street.png"), str(trial / "cut.png"), "--out", str(trial / "out")]
    assert main(arguments) == 2
    assert "cut.png: cannot be read as a picture" in capsys.readouterr().err
    assert not (trial / "out").exists()


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_photograph_on_its_side_is_predicted_upright(trial: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(trial / "street.png") as upright:
        turned = upright.transpose({3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}[orientation])
    turned.save(trial / "turned.png", exif=exif)
    assert main([str(trial / "t"), *(str(trial / f"{n}.png") for n in ("street", "turned")), "--out", str(trial)]) == 0
    for task in TASKS:
        with Image.open(trial / f"street_{task}.png") as one, Image.open(trial / f"turned_{task}.png") as other:
            assert np.array_equal(np.asarray(one), np.asarray(other)), task


@pytest.mark.parametrize("size", [(90, 40), (7, 9), (16, 16), (1, 1), (3, 200)])
def test_strips_are_what_the_whole_output_is(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    output = torch.randn(5, 16, 16, generator=torch.Generator().manual_seed(0))
    whole = torch.nn.functional.interpolate(output[None], size=size[::-1], mode="bilinear")[0]
    for rows in (range(size[1]), range(size[1] // 2, size[1])):
        torch.testing.assert_close(enlarged(output, size, rows), whole[:, rows.start : rows.stop])
    at_once = painted(KNOWN["semseg"], output, size)
    monkeypatch.setattr("faar_ray.predict.STRIP_VALUES", 1)
    assert np.array_equal(painted(KNOWN["semseg"], output, size), at_once)
    assert at_once.shape == (*size[::-1], 3)
