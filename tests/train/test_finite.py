"""Values that are read late, as on an accelerator: nothing waits for one in a step, and the first bad step is named."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from faar_ray.config.trial import TrialConfig
from faar_ray.train import finite
from faar_ray.train.finite import LateReader, NonFiniteGradient, NonFiniteLoss
from faar_ray.train.fit import run_epoch, train_epoch
from faar_ray.train.runtimes.runtime import InProcess
from faar_ray.train.step import train_step
from faar_ray.train.trial import Trial

RAW: dict[str, Any] = {
    "data": {"tasks": ["semseg", "normals", "depth", "saliency"], "image_size": 32, "train_images": 20,
             "val_images": 8, "test_images": 8},
    "backbone": {"pretrained": False},
    "ranks": {"init_rank": 4},
    "optim": {"epochs": 2, "batch_size": 4},
}  # fmt: skip


class HostTensors(TorchDispatchMode):
    """Notes what is computed of tensors on the host, or copied from there or to it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[str] = set()

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operator(*args, **(kwargs or {}))
        if any(isinstance(t, Tensor) and t.device.type == "cpu" for t in tree_leaves((args, kwargs, result))):
            self.seen.add(str(operator))
        return result


@pytest.fixture
def meta(monkeypatch: pytest.MonkeyPatch) -> InProcess:
    """A device that has shapes and no values: it takes an accelerator's path, and to read a value there is an error."""
    for name in ("autocast", "is_autocast_enabled", "get_autocast_dtype"):
        real = getattr(torch, name)

        def of_cpu(kind: str = "cpu", *args: Any, real: Any = real, **kwargs: Any) -> Any:
            return real("cpu" if kind == "meta" else kind, *args, **kwargs)

        monkeypatch.setattr(torch, name, of_cpu)
    monkeypatch.setattr(
        sys.modules[Optimizer.__module__], "_get_fused_kernels_supported_devices", lambda: ["cpu", "meta"]
    )
    return InProcess("meta")


@pytest.mark.parametrize(
    "dotted",
    [
        {},
        {"placement.task_path": "shared"},
        {"method": "dora", "optim.accumulate": 2},
        {"method": "faar_sinewich"},
        {"optim.precision": "bf16"},
    ],
    ids=str,
)
def test_a_step_of_an_accelerator_reads_no_value_and_copies_nothing_from_the_host(
    dotted: dict[str, Any], meta: InProcess
) -> None:
    made = Trial(TrialConfig.resolve(RAW, **dotted), meta)
    made.model.train()
    batch = next(iter(made.train_data.batches(batch_size=4, seed=0, epoch=0, train=True, device=meta.device)))
    for step in range(2):  # the first fills caches
        made.policy.sample_mask(0, step)
        with HostTensors() as host:
            train_step(made, batch, step)
    assert host.seen == set()
    with pytest.raises(RuntimeError, match="meta"):
        batch["image"].sum().item()


def trial(late: bool = True, **dotted: Any) -> Trial:
    made = Trial(TrialConfig.resolve(RAW, **dotted), InProcess("cpu"))
    assert made.late_reader is None  # on a CPU
    if late:
        made.late_reader = LateReader(made.config.data.tasks, made.model)
    return made


def test_reading_late_trains_to_the_same_bit() -> None:
    at_once, late = trial(late=False), trial()
    assert train_epoch(late, 0) == train_epoch(at_once, 0)
    for ours, theirs in zip(late.model.parameters(), at_once.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def overflow_in(made: Trial, step: int, size: float) -> str:
    """Make a parameter's gradient `size` in one step; gives its name."""
    name, parameter = next((n, p) for n, p in made.model.named_parameters() if p.requires_grad)
    steps = iter(range(1_000))
    parameter.register_hook(lambda g: torch.full_like(g, size) if next(steps) == step else g)
    return name


@pytest.mark.parametrize(("size", "words"), [(math.nan, "nan"), (-math.inf, "inf"), (1e25, r"as large as 1\.0e\+25")])
def test_the_first_overflow_of_an_epoch_is_named_at_its_end(size: float, words: str) -> None:
    made = trial()
    name = overflow_in(made, 2, size)
    with pytest.raises(
        NonFiniteGradient, match=f"^step 2: the losses are finite, but the gradient of {name} is {words}$"
    ):
        run_epoch(made, 0, None)


def test_the_first_bad_loss_is_named_with_its_task() -> None:
    made = trial()
    depth = made.tasks["depth"]
    calls = iter(range(1_000))

    def share(*args: Tensor) -> Tensor:
        return depth.loss.share(*args) * (math.nan if next(calls) >= 1 else 1)

    made.tasks = {**made.tasks, "depth": replace(depth, loss=replace(depth.loss, share=share))}
    with pytest.raises(NonFiniteLoss, match=r"^step 1: the loss of depth is nan$"):
        run_epoch(made, 0, None)


def test_a_long_epoch_does_not_go_on_for_long_after_a_bad_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finite, "READ_EVERY", 2)
    made = trial()
    overflow_in(made, 0, math.nan)
    taken: list[int] = []
    monkeypatch.setattr(made.policy, "sample_mask", lambda epoch, step: taken.append(step))
    with pytest.raises(NonFiniteGradient, match=r"^step 0:"):
        train_epoch(made, 0)
    assert taken == [0, 1]  # of 5 steps


def test_under_fp16_a_step_is_judged_at_once_wherever_it_runs(meta: InProcess) -> None:
    """Its gradients decide whether the scale moves, or the weights."""
    made = Trial(TrialConfig.resolve(RAW, **{"optim.precision": "fp16"}), meta)
    assert made.late_reader is None
