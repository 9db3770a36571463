"""The quick decoder gives what the careful one gives, for every JPEG, whole or damaged."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from torchvision.transforms.v2.functional import pil_to_tensor

from faar_ray.data.photographs import pixels
from faar_ray.data.photographs.photograph import decode_photograph
from faar_ray.data.photographs.pixels import decode_pixels, read_pixels
from faar_ray.errors import DataError

from .trees import SHARED, needs_real_data


def jpeg(mode: str = "RGB", size: tuple[int, int] = (37, 53), **options: Any) -> bytes:
    rng = np.random.default_rng(3)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    target = io.BytesIO()
    coarse.convert(mode).save(target, "JPEG", **options)
    return target.getvalue()


def with_orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = value
    return exif


def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


PLAIN = {
    "baseline": jpeg(),
    "progressive": jpeg(progressive=True, quality=60),
    "without subsampling": jpeg(subsampling=0),
    "halved chroma": jpeg(subsampling=1),
    "stored as RGB": jpeg(keep_rgb=True),
    "of one pixel": jpeg(size=(1, 1)),
    "upright by EXIF": jpeg(exif=with_orientation(1)),
    "with restart markers": jpeg(restart_marker_blocks=2),
}
OTHERS = {
    "turned": jpeg(exif=with_orientation(6)),
    "mirrored": jpeg(exif=with_orientation(2)),
    "grey": jpeg("L"),
    "CMYK": jpeg("CMYK"),
    "with a profile": jpeg(icc_profile=profile()),
}


def careful(content: bytes) -> torch.Tensor:
    pixels: torch.Tensor = pil_to_tensor(decode_photograph(content, "x.jpg"))
    return pixels


@pytest.mark.parametrize("kind", [*PLAIN, *OTHERS])
def test_a_jpeg_has_the_pixels_that_pillow_gives(kind: str, tmp_path: Path) -> None:
    content = (PLAIN | OTHERS)[kind]
    (tmp_path / "x.jpg").write_bytes(content)
    assert torch.equal(decode_pixels(content, "x.jpg"), careful(content))
    assert torch.equal(read_pixels(tmp_path / "x.jpg"), careful(content))


def test_only_plain_jpegs_go_the_quick_way() -> None:
    quick = {kind: pixels._plain_pixels(content) is not None for kind, content in (PLAIN | OTHERS).items()}
    assert quick == {**dict.fromkeys(PLAIN, True), **dict.fromkeys(OTHERS, False)}


@pytest.mark.parametrize("kind", ["baseline", "progressive", "with restart markers"])
def test_a_damaged_jpeg_is_read_or_refused_as_pillow_does(kind: str) -> None:
    rng, whole = np.random.default_rng(0), PLAIN[kind]
    outcomes = {"read": 0, "refused": 0}
    for trial in range(300):
        content = bytearray(whole)
        if trial % 3 == 0:
            del content[int(rng.integers(2, len(content))) :]
        for _ in range(int(rng.integers(1, 5))):
            content[int(rng.integers(2, len(content)))] = int(rng.integers(256))
        try:
            expected = careful(bytes(content))
        except DataError as refusal:
            with pytest.raises(DataError) as caught:
                decode_pixels(bytes(content), "x.jpg")
            assert str(caught.value) == str(refusal)
            outcomes["refused"] += 1
        else:
            assert torch.equal(decode_pixels(bytes(content), "x.jpg"), expected)
            outcomes["read"] += 1
    assert min(outcomes.values()) > 20


@needs_real_data
def test_real_photographs_have_the_pixels_that_pillow_gives() -> None:
    paths = [*sorted((SHARED / "nyud_compact" / "images").glob("*.jpg"))[:20]]
    paths += sorted((SHARED / "pascal_sample" / "JPEGImages").glob("*.jpg"))
    assert all(torch.equal(read_pixels(path), careful(path.read_bytes())) for path in paths)
