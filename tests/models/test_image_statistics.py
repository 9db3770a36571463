"""Images reach a backbone in the mean and deviation that it was trained with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

from faar_ray.config.trial import BackboneConfig, TrialConfig
from faar_ray.data.dense import MEAN_3, STD_3, unnormalise
from faar_ray.models import MultiTaskModel, build_model, merge
from faar_ray.models.image_statistics import IMAGENET, STATISTICS, restandardise, statistics_of

HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def built(**keys: Any) -> MultiTaskModel:
    raw = {"data": {"image_size": 64, "tasks": ["depth", "normals"]}, "backbone": {"pretrained": False, **keys}}
    return build_model(TrialConfig.resolve(raw, **{"ranks.init_rank": 2, "decoder.width": 2})).eval()


def levels() -> Tensor:
    """An image of levels 0..1."""
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("swin_micro", IMAGENET),
        ("swin_tiny_patch4_window7_224", IMAGENET),
        ("vit_small_patch14_dinov2", IMAGENET),
        ("vit_tiny_patch16_224", HALF),
        ("vit_base_patch16_224.dino", IMAGENET),
        ("vit_base_patch16_clip_224", STATISTICS["clip"]),
        ("tf_efficientnet_lite0", HALF),
        ("efficientnet_b0", IMAGENET),
        ("a_backbone_of_ones_own", IMAGENET),
    ],
)  # fmt: skip
def test_each_backbone_has_the_statistics_of_its_weights(name: str, expected: Any) -> None:
    assert statistics_of(BackboneConfig(name=name)) == expected
    assert statistics_of(BackboneConfig(name=name, statistics="unit")) == ((0, 0, 0), (1, 1, 1))


def test_the_data_give_what_the_models_take_as_imagenet() -> None:
    assert (MEAN_3, STD_3) == IMAGENET


@pytest.mark.parametrize("statistics", STATISTICS.values(), ids=STATISTICS)
def test_restandardising_is_standardising_the_levels(statistics: Any) -> None:
    ours = restandardise(statistics).double()(transforms.normalize(levels().double(), [*MEAN_3], [*STD_3]))
    torch.testing.assert_close(ours, transforms.normalize(levels().double(), *map(list, statistics)), rtol=0, atol=1e-6)


def test_swin_micro_sees_the_images_as_they_are() -> None:
    model = built()
    assert type(model.restandardise) is nn.Identity
    image = levels()
    assert model.restandardise(image) is image


def test_predictions_come_from_images_in_the_backbones_statistics() -> None:
    model = built(statistics="inception")
    assert not [key for key in model.state_dict() if key.startswith("restandardise")]
    seen: list[Tensor] = []
    model.backbone.patch_embed.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    image = transforms.normalize(levels(), [*MEAN_3], [*STD_3])
    with torch.no_grad():
        model(image)
        merge(model)(image)
    for given in seen:
        torch.testing.assert_close(given * 0.5 + 0.5, unnormalise(image), rtol=0, atol=1e-5)
    assert len(seen) == 2
