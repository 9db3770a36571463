"""`swin_micro`: a Swin of 1.3M parameters for 64x64 images, pretrained on `scenes` (source domain) and shipped here.

`python -m faar_ray.train.pretrain` made the weights; the JSON file beside them holds their sha256, the config of
the run and the metrics it reached on the source domain.
"""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from safetensors.torch import load
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor

from faar_ray.errors import DataError

NAME = "swin_micro"


def architecture(size: int | tuple[int, int] = 64, drop_path: float = 0.0) -> SwinTransformer:
    """Patch 4, embedding 24, two blocks in each of four stages, windows of 4."""
    return SwinTransformer(
        img_size=size, patch_size=4, embed_dim=24, depths=(2, 2, 2, 2), num_heads=(2, 4, 8, 16),
        window_size=4, num_classes=0, drop_path_rate=drop_path,
    )  # fmt: skip


def weights_path() -> Path:
    """The shipped file."""
    return Path(str(files("faar_ray.models"))) / "weights" / f"{NAME}.safetensors"


def card() -> dict[str, Any]:
    """What is known of the shipped weights: sha256, config, metrics."""
    card: dict[str, Any] = json.loads(weights_path().with_suffix(".json").read_text())
    return card


def weights() -> dict[str, Tensor]:
    """The pretrained weights (fp16).

    Raises:
        DataError: the file is missing, or not the one that its card describes.
    """
    path = weights_path()
    if not path.is_file():
        raise DataError(f"{path}: the pretrained weights are missing; install the package again")
    content = path.read_bytes()
    if (digest := hashlib.sha256(content).hexdigest()) != (expected := card()["sha256"]):
        raise DataError(f"{path}: sha256 must be {expected}, got {digest}; install the package again")
    return load(content)
