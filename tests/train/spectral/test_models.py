"""A rotation changes the output of no model: whatever the adapters, their places, the backbone and the streams."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from faar_ray.config.trial import TrialConfig
from faar_ray.train.fit import end_epoch
from faar_ray.train.runtimes.runtime import InProcess
from faar_ray.train.trial import Trial

RAW: dict[str, Any] = {
    "method": "dora",
    "data": {"tasks": ["semseg", "normals"], "image_size": 32, "train_images": 12, "val_images": 4, "test_images": 4},
    "backbone": {"pretrained": False},
    "ranks": {"kind": "spectral", "init_rank": 4},
    "spectral": {"score_batches": 3},
    "optim": {"epochs": 1, "batch_size": 4, "warmup_steps": 1, "precision": "fp64"},
}
MODELS: dict[str, dict[str, Any]] = {
    "DoRA": {},
    "DoRA, attached norm": {"adapter.norm": "attached"},
    "LoRA": {"adapter.kind": "lora"},
    "LoRA on the shared stream": {"adapter.kind": "lora", "placement.task_path": "shared"},
    "DoRA on the shared stream": {"placement.task_path": "shared"},
    "a stream per task": {"method": "lora_per_task", "ranks.kind": "spectral"},
    "drop-outs": {"adapter.dropout": 0.2, "backbone.drop_path": 0.2},
    "convolutions": {"backbone.name": "test_efficientnet", "backbone.pyramid": "stages"},
    "ViT": {"backbone.name": "test_vit", "data.image_size": 64},
    "Sinewich": {"method": "sinewich_1x1", "ranks.kind": "spectral"},
    "Sinewich, a base per task": {"method": "sinewich_1x1", "sinewich.base": "independent", "ranks.kind": "spectral"},
    "Sinewich's heads": {"decoder.hidden": "sine"},
}


def trial_of(rotation: str, dotted: dict[str, Any]) -> Trial:
    """With adapters that do something, in no special basis."""
    made = Trial(TrialConfig.resolve(RAW, **dotted, **{"spectral.rotation": rotation}), InProcess("cpu"))
    torch.manual_seed(0)
    for adapter in made.adapters:
        nn.init.normal_(adapter.B_RO, std=0.05)
    return made


def outputs(trial: Trial) -> list[Tensor]:
    """Predictions, and every stream's features."""
    batch = next(iter(trial.val_data.batches(batch_size=4, seed=0, epoch=0, train=False)))
    image = batch["image"].to(trial.dtype)
    trial.model.eval()
    with torch.no_grad():
        return [*trial.model(image).values(), *trial.model.features(image)]


CASES = [
    *(pytest.param("fisher", name) for name in MODELS),
    *(pytest.param("plain", name, marks=() if name in ("DoRA", "Sinewich") else pytest.mark.slow) for name in MODELS),
]


@pytest.mark.parametrize(("rotation", "name"), CASES)
def test_a_rotation_without_a_cut_changes_no_output(rotation: str, name: str) -> None:
    trial = trial_of(rotation, MODELS[name])
    before, factors = outputs(trial), [adapter.A_RI.detach().clone() for adapter in trial.adapters]
    rows = end_epoch(trial, 0)
    assert [row.rank for row in rows] == [row.rank_before for row in rows]
    assert all(not torch.equal(a.A_RI, was) for a, was in zip(trial.adapters, factors, strict=True))
    for ours, theirs in zip(outputs(trial), before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10 * float(theirs.abs().max()))


@pytest.mark.parametrize("rotation", ["fisher", "plain"])
@pytest.mark.parametrize("name", ["DoRA", "LoRA on the shared stream", "Sinewich"])
def test_rotating_twice_is_rotating_once_up_to_signs(name: str, rotation: str) -> None:
    trial = trial_of(rotation, MODELS[name])
    first = end_epoch(trial, 0)
    once = [(a.A_RI.detach().abs(), a.B_RO.detach().abs()) for a in trial.adapters]
    second = end_epoch(trial, 0)
    for adapter, (A_RI, B_RO), one, two in zip(trial.adapters, once, first, second, strict=True):
        assert two.importance == pytest.approx(one.importance, rel=1e-4, abs=1e-20)
        torch.testing.assert_close(adapter.A_RI.detach().abs(), A_RI, rtol=1e-4, atol=1e-5 * float(A_RI.max()))
        torch.testing.assert_close(adapter.B_RO.detach().abs(), B_RO, rtol=1e-4, atol=1e-5 * float(B_RO.max()))


def test_a_prefix_of_components_does_something_else_after_a_rotation_unless_it_is_all_of_them() -> None:
    """A rotation mixes components, so the first b are others: the best b of the whole change."""
    trial = trial_of("plain", {"adapter.kind": "lora"})
    adapter = trial.adapters[0]
    change_OI = (adapter.B_RO.mT @ adapter.A_RI).detach()
    raw_OI = (adapter.B_RO[:2].mT @ adapter.A_RI[:2]).detach()
    end_epoch(trial, 0)
    order = torch.linalg.vector_norm(adapter.B_RO.detach(), dim=1).argsort(descending=True)[:2]
    best_OI = (adapter.B_RO[order].mT @ adapter.A_RI[order]).detach()
    assert (change_OI - best_OI).norm() < 0.9 * (change_OI - raw_OI).norm()
    adapter.mask_prefix(adapter.rank)
    A_RI, B_RO = adapter.masked_factors()
    torch.testing.assert_close(B_RO.mT @ A_RI, change_OI, rtol=1e-10, atol=1e-12)


def test_in_single_precision_the_output_stays_to_its_rounding() -> None:
    for rotation in ("fisher", "plain"):
        trial = trial_of(rotation, {"optim.precision": "fp32"})
        before = outputs(trial)
        end_epoch(trial, 0)
        for ours, theirs in zip(outputs(trial), before, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize("method", ["dora", "sinewich_1x1"])
@pytest.mark.parametrize("rotation", ["fisher", "plain"])
def test_an_untrained_model_whose_changes_are_all_zero_is_cut_without_a_fault(rotation: str, method: str) -> None:
    keys = {"method": method, "ranks.kind": "spectral", "spectral.rotation": rotation, "ranks.budget": 0.9}
    trial = Trial(TrialConfig.resolve(RAW, **keys), InProcess("cpu"))
    before = outputs(trial)
    rows = end_epoch(trial, 0)
    assert all(score == 0 for row in rows for score in row.importance if method == "dora")
    assert all(p.isfinite().all() for p in trial.model.parameters())
    for ours, theirs in zip(outputs(trial), before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9 * float(theirs.abs().max()))
