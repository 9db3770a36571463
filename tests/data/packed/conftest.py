"""A small data set of photographs that exists in memory only, and what it is packed into."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from faar_ray.config.registries import DATASETS, DatasetEntry
from faar_ray.config.trial import DataConfig
from faar_ray.data.packed.write import PackOptions, pack
from faar_ray.seeding import private

CHANNELS = {"semseg": 5, "edge": 1, "normals": 3, "depth": 1}
IMAGES = {"train": 70, "val": 9}


class Photographs:
    """Images of two sizes; every third has no depth."""

    def __init__(self, config: DataConfig, split: str) -> None:
        self.published = {"train": "train", "val": "val", "test": "val"}[split]
        assert config.protocol == "papers"

    def __len__(self) -> int:
        return IMAGES[self.published]

    def id(self, index: int) -> str:
        return f"{self.published}-{index:03d}"

    def image_bytes(self, index: int) -> bytes:
        target = io.BytesIO()
        F.to_pil_image(self._pixels(index)).save(target, "JPEG", quality=90)
        return target.getvalue()

    def _pixels(self, index: int) -> Tensor:
        size = (20, 30) if index % 2 else (26, 22)
        stream = private("pixels", self.published, index)
        return torch.randint(256, (3, *size), generator=stream, dtype=torch.uint8)

    def sample(self, index: int, names: Sequence[str]) -> Mapping[str, Tensor | None]:
        image = F.pil_to_tensor(Image.open(io.BytesIO(self.image_bytes(index))))
        stream, size = private("labels", self.published, index), image.shape[-2:]
        semseg = torch.randint(5, size, generator=stream, dtype=torch.uint8)
        semseg[0] = 255
        normals = torch.nn.functional.normalize(torch.randn(3, *size, generator=stream), dim=0)
        normals[:, 1] = 0
        labels = {
            "image": image,
            "semseg": semseg,
            "edge": torch.randint(2, (1, *size), generator=stream, dtype=torch.uint8),
            "normals": normals,
            "depth": None if index % 3 == 0 else 10 * torch.rand(1, *size, generator=stream),
        }
        return {name: labels[name] for name in names}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    DATASETS["photographs"] = DatasetEntry(CHANNELS, open=Photographs, needs_root=True)
    yield
    del DATASETS["photographs"]


@pytest.fixture
def config() -> DataConfig:
    return DataConfig(name="photographs", tasks=tuple(CHANNELS), root="anywhere", image_size=32)


@pytest.fixture
def packed(config: DataConfig, tmp_path: Path) -> DataConfig:
    """The config, reading the shards that it was packed into."""
    pack(config, tmp_path / "packed", PackOptions(), processes=0)
    return config.model_copy(update={"root": str(tmp_path / "packed")})
