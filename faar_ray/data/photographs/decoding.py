"""A photograph's bytes as a tensor."""

from __future__ import annotations

import io

from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from faar_ray.errors import DataError


def decode_photograph(content: bytes, source: str) -> Tensor:
    """(3, H, W) uint8, upright.

    Raises:
        DataError: naming `source`.
    """
    try:
        with Image.open(io.BytesIO(content)) as opened:
            image: Tensor = F.pil_to_tensor(ImageOps.exif_transpose(opened).convert("RGB"))
    except (OSError, ValueError) as error:
        raise DataError(f"{source}: cannot be read as a picture ({error})") from error
    return image
