"""Weights by the names of torchvision, Microsoft, Meta, transformers and others give the same features."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from timm.models import convnext, swin_transformer, vision_transformer
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.convnext import ConvNeXt as TorchvisionConvNeXt
from torchvision.models.swin_transformer import SwinTransformer as TorchvisionSwin
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionViT

from faar_ray.config.trial import BackboneConfig, TrialConfig
from faar_ray.errors import ConfigError, DataError
from faar_ray.models import micro
from faar_ray.models.backbone import build_backbone
from faar_ray.models.timm_weights import UNUSED, load_weights
from faar_ray.models.weight_formats import timm_names
from faar_ray.train.weights import weights_digest

State = dict[str, Tensor]
FITS: dict[str, Any] = {
    "swin": swin_transformer.checkpoint_filter_fn,
    "vit": vision_transformer.checkpoint_filter_fn,
    "convnext": convnext.checkpoint_filter_fn,
}


def shaken(model: nn.Module) -> Any:
    """With random values in everything, statistics of norms and zero-initialised scales as well."""
    draws = torch.Generator().manual_seed(5)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            noise = torch.rand(value.shape, generator=draws)
            value.copy_(noise + 0.5 if name.endswith(("running_var", "norm.weight")) else (noise - 0.5) / 2)
    return model.double().eval()


def converted(weights: State, model: Any, fit: str = "") -> Any:
    load_weights(model, timm_names(weights, model), "weights", FITS.get(fit, lambda state, _: state))
    return model.double().eval()


def image(side: int) -> Tensor:
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def same(theirs: Tensor, ours: Tensor) -> None:
    assert theirs.std() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "ours", "end"),
    [
        ("efficientnet_b0", "efficientnet_b0", -1),
        ("efficientnet_v2_s", "efficientnetv2_s", -1),
        ("mobilenet_v2", "mobilenetv2_100", -1),
        ("mobilenet_v3_small", "mobilenetv3_small_100", None),
        ("mobilenet_v3_large", "mobilenetv3_large_100", None),
    ],
)  # fmt: skip
@torch.no_grad()
def test_torchvisions_convolutional_networks(name: str, ours: str, end: int | None) -> None:
    theirs = shaken(torchvision.models.get_model(name, weights=None))
    network = converted(theirs.state_dict(), timm.create_model(ours, num_classes=0))
    stem = network.bn1(network.conv_stem(image(64)))
    same(theirs.features[:end](image(64)), network.blocks(stem))


@pytest.mark.parametrize("name", ["efficientnet_b5", "efficientnet_b4"])
def test_the_norms_of_torchvision_keep_their_epsilon(name: str) -> None:
    theirs = torchvision.models.get_model(name, weights=None)
    network = converted(theirs.state_dict(), timm.create_model(name, num_classes=0))
    norm = theirs.features[0][1]
    torch.testing.assert_close(network.bn1.running_var + network.bn1.eps, (norm.running_var + norm.eps).double())


@torch.no_grad()
def test_torchvisions_swin() -> None:
    arguments = {"embed_dim": 12, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 4, 8], "window_size": [2, 2]}
    theirs = shaken(TorchvisionSwin(patch_size=[4, 4], **arguments))
    network = converted(
        theirs.state_dict(),
        swin_transformer.SwinTransformer(
            img_size=64, window_size=2, embed_dim=12, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8), num_classes=0
        ),
        "swin",
    )
    same(theirs.features(image(64)), network.layers(network.patch_embed(image(64))))


@torch.no_grad()
def test_torchvisions_convnext() -> None:
    sizes = [8, 16, 24, 32]
    settings = [CNBlockConfig(c, following, 2) for c, following in zip(sizes, [*sizes[1:], None], strict=True)]
    theirs = shaken(TorchvisionConvNeXt(settings))
    network = converted(
        theirs.state_dict(), convnext.ConvNeXt(dims=tuple(sizes), depths=(2, 2, 2, 2), num_classes=0), "convnext"
    )
    same(theirs.features(image(64)), network.stages(network.stem(image(64))))


@pytest.mark.parametrize("older", [False, True])
@torch.no_grad()
def test_torchvisions_vit(older: bool) -> None:
    theirs = shaken(TorchvisionViT(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=64))
    weights = theirs.state_dict()
    if older:  # before torchvision 0.12
        names = {"mlp.0": "mlp.linear_1", "mlp.3": "mlp.linear_2"}
        weights = {re.sub(r"mlp\.[03]", lambda found: names[found[0]], key): value for key, value in weights.items()}
    network = converted(weights, small_vit(depth=2), "vit")
    tokens = torch.cat([theirs.class_token, theirs._process_input(image(32))], dim=1)
    same(theirs.encoder(tokens), nn.functional.layer_norm(
        network.blocks(network._pos_embed(network.patch_embed(image(32)))), [16],
        theirs.encoder.ln.weight, theirs.encoder.ln.bias, 1e-6,
    ))  # fmt: skip


def small_vit(**arguments: Any) -> vision_transformer.VisionTransformer:
    return vision_transformer.VisionTransformer(
        32, 8, num_classes=0, embed_dim=16, num_heads=2, **{"depth": 4} | arguments
    )


WHOLE = {
    "swin_t": "swin_tiny_patch4_window7_224", "swin_s": "swin_small_patch4_window7_224",
    "swin_b": "swin_base_patch4_window7_224", "vit_b_16": "vit_base_patch16_224", "vit_l_16": "vit_large_patch16_224",
    "convnext_tiny": "convnext_tiny", "convnext_base": "convnext_base", "efficientnet_b7": "efficientnet_b7",
    "efficientnet_v2_m": "efficientnetv2_m",
}  # fmt: skip


@pytest.mark.parametrize(("name", "ours"), WHOLE.items())
def test_names_and_shapes_of_whole_torchvision_models_are_timms(name: str, ours: str) -> None:
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, weights=None).state_dict()
        network = timm.create_model(ours, num_classes=0)
    expected = {key: value.shape for key, value in network.state_dict().items()}
    new = {key: value.shape for key, value in timm_names(theirs, network).items()}
    trunk = {key for key in new if not key.startswith(UNUSED) and not key.endswith("relative_position_index")}
    assert {key: new[key] for key in trunk} == {key: expected[key] for key in expected if not key.startswith(UNUSED)}


def test_a_file_of_torchvision_goes_through_the_backbones_own_door(tmp_path: Path) -> None:
    theirs = torchvision.models.mobilenet_v3_small(weights=None)
    torch.save({"model": {f"module.{key}": value for key, value in theirs.state_dict().items()}}, tmp_path / "w.pth")
    config = BackboneConfig(name="mobilenetv3_small_100", pyramid="stages", checkpoint=str(tmp_path / "w.pth"))
    built = build_backbone(config, (64, 64), 0)
    assert torch.equal(built.patch_embed.conv.weight, theirs.features[0][0].weight)


def test_torchvisions_weights_for_padding_as_tensorflow_does_are_refused() -> None:
    theirs = torchvision.models.efficientnet_b0(weights=None).state_dict()
    with pytest.raises(DataError, match=r"weights of torchvision .* pad on both sides \(timm's without tf_\)"):
        timm_names(theirs, timm.create_model("tf_efficientnet_b0"))


def test_torchvisions_weights_are_not_shown_images_in_another_mean(tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = torchvision.models.vit_b_32(weights=None).state_dict()
    empty = {name: torch.zeros(()).expand(value.shape) for name, value in shapes.items()}
    torch.save(empty, tmp_path / "w.pth")
    config = BackboneConfig(name="vit_base_patch32_224", checkpoint=str(tmp_path / "w.pth"))
    with pytest.raises(ConfigError, match=r"backbone\.statistics: must be imagenet for weights of torchvision; auto"):
        build_backbone(config, (64, 64), 0)
    raw = {"backbone": dict(config) | {"statistics": "imagenet"}, "data": {"image_size": 64}}
    assert weights_digest(TrialConfig.resolve(raw))  # as before a search


def test_efficientnet_pytorchs_names() -> None:
    network = timm.create_model("tf_efficientnet_b0", num_classes=0)
    weights = dict(shaken(network).state_dict())
    theirs = {their_name(key, weights): value for key, value in weights.items()}
    assert "_blocks.15._se_reduce.bias" in theirs
    assert "_blocks.1._expand_conv.weight" in theirs
    new = timm_names(theirs | {"_fc.weight": torch.zeros(1000, 1280)}, network)
    assert {key: value for key, value in new.items() if not key.startswith("classifier.")}.keys() == weights.keys()
    assert all(torch.equal(value, new[key]) for key, value in weights.items())


def their_name(name: str, weights: State) -> str:
    """timm's name of a weight of EfficientNet -> efficientnet_pytorch's."""
    whole = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    first, _, rest = name.partition(".")
    if first in whole:
        return f"{whole[first]}.{rest}"
    _, stage, index, layer, *more = name.split(".")
    blocks = sorted({tuple(map(int, key.split(".")[1:3])) for key in weights if key.startswith("blocks.")})
    before = f"_blocks.{blocks.index((int(stage), int(index)))}"
    if layer == "se":
        return f"{before}._se_{more[0].removeprefix('conv_')}.{more[1]}"
    inverted = f"blocks.{stage}.{index}.conv_pwl.weight" in weights
    norms = {"bn1": "_bn0", "bn2": "_bn1", "bn3": "_bn2"} if inverted else {"bn1": "_bn1", "bn2": "_bn2"}
    convolutions = {"conv_dw": "_depthwise_conv", "conv_pwl": "_project_conv"}
    pointwise = {"conv_pw": "_expand_conv" if inverted else "_project_conv"}
    return ".".join([before, (norms | convolutions | pointwise)[layer], *more])


def official_swin(weights: State) -> State:
    """As Microsoft's repository saves a Swin: merging belongs to the stage before, and buffers are saved too."""

    def earlier(found: re.Match[str]) -> str:
        return f"layers.{int(found[1]) - 1}.downsample"

    renamed = {re.sub(r"layers\.(\d+)\.downsample", earlier, key): value for key, value in weights.items()}
    buffers = {
        "layers.0.blocks.1.attn_mask": torch.zeros(16, 16, 16),
        "layers.0.blocks.0.attn.relative_position_index": torch.zeros(16, 16, dtype=torch.long),
    }
    return renamed | buffers | {"head.weight": torch.zeros(10, 192), "head.bias": torch.zeros(10)}


def test_microsofts_swin(tmp_path: Path) -> None:
    torch.manual_seed(3)
    weights = {key: torch.randn_like(value) for key, value in micro.architecture().state_dict().items()}
    torch.save({"model": official_swin(weights), "epoch": 300, "config": None}, tmp_path / "w.pth")
    built = build_backbone(BackboneConfig(name=micro.NAME, checkpoint=str(tmp_path / "w.pth")), (64, 64), 0)
    assert all(torch.equal(value, weights[key]) for key, value in built.state_dict().items())


def in_chunks(found: re.Match[str]) -> str:
    return f"blocks.{int(found[1]) // 2}.{found[1]}"


@pytest.mark.parametrize("chunked", [False, True])
def test_metas_dinov2(chunked: bool) -> None:
    network = small_vit(init_values=1.0)
    weights = dict(shaken(network).state_dict())
    theirs = weights | {"mask_token": torch.zeros(1, 16)}
    if chunked:  # four blocks in two chunks, counted through
        theirs = {re.sub(r"^blocks\.(\d)", in_chunks, key): value for key, value in theirs.items()}
        assert "blocks.1.3.ls1.gamma" in theirs
    loaded = converted(theirs, small_vit(init_values=1.0), "vit").state_dict()
    trunk = [key for key in weights if not key.startswith(UNUSED)]
    assert len(trunk) > 50
    assert all(torch.equal(loaded[key], weights[key].float().double()) for key in trunk)


@torch.no_grad()
def test_metas_dinov2_with_registers() -> None:
    plain = shaken(small_vit())
    registers = torch.randn(1, 2, 16, dtype=torch.float64)
    theirs = dict(plain.state_dict()) | {"register_tokens": registers, "mask_token": torch.zeros(1, 16)}
    network = converted(theirs, small_vit(reg_tokens=2, no_embed_class=True), "vit")
    tokens = plain._pos_embed(plain.patch_embed(image(32)))
    with_registers = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], dim=1)
    same(plain.blocks(with_registers), network.blocks(network._pos_embed(network.patch_embed(image(32)))))


def test_transformers_dinov2() -> None:
    weights = dict(shaken(small_vit(init_values=1.0)).state_dict())
    theirs: State = {"embeddings.mask_token": torch.zeros(1, 16), "layernorm.weight": torch.ones(16)}
    places: dict[str, Callable[[str], str]] = {
        r"^(cls_token)$": "embeddings.{}".format,
        r"^pos_(embed)$": lambda _: "embeddings.position_embeddings",
        r"^patch_embed\.proj\.(.*)": "embeddings.patch_embeddings.projection.{}".format,
        r"^blocks\.(\d+\.(?:norm|mlp).*)": "encoder.layer.{}".format,
        r"^blocks\.(\d+\.ls\d)\.gamma": lambda m: f"encoder.layer.{m.replace('ls', 'layer_scale')}.lambda1",
        r"^blocks\.(\d+\.attn\.proj.*)": lambda m: f"encoder.layer.{m.replace('attn.proj', 'attention.output.dense')}",
    }
    for key, value in weights.items():
        for pattern, name in places.items():
            if found := re.match(pattern, key):
                theirs[name(found[1])] = value
        if ".attn.qkv." in key:
            block, kind = key.split(".")[1], key.rpartition(".")[2]
            for part, of_part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                theirs[f"encoder.layer.{block}.attention.attention.{part}.{kind}"] = of_part
    loaded = converted(theirs, small_vit(init_values=1.0), "vit").state_dict()
    trunk = [key for key in weights if not key.startswith(UNUSED)]
    assert all(torch.equal(loaded[key], weights[key].float().double()) for key in trunk)


def test_deit3s_layer_scales() -> None:
    weights = dict(shaken(small_vit(init_values=1.0)).state_dict())
    theirs = {re.sub(r"\.ls([12])\.gamma", r".gamma_\1", key): value for key, value in weights.items()}
    assert "blocks.3.gamma_2" in theirs
    loaded = converted(theirs, small_vit(init_values=1.0), "vit").state_dict()
    assert torch.equal(loaded["blocks.3.ls2.gamma"], weights["blocks.3.ls2.gamma"].float().double())


def test_metas_convnext() -> None:
    build = partial(convnext.ConvNeXt, dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), num_classes=0)
    weights = dict(shaken(build()).state_dict())
    renames = {r"^stem\.": "downsample_layers.0.", r"^stages\.(\d)\.downsample\.": r"downsample_layers.\1.",
               r"\.blocks\.": ".", r"conv_dw": "dwconv", r"mlp\.fc": "pwconv"}  # fmt: skip
    theirs = {}
    for key, value in weights.items():
        for pattern, replacement in renames.items():
            key = re.sub(pattern, replacement, key)
        theirs[key] = value
    assert "stages.3.0.pwconv1.weight" in theirs
    loaded = converted(theirs | {"norm.weight": torch.ones(32)}, build(), "convnext").state_dict()
    trunk = [key for key in weights if not key.startswith(UNUSED)]
    assert all(torch.equal(loaded[key], weights[key].float().double()) for key in trunk)


def test_openclips_image_tower() -> None:
    weights: State = dict(shaken(small_vit(pre_norm=True)).state_dict())
    renames = {"patch_embed.proj": "conv1", "blocks.": "transformer.resblocks.", "norm_pre": "ln_pre", "norm1": "ln_1",
               "norm2": "ln_2", "attn.qkv.": "attn.in_proj_", "attn.proj": "attn.out_proj",
               "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj", "pos_embed": "positional_embedding",
               "cls_token": "class_embedding"}  # fmt: skip
    theirs: State = {"logit_scale": torch.ones(()), "text_projection": torch.zeros(16, 8)}
    theirs["visual.proj"] = torch.zeros(16, 8)
    of_shape = {"cls_token": weights["cls_token"].flatten(), "pos_embed": weights["pos_embed"][0]}
    for key, value in weights.items():
        name = key
        for ours, their in renames.items():
            name = name.replace(ours, their)
        theirs[f"visual.{name}"] = of_shape.get(key, value)
    assert "visual.transformer.resblocks.3.mlp.c_proj.weight" in theirs
    loaded = converted(theirs, small_vit(pre_norm=True), "vit").state_dict()
    trunk = [key for key in weights if not key.startswith(UNUSED)]
    assert all(torch.equal(loaded[key], weights[key].float().double()) for key in trunk)
