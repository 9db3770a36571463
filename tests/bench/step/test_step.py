"""The measurement runs and has the contract's shape; no test depends on times."""

from __future__ import annotations

import gc
import json
import weakref
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from faar_ray.adapters import adapters_of
from faar_ray.bench.__main__ import main
from faar_ray.bench.step.step import Stepper
from faar_ray.bench.step.variants import HRNET, PEFT, VARIANTS, Setting

TINY = [
    "--backbone",
    "swin_micro",
    "--image-size",
    "64",
    "--batch",
    "1",
    "--rank",
    "4",
    "--shrunk",
    "2",
    "--pairs",
    "1",
]
WITHOUT_RANKS = {"ditask", "ditask_release"}


def test_json_has_the_contracts_shape(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["step", *TINY, "--no-memory", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result) == ["device", "threads", "image_size", "batch", "floor_ms", "rows"]
    names = ["variant", "rank", "ms", "ratio", "peak_mb", "trainable_params", "macs_ratio", "backbone", "kernels",
             "operators", "busy"]  # fmt: skip
    assert all(list(row) == names for row in result["rows"])
    rows = {(row["variant"], row["rank"]): row for row in result["rows"]}
    expected = [*VARIANTS, *([PEFT] if find_spec("peft") else [])]
    ranks = {variant: (0,) if variant in WITHOUT_RANKS else (4, 2) for variant in expected}
    assert set(rows) == {("floor", 0), *((variant, rank) for variant, of in ranks.items() for rank in of)}
    assert rows["floor", 0]["ratio"] == 1
    assert all(row["ratio"] > 0 for row in result["rows"])
    for variant in VARIANTS.keys() - WITHOUT_RANKS:
        assert rows[variant, 2]["trainable_params"] < rows[variant, 4]["trainable_params"]


def test_one_method_is_a_table_with_its_peak(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["step", *TINY, "--method", "decoder_only"]) == 0
    printed = capsys.readouterr().out
    assert "decoder_only" in printed
    assert "peak MB" in printed


def test_after_a_shrink_nothing_holds_what_was_dropped() -> None:
    """Neither the model nor the optimizer: parameters, gradients and moments of rank 64 are gone."""
    stepper = Stepper(Setting("faar_own", 8, "swin_micro", 64, 1, keys=VARIANTS["faar_own"]), torch.device("cpu"))
    stepper.step()
    factors = [factor for adapter in adapters_of(stepper.model) for factor in adapter.factors]
    held = [weakref.ref(factor) for factor in factors]
    held += [weakref.ref(stepper.optimizer.state[factor]["exp_avg"]) for factor in factors]
    del factors
    stepper.shrink(2)
    stepper.step()
    gc.collect()
    assert [ref() for ref in held if ref() is not None] == []


@pytest.mark.slow
def test_at_a_small_rank_a_step_needs_no_more_memory_than_at_the_large_one_it_came_from() -> None:
    """In the benchmark's setting, by what is kept for the backward pass, and 16 bytes for every trained number."""
    setting = Setting("faar_own", 64, "swin_tiny_patch4_window7_224", 448, 2, keys=VARIANTS["faar_own"])
    stepper = Stepper(setting, torch.device("cpu"))
    at_64 = bytes_kept(stepper) + 16 * stepper.trainable_params()
    stepper.shrink(5)
    assert bytes_kept(stepper) + 16 * stepper.trainable_params() < at_64


def bytes_kept(stepper: Stepper) -> int:
    """Of a forward pass, for its backward pass; without the model's own tensors."""
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        predictions = stepper.model(stepper.image)
    own = {t.untyped_storage().data_ptr() for t in (*stepper.model.parameters(), *stepper.model.buffers())}
    kept = sum(size for place, size in held.items() if place not in own)
    del predictions  # until here nothing is freed, so no two have one place
    return kept


SMALLEST = ("swin_micro", "vit_tiny_patch16_224", "convnext_atto", "tf_efficientnet_lite0")


@pytest.mark.parametrize("backbone", SMALLEST)
def test_a_floor_computes_what_an_unadapted_model_of_its_family_does(backbone: str) -> None:
    """By trained parameters, and by multiply-adds, of which ours need fewer where a head takes over a merging."""
    keys = {"method": "decoder_only", **HRNET}
    floor, plain = (
        Stepper(Setting(variant, 1, backbone, 64, 2, keys=keys), torch.device("cpu"))
        for variant in ("floor", "decoder_only")
    )
    assert floor.trainable_params() == plain.trainable_params()
    assert plain.macs() == pytest.approx(floor.macs(), rel=0.1)
    shapes = [{task: y.shape for task, y in of.model(of.image).items()} for of in (floor, plain)]
    assert shapes[0] == shapes[1]


def test_families_are_compared_each_with_its_own_floor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("faar_ray.bench.step.step.FAMILIES", {"swin": SMALLEST[0], "convnext": SMALLEST[2]})
    assert main(["step", *TINY, "--families", "--no-memory", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    found = [(row["backbone"], row["variant"], row["rank"]) for row in rows]
    assert found == [
        (b, *row) for b in (SMALLEST[0], SMALLEST[2]) for row in (("floor", 0), ("faar_own", 4), ("faar_own", 2))
    ]
    assert {row["ratio"] for row in rows if row["variant"] == "floor"} == {1}
    assert all(row["operators"] > 0 and row["kernels"] is row["busy"] is None for row in rows)
    assert all(row["operators"] > rows[0]["operators"] for row in rows[1:3])


@pytest.mark.gpu
def test_kernels_and_the_share_of_time_they_take_are_counted_on_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["step", *TINY, "--only", "faar_own", "--device", "cuda", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert all(row["kernels"] > 100 and 0 < row["busy"] <= 1 and row["peak_mb"] > 0 for row in rows)


@pytest.mark.parametrize("wrong", [["--backbone", "resnet18"], ["--device", "cuda"], ["--only", "faar"]])
def test_what_cannot_be_measured_is_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["step", *wrong]) == 2
    assert f"{wrong[0].replace('--backbone', 'backbone.name')}: must be" in capsys.readouterr().err
