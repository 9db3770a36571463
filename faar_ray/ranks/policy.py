"""Rank policies: the interface between the training loop and the choice of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from faar_ray.adapters import LowRankFactors
from faar_ray.config.registries import load_builder
from faar_ray.config.trial import TrialConfig
from faar_ray.records import Extra, RankRecord


class GradientPass(Protocol):
    """Gradients of training batches without any training, for policies that decide by more than the steps showed."""

    def __call__(self, epoch: int, batches: int) -> Iterator[None]:
        """Yield once per batch, with its gradients in every trained parameter: of all workers' parts, unscaled.

        The batches are the same for the same seed, epoch and number. Afterwards the trial is as it was, bit for bit:
        there are no gradients, and buffers, optimizer, loss scale and random generators have not moved.

        Args:
            epoch: that has ended.
            batches: how many; more than an epoch has are drawn from several orders.
        """


class RankPolicy:
    """Chooses the active components of adapters in each step, and those kept after each epoch; this base keeps all.

    A policy overrides what it needs. The training loop calls, in this order: `sample_mask`, (forward), `loss_term`,
    (backward), `observe`, (optimizer step), `after_step`, ..., and `end_epoch` after the last step of an epoch.
    """

    gradient_pass: GradientPass | None = None
    """What the training loop gives before each `end_epoch`."""
    evaluation: Callable[[], dict[str, float]] | None = None
    """The same: val's metrics of the model as its masks are now."""
    observes_clipped = False
    """Whether `observe` is called after the gradients are clipped."""

    def __init__(self, adapters: Sequence[LowRankFactors]) -> None:
        self.adapters = list(adapters)

    def carry(self, betas: Sequence[float]) -> None:
        """Keep the scores under these values of `pdrs.beta` too, for forks that begin before the first decision."""

    def begin(self, steps: int) -> None:
        """Learn how many optimizer steps all epochs have together, before the first one and before a resume.

        Raises:
            ConfigError: the policy's schedule does not fit into them.
        """

    def sample_mask(self, epoch: int, step: int) -> None:
        """Set the mask of every adapter for this optimizer step (0-based, counted over all epochs)."""

    def loss_term(self) -> Tensor | None:
        """A scalar that is added to this step's loss, once per step; it must be the same on all workers."""
        return None

    def observe(self) -> None:
        """Read this step's gradients, unscaled and not yet clipped, unless `observes_clipped`.

        Not called where they are not finite; on an accelerator it may be, and then the trial ends before `end_epoch`.
        """

    def after_step(self, optimizer: Optimizer) -> None:
        """Act on the new parameters, e.g. by a proximal step; not called where `observe` is not."""

    def state_for_agreement(self) -> Tensor:
        """The scores that decisions use, as one vector; workers compare it before they shrink."""
        return torch.zeros(1)

    def end_epoch(self, epoch: int, optimizer: Optimizer | None) -> list[RankRecord]:
        """Shrink (see `shrink`), clear all masks, and return one record per adapter; here: nothing is decided."""
        return [
            record(adapter, epoch, adapter.rank, "adapter", 1.0, 1.0, (0.0,) * adapter.rank, adapter.rank)
            for adapter in self.adapters
        ]

    def metrics(self) -> dict[str, float]:
        """Further metrics of the epoch that has ended."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Everything but the ranks that a resumed run needs, as plain values and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`, after the adapters have their ranks."""


def build_policy(config: TrialConfig, adapters: Sequence[LowRankFactors]) -> RankPolicy:
    """The policy that `ranks.kind` names."""
    policy: RankPolicy = load_builder(config.ranks.entry.build)(config, adapters)
    return policy


def build_fixed(config: TrialConfig, adapters: Sequence[LowRankFactors]) -> RankPolicy:
    """`fixed`: no masks, no shrinking."""
    return RankPolicy(adapters)


def record(
    adapter: LowRankFactors,
    epoch: int,
    rank_before: int,
    scope: str,
    rho: float,
    coverage: float,
    importance: tuple[float, ...],
    unobserved: int,
    extra: Mapping[str, Extra] | None = None,
) -> RankRecord:
    """The row of the rank trace for an adapter as it is now; `extra` are further columns."""
    site = adapter.site
    return RankRecord(
        epoch=epoch, stage=site.stage, block=site.block, layer=site.layer, task=site.task,
        rank_before=rank_before, rank=adapter.rank, scope=scope, rho=rho, coverage=coverage,
        importance=importance, unobserved=unobserved, params=adapter.parameter_count(), extra=dict(extra or {}),
    )  # fmt: skip
