"""How images and labels become bytes in a row of a packed shard, and come back.

Photographs stay the bytes of their file. Labels of one byte per pixel become PNG; all others are raw arrays, which
Parquet compresses (zstd). Decoding gives what was encoded, bit for bit, unless `compact` was asked for: then normals
are 127ths (int8) and depth is half precision.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from faar_ray.data.transforms import nearest
from faar_ray.tasks import Task

PNG_TYPES = ("segmentation", "binary", "edge")
JPEG_QUALITY = 95


def encode_image(image_3HW: Tensor, content: bytes, size: tuple[int, int] | None) -> bytes:
    """The file's own bytes, or a JPEG of the image at `size` (height, width)."""
    if size is None:
        return content
    resized = F.resize(image_3HW, list(size), antialias=True)
    target = io.BytesIO()
    F.to_pil_image(resized).save(target, "JPEG", quality=JPEG_QUALITY)
    return target.getvalue()


def encode_label(task: Task, label: Tensor | None, size: tuple[int, int] | None, *, compact: bool) -> bytes | None:
    """A compact label as bytes; None for one that is missing."""
    if label is None:
        return None
    if size is not None:
        label = nearest(label, size)
    if task.type in PNG_TYPES:
        target = io.BytesIO()
        Image.fromarray(label.reshape(label.shape[-2:]).numpy()).save(target, "PNG", compress_level=6)
        return target.getvalue()
    return _raw(_compacted(task, label) if compact else label)


def _compacted(task: Task, label: Tensor) -> Tensor:
    if task.type == "normals" and label.is_floating_point():
        return (label * 127).round().to(torch.int8)
    return label.half() if task.type == "depth" else label


def _raw(label: Tensor) -> bytes:
    target = io.BytesIO()
    np.save(target, np.ascontiguousarray(label.numpy()), allow_pickle=False)
    return target.getvalue()


def decode_label(task: Task, content: bytes) -> Tensor:
    """Undo `encode_label`.

    Raises:
        ValueError, OSError: damaged bytes.
    """
    if task.type in PNG_TYPES:
        with Image.open(io.BytesIO(content)) as opened:
            plane = torch.from_numpy(np.array(opened))
        return plane if task.type == "segmentation" else plane[None]
    array: np.ndarray[Any, Any] = np.load(io.BytesIO(content), allow_pickle=False)
    return torch.from_numpy(array)


def shrunken_size(image_3HW: Tensor, longest: int | None) -> tuple[int, int] | None:
    """Height and width with the longer side at `longest`, in proportion; None: the image stays as it is."""
    height, width = image_3HW.shape[-2:]
    if longest is None or max(height, width) <= longest:
        return None
    scale = longest / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))
