"""Weights that other programs saved: loaded under whatever names, or refused with what is wrong."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from faar_ray.config.trial import BackboneConfig
from faar_ray.errors import ConfigError, DataError
from faar_ray.models import micro
from faar_ray.models.backbone import build_backbone, check_backbone

State = dict[str, Tensor]
QKV = "layers.2.blocks.0.attn.qkv.weight"
SIZE = (64, 64)


@pytest.fixture(scope="module")
def weights() -> State:
    torch.manual_seed(3)
    return {key: torch.randn_like(value) for key, value in micro.architecture().state_dict().items()}


def loaded(path: Path) -> State:
    state: State = build_backbone(BackboneConfig(name=micro.NAME, checkpoint=str(path)), SIZE, 0).state_dict()
    return state


def named(weights: State, rename: Callable[[str], str]) -> State:
    return {rename(key): value for key, value in weights.items()}


def others(weights: State) -> State:
    """Another model of the same kind, which must not be the one that is loaded."""
    return {key: value + 1 for key, value in weights.items()}


def beside(weights: State, prefix: str) -> Mapping[str, Any]:
    """A whole model: the backbone under a prefix, and a decoder."""
    return {
        **named(weights, lambda key: prefix + key),
        "decode_head.conv.weight": torch.zeros(3),
        "norm.weight": torch.ones(1),
    }


WAYS: dict[str, Callable[[State], Any]] = {
    "plain": lambda w: w,
    "compiled": lambda w: named(w, lambda key: f"_orig_mod.{key}"),
    "ddp": lambda w: named(w, lambda key: f"module.{key}"),
    "ddp of compiled": lambda w: named(w, lambda key: f"module._orig_mod.{key}"),
    "compiled of ddp": lambda w: named(w, lambda key: f"_orig_mod.module.{key}"),
    "compiled twice": lambda w: named(w, lambda key: f"_orig_mod._orig_mod.{key}"),
    "compiled stages": lambda w: named(w, lambda key: key.replace(".blocks.", "._orig_mod.blocks.")),
    "lightning": lambda w: {"state_dict": named(w, lambda key: f"model.{key}"), "epoch": 3},
    "segmentation": lambda w: {"state_dict": beside(w, "backbone."), "meta": {"epoch": 3}},
    "wrapped encoder": lambda w: {"model": beside(w, "module.encoder.")},
    "deep": lambda w: {"model": {"state_dict": named(w, lambda key: f"module.model.backbone.{key}")}},
    "model_state": lambda w: {"model_state": w, "optimizer_state": {"state": {}}, "lr": 0.1},
    "model_state_dict": lambda w: {"model_state_dict": w, "optimizer": {"state": {}}},
    "unknown key": lambda w: {"weights": w, "epoch": 7},
    "distillation": lambda w: {
        "student": named(others(w), lambda key: f"module.backbone.{key}"),
        "teacher": named(w, lambda key: f"backbone.{key}"),
    },
    "distillation in one": lambda w: {
        **named(others(w), lambda key: f"student.backbone.{key}"),
        **named(w, lambda key: f"teacher.backbone.{key}"),
    },
    "with arguments": lambda w: {"model": w, "args": argparse.Namespace(lr=1e-3), "best": np.float64(81.3)},
    "with a head": lambda w: w | {"head.fc.weight": torch.zeros(10, 192), "norm.weight": torch.zeros(192)},
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("legacy", [False, True])
def test_weights_load_however_they_were_saved(tmp_path: Path, weights: State, way: str, legacy: bool) -> None:
    torch.save(WAYS[way](weights), tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    state = loaded(tmp_path / "w.pth")
    assert all(torch.equal(value, weights[key]) for key, value in state.items())
    assert QKV in state


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w"])
def test_the_format_is_told_by_the_bytes_and_not_by_the_name(tmp_path: Path, weights: State, name: str) -> None:
    save_file(named(weights, lambda key: f"_orig_mod.{key}"), tmp_path / name)
    assert torch.equal(loaded(tmp_path / name)[QKV], weights[QKV])
    torch.save(weights, tmp_path / name)
    assert torch.equal(loaded(tmp_path / name)[QKV], weights[QKV])


def test_a_vit_with_a_prefix_is_loaded(tmp_path: Path) -> None:
    name = "vit_tiny_patch16_224"
    theirs = timm.create_model(name, num_classes=10).state_dict()
    torch.save({"state_dict": named(theirs, lambda key: f"module._orig_mod.encoder.{key}")}, tmp_path / "w.pth")
    built = build_backbone(BackboneConfig(name=name, checkpoint=str(tmp_path / "w.pth")), SIZE, 0)
    assert torch.equal(built.state_dict()["layers.3.blocks.2.mlp.fc1.weight"], theirs["blocks.11.mlp.fc1.weight"])


def without(state: State, *keys: str) -> State:
    return {key: value for key, value in state.items() if key not in keys}


def broken(value: float) -> Callable[[State], Any]:
    return lambda w: w | {QKV: torch.full_like(w[QKV], value)}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lambda w: without(w, QKV), rf"missing: {QKV} \(1\)"),
        (lambda w: w | {f"extra.{i}": torch.zeros(1) for i in range(9)}, r"unexpected: extra.0.*extra.4 \(9\)"),
        (lambda w: w | {QKV: torch.zeros(3, 3)}, rf"another shape: {QKV} \(3x3, must be 288x96\) \(1\)"),
        (lambda w: timm.create_model("swin_tiny_patch4_window7_224").state_dict(), r"unexpected: layers\.2\.blocks\.2"),
        (lambda w: timm.create_model("vit_tiny_patch16_224").state_dict(), r"missing: layers.*unexpected: blocks\.0"),
        (lambda w: timm.create_model("resnet18").state_dict(), r"missing: layers\.0.*unexpected: bn1"),
        (lambda w: {"a": {"x": w[QKV]}, "b": {"x": w[QKV]}}, r"several models \('a', 'b'\)"),
        (lambda w: {**named(w, "a.{}".format), **named(w, "b.{}".format)}, r"several models \('a\.', 'b\.'\)"),
        (lambda w: {**w, **named(w, "module.{}".format)}, "has weights twice"),
        (lambda w: {"model": {}, "epoch": 3}, "must hold tensors by name, and is empty"),
        (lambda w: {"epoch": 3, "model": "swin"}, r"must hold tensors by name, got epoch \(int\), model \(str\)"),
        (lambda w: [w[QKV]], "must hold names and values, got list"),
        (lambda w: {"model": micro.architecture()}, r"timm\.layers.*: save tensors alone"),
        (broken(float("nan")), f"values that are not finite: {QKV}"),
        (broken(float("-inf")), f"values that are not finite: {QKV}"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_named(
    tmp_path: Path, weights: State, content: Callable[[State], Any], says: str
) -> None:
    torch.save(content(weights), tmp_path / "w.pth")
    with pytest.raises(DataError, match=says) as fault:
        loaded(tmp_path / "w.pth")
    assert "w.pth" in str(fault.value)
    assert len(str(fault.value)) < 1500


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "is empty"),
        (b"not weights at all\n", "cannot be read as weights"),
        (b"\xff\0\0\0\0\0\0\0{}", "cannot be read as weights"),
        (None, "cannot be read as weights.*nothing in it was executed"),
    ],
    ids=["empty", "text", "cut safetensors", "pickle"],
)
def test_what_is_no_weight_file_is_refused(tmp_path: Path, name: str, raw: bytes | None, says: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps({"model": Bomb(tmp_path / "ran")}) if raw is None else raw)
    with pytest.raises(DataError, match=says):
        loaded(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_a_folder_is_refused_with_the_file_in_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must be a file, .* is a folder$"):
        loaded(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(DataError, match=r"is a folder \(did you mean .*/model\.safetensors\?\)"):
        loaded(tmp_path)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("vit_small_patch16_36x1_224", r"must be false for vit_small_patch16_36x1_224.*\(.*vit_small_patch16"),
        ("vit_giant_patch14_224", "must be false for vit_giant_patch14_224"),
        ("swin_tiny_patch4_window7_224.ms_in1", r"did you mean 'swin_tiny_patch4_window7_224\.ms_in1k'"),
        ("vit_small_patch16_36x1_224.dino", "there are none of vit_small_patch16_36x1_224"),
    ],
)  # fmt: skip
def test_a_model_without_such_weights_is_refused_before_anything_is_fetched(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_backbone(BackboneConfig(name=name))


def test_every_backbone_that_is_let_through_has_weights_that_timm_would_fetch() -> None:
    let_through = 0
    for name in timm.list_models("vit_*_patch16_224"):
        try:
            check_backbone(BackboneConfig(name=name))
        except ConfigError:
            continue
        let_through += 1
        config = timm.models.get_pretrained_cfg(name)
        assert config is not None
        assert config.hf_hub_id or config.url or config.file, name
    assert let_through > 2


def test_a_model_without_weights_is_taken_without_them(tmp_path: Path) -> None:
    check_backbone(BackboneConfig(name="vit_small_patch16_36x1_224", pretrained=False))
    (tmp_path / "w.pth").write_bytes(b"looked at later")
    check_backbone(BackboneConfig(name="vit_small_patch16_36x1_224", checkpoint=str(tmp_path / "w.pth")))
