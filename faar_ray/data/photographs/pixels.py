"""Pixels of photographs: plain JPEGs through torchvision, everything else as `photograph.py` reads it.

torchvision's decoder gives the same bytes as Pillow's and is quicker (docs/benchmarks.md). Plain is what needs nothing
after decoding: three channels, upright, without a colour profile.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2.functional import pil_to_tensor

from faar_ray.data.photographs.photograph import decode_photograph, read_photograph

JPEG_START = b"\xff\xd8"
ORIENTATION, TURNED = 274, range(2, 9)
"""Tag of EXIF, and its values that mean another way up."""


def read_pixels(path: Path) -> Tensor:
    """A picture as (3, H, W) uint8, upright, as sRGB.

    Raises:
        DataError: as `read_photograph`.
    """
    pixels = None
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(len(JPEG_START))
            pixels = _plain_pixels(start + file.read()) if start == JPEG_START else None
    return _pixels(read_photograph(path)) if pixels is None else pixels


def decode_pixels(content: bytes, source: str) -> Tensor:
    """The same from a file's bytes; `source` names it in errors.

    Raises:
        DataError: as `decode_photograph`.
    """
    pixels = _plain_pixels(content)
    return _pixels(decode_photograph(content, source)) if pixels is None else pixels


def _pixels(picture: Image.Image) -> Tensor:
    pixels: Tensor = pil_to_tensor(picture)
    return pixels


def _plain_pixels(content: bytes) -> Tensor | None:
    """Of a plain JPEG that is whole; None for others, of which the other reader knows what is wrong."""
    if not content.startswith(JPEG_START) or not _is_plain(content):
        return None
    try:
        pixels: Tensor = decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.RGB)
    except RuntimeError:
        return None
    return pixels


def _is_plain(content: bytes) -> bool:
    """Whether a JPEG's header asks for nothing but decoding."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=("JPEG",)) as opened:
                upright = opened.getexif().get(ORIENTATION, 1) not in TURNED
                return opened.format == "JPEG" and opened.mode == "RGB" and "icc_profile" not in opened.info and upright
    except Exception:  # what cannot be read here is told by the other reader
        return False
