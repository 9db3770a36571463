"""`ranks.kind: adalora`: one budget of singular values for all layers and tasks (AdaLoRA, Zhang et al. 2023).

Axes: R components of an adapter, N components of all adapters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from faar_ray.adapters import LowRankFactors
from faar_ray.config.trial import AdaloraConfig, TrialConfig
from faar_ray.errors import ConfigError
from faar_ray.ranks.policy import RankPolicy, record
from faar_ray.ranks.sensitivity import Sensitivity
from faar_ray.ranks.shrink import shrink
from faar_ray.records import Extra, RankRecord


@dataclass(frozen=True, slots=True)
class Schedule:
    """How many singular values may be other than 0 after a step (1-based), of `first` at the start."""

    first: int
    last: int
    t_init: int
    t_final: int
    delta_t: int
    steps: int

    @property
    def settled(self) -> int:
        """The step that cuts for good: scores stay from here on, and so does what is cut."""
        return self.steps - self.t_final

    def budget(self, step: int) -> int:
        """b(t) = b_T + (b_0 - b_T) (1 - (t - t_init) / (T - t_init - t_final))^3 (AdaLoRA, section 3.3)."""
        if step <= self.t_init:
            return self.first
        if step > self.settled:
            return self.last
        left = 1 - (step - self.t_init) / (self.settled - self.t_init)
        return int((self.first - self.last) * left**3 + self.last)

    def cuts(self, step: int) -> bool:
        """Whether a step ends with a cut: each `delta_t`-th, the one that settles, and all after it."""
        return step >= self.settled or (step > self.t_init and step % self.delta_t == 0)


def schedule_of(config: AdaloraConfig, ranks: Sequence[int], steps: int) -> Schedule:
    """The schedule of adapters of these initial ranks, over all steps of a trial.

    Raises:
        ConfigError: the target is above the start, or no step is left to cut in.
    """
    first = sum(ranks)
    last = first * 2 // 3 if config.target_rank is None else max(1, round(config.target_rank * len(ranks)))
    if last > first:
        raise ConfigError(
            f"adalora.target_rank: must be at most the mean initial rank {first / len(ranks):.4g}, got "
            f"{config.target_rank:g}"
        )
    t_init, t_final = (x if isinstance(x, int) else int(x * steps) for x in (config.t_init, config.t_final))
    if t_init + t_final >= steps:
        raise ConfigError(
            f"adalora.t_final: t_init + t_final must be below the trial's {steps} steps, or no step is left to cut in, "
            f"got {t_init} + {t_final}"
        )
    return Schedule(first, last, t_init, t_final, config.delta_t, steps)


class AdaLoRA(RankPolicy):
    """Scores triplets (B_k, E_k, A_k) after every step, and zeroes the E_k that a shrinking budget has no place for.

    A zeroed E_k keeps its gradient and may come back at a later cut, until `t_final` steps before the end. Components
    whose E_k is 0 then are dropped at the end of the last epoch, not before: until there they count, and are
    regularised, as the authors have it. An adapter may lose all of them.
    """

    schedule: Schedule

    def __init__(self, adapters: Sequence[LowRankFactors], config: AdaloraConfig, *, epochs: int) -> None:
        super().__init__(adapters)
        self.config, self.epochs, self.step = config, epochs, 0
        self.initial_ranks = [adapter.rank for adapter in self.adapters]
        self.sensitivity = Sensitivity(self._parameters(), config.beta1, config.beta2)

    def _parameters(self) -> list[nn.Parameter]:
        """A, B and E of every adapter, one adapter after another."""
        return [p for adapter in self.adapters for p in (*adapter.factors, values_of(adapter))]

    def begin(self, steps: int) -> None:
        """See `RankPolicy`."""
        self.schedule = schedule_of(self.config, self.initial_ranks, steps)

    def sample_mask(self, epoch: int, step: int) -> None:
        """Nothing is masked; counts the steps, from 1."""
        self.step = step + 1

    def loss_term(self) -> Tensor | None:
        """gamma times the mean of ||A A^T - I|| and ||B^T B - I||, Frobenius, over all adapters (section 3.1)."""
        if self.config.orthogonality == 0:
            return None
        factors = [factor for adapter in self.adapters for factor in adapter.factors]
        norms = [torch.linalg.matrix_norm(f @ f.t() - torch.eye(len(f)).to(f)) for f in factors if len(f)]
        return self.config.orthogonality * torch.stack(norms).sum() / len(factors)

    @torch.no_grad()
    def after_step(self, optimizer: Optimizer) -> None:
        """Score by the gradients that the optimizer took, clipped ones; then cut, where the schedule says so."""
        if self.step < self.schedule.settled:
            self.sensitivity.observe(self._parameters())
        if self.schedule.cuts(self.step):
            self._zero(self.schedule.budget(self.step))

    def triplets(self) -> list[Tensor]:
        """S_k = s(E_k) + mean_j s(A_kj) + mean_i s(B_ik) of every adapter's components, each (R,) (section 3.2)."""
        s = self.sensitivity.scores()
        return [E_R + (A_RI.mean(1) + B_RO.mean(1)) for A_RI, B_RO, E_R in zip(s[::3], s[1::3], s[2::3], strict=True)]

    def _dropped(self, budget: int) -> list[Tensor]:
        """Which components of every adapter a budget has no place for, each bool (R,).

        Those whose score is at most the (b0 - b)-th smallest of all: equal ones go together.
        """
        scores = self.triplets()
        excess = self.schedule.first - budget
        if excess == 0:
            return [torch.zeros_like(scores_R, dtype=torch.bool) for scores_R in scores]
        threshold = torch.cat(scores).kthvalue(excess).values
        return [scores_R <= threshold for scores_R in scores]

    def _zero(self, budget: int) -> None:
        for adapter, dropped_R in zip(self.adapters, self._dropped(budget), strict=True):
            values_of(adapter).detach().masked_fill_(dropped_R, 0.0)

    def state_for_agreement(self) -> Tensor:
        """All scores of triplets."""
        return torch.cat(self.triplets())

    def end_epoch(self, epoch: int, optimizer: Optimizer | None) -> list[RankRecord]:
        """Drop what has no place, at the end of the last epoch; else nothing."""
        is_last, scores = epoch + 1 == self.epochs, self.triplets()
        budget = self.schedule.last if is_last else self.schedule.budget(self.step)
        kept = [~dropped_R for dropped_R in self._dropped(budget)] if is_last else [s >= 0 for s in scores]
        whole, held = (sum(float(x.double().sum()) for x in of) for of in (scores, self._held(scores, kept)))
        coverage = held / whole if is_last and whole > 0 else 1.0
        return [self._apply(i, epoch, scores[i], kept[i], coverage, budget, optimizer) for i in range(len(scores))]

    @staticmethod
    def _held(scores: Sequence[Tensor], kept: Sequence[Tensor]) -> list[Tensor]:
        return [scores_R[kept_R] for scores_R, kept_R in zip(scores, kept, strict=True)]

    def _apply(
        self,
        i: int,
        epoch: int,
        scores_R: Tensor,
        kept_R: Tensor,
        coverage: float,
        budget: int,
        optimizer: Optimizer | None,
    ) -> RankRecord:
        adapter, before = self.adapters[i], self.adapters[i].rank
        order_R = scores_R.argsort(descending=True, stable=True)
        if epoch + 1 == self.epochs:
            index_K = order_R[kept_R[order_R]]
            shrink(adapter, index_K, optimizer)
            for parameter in range(3 * i, 3 * i + 3):
                self.sensitivity.keep(parameter, index_K)
        extra: dict[str, Extra] = {"nonzero": int((values_of(adapter) != 0).sum()), "budget": budget}
        return record(adapter, epoch, before, "pooled", 1.0, coverage, tuple(scores_R[order_R].tolist()), 0, extra)

    def state_dict(self) -> dict[str, Any]:
        """The averages, and the number of steps."""
        return {"step": self.step, **self.sensitivity.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self.step = state["step"]
        self.sensitivity.load_state_dict(state)


def values_of(adapter: LowRankFactors) -> nn.Parameter:
    """E of an adapter."""
    if adapter.E_R is None:
        raise ValueError(f"{adapter.site}: has no singular values, which `adapters.prepare` gives")
    return adapter.E_R


def build_adalora(config: TrialConfig, adapters: Sequence[LowRankFactors]) -> AdaLoRA:
    """`adalora`."""
    return AdaLoRA(adapters, config.adalora, epochs=config.optim.epochs)
