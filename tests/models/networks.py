"""Models over convolutional backbones whose weights, norms and statistics are none that anything starts with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from faar_ray.config.trial import TrialConfig
from faar_ray.models import MultiTaskModel, adapter_list, build_model

TASKS = ("semseg", "normals", "depth")
LITE, B0, EDGE, SMALL = "tf_efficientnet_lite0", "efficientnet_b0", "test_efficientnet", "tf_mobilenetv3_small_075"
"""Without squeeze-and-excitation, with it, with k x k expansions, and a MobileNet; `tf_`: padded as by TensorFlow."""
Size = tuple[int, int]


def config(name: str, method: str = "faar", size: Size = (64, 96), **dotted: Any) -> TrialConfig:
    raw = {
        "method": method,
        "backbone": {"name": name, "pretrained": False, "pyramid": "stages"},
        "data": {"name": "nyud", "tasks": list(TASKS), "image_size": size},
        "ranks": {"init_rank": 4},
    }
    return TrialConfig.resolve(raw, **dotted)


def model(name: str, method: str = "faar", size: Size = (64, 96), **dotted: Any) -> MultiTaskModel:
    return build_model(config(name, method, size, **dotted)).eval()


def timm_weights(name: str, folder: Path) -> Path:
    """A file of a whole timm network, classifier and all, whose norms do something."""
    torch.manual_seed(0)
    network = timm.create_model(name).float()
    with torch.no_grad():
        for key, value in network.state_dict().items():
            if key.endswith("running_var"):
                value.uniform_(0.5, 2.0)
            elif value.ndim == 1 and value.is_floating_point():
                value.add_(0.3 * torch.randn_like(value))
    save_file(network.state_dict(), folder / f"{name}.safetensors")
    return folder / f"{name}.safetensors"


def moved(of: MultiTaskModel, std: float = 0.05) -> MultiTaskModel:
    """The same with all that trains away from its start."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in of.parameters():
            if parameter.requires_grad:
                parameter.add_(std * torch.randn(parameter.shape, generator=generator))
    return of


def shrunk(of: MultiTaskModel) -> MultiTaskModel:
    """The same with ranks of 1, 2 and 3, components in another order."""
    for i, adapter in enumerate(adapter_list(of)):
        adapter.keep(torch.tensor([2, 0, 1][: 1 + i % 3]))
    return of


def image(size: Size = (64, 96)) -> Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))


def timm_maps(name: str, file: Path, x: Tensor) -> list[Tensor]:
    """timm's own features at strides 4, 8, 16, 32."""
    network = timm.create_model(name).eval()
    network.load_state_dict(load_file(file))
    with torch.no_grad():
        return list(network.forward_intermediates(x, intermediates_only=True)[-4:])
