"""Performance-Driven Rank Shrinking (FAAR): prefix masks, importance scores, EMA, coverage, shrinking.

Axes: R components of an adapter, L adapters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from faar_ray.adapters import LowRankFactors
from faar_ray.config.trial import PdrsConfig
from faar_ray.ranks.coverage import CoverageDecision, ImportanceScores, keep_by_coverage
from faar_ray.ranks.inherited import carried_scores
from faar_ray.ranks.policy import RankPolicy, record
from faar_ray.ranks.shrink import shrink
from faar_ray.records import RankRecord
from faar_ray.seeding import private


class Importance:
    """EMA over time of one adapter's scores: s_hat <- beta s_hat + (1 - beta) s (FAAR, coverage strategy).

    With `update="active"` a component moves only in steps in which it was active, and a count per component
    corrects the bias of the start at 0. With `"all"` (the released code) inactive components receive 0, which
    makes late components look useless merely because they are rarely active.

    A score of exactly 0 is no evidence: the step could not score the component, because its B_i was still 0 or no
    gradient came (no valid label of the adapter's task). Such a step changes neither EMA nor count: of the component,
    with `"all"` of the adapter if no component has a score.
    """

    def __init__(
        self, rank: int, beta: float, update: str = "active", device: torch.device | str | None = None
    ) -> None:
        self.beta, self.update = beta, update
        self.ema_R = torch.zeros(rank, device=device)
        self.count_R = torch.zeros(rank, dtype=torch.int64, device=device)

    def observe(self, scores_b: Tensor) -> None:
        """Add the scores of the active prefix, shape (b,) with b <= R."""
        scores_R = torch.zeros_like(self.ema_R)
        scores_R[: len(scores_b)] = scores_b.detach()
        scored_R = scores_R > 0
        if self.update == "all":
            scored_R = scored_R.any().expand_as(scored_R)

        self.ema_R = self.ema_R.lerp(scores_R, 1 - self.beta).where(scored_R, self.ema_R)
        self.count_R += scored_R

    def evidence(self) -> ImportanceScores:
        """Bias-corrected scores s_hat / (1 - beta^count), and which components were ever scored."""
        ema_R, count_R = self.ema_R.cpu(), self.count_R.cpu()
        observed_R = count_R > 0
        correction_R = 1 - torch.pow(torch.tensor(self.beta, dtype=torch.float64), count_R)
        # float64 until the division: beta^count is close to 1 in the first steps
        scores_R = (ema_R / correction_R.clamp_min(1e-12)).float()
        return ImportanceScores(scores_R.where(observed_R, 0.0), observed_R)

    def restart(self) -> None:
        """Forget all scores: the components are others now."""
        self.ema_R, self.count_R = torch.zeros_like(self.ema_R), torch.zeros_like(self.count_R)

    def change_beta(self, before: float) -> None:
        """Keep s_hat / (1 - beta^count) as it was under the beta before."""
        was_R, is_R = (
            1 - torch.pow(torch.tensor(beta, dtype=torch.float64), self.count_R.cpu()) for beta in (before, self.beta)
        )
        self.ema_R *= (is_R / was_R.clamp_min(1e-12)).to(self.ema_R)

    def keep(self, index_K: Tensor) -> None:
        """Keep the EMA and count of these components, in this order, as after a shrink."""
        index_K = index_K.to(self.ema_R.device)
        self.ema_R, self.count_R = self.ema_R[index_K].clone(), self.count_R[index_K].clone()


class PDRS(RankPolicy):
    """The rank policy of FAAR."""

    def __init__(self, adapters: Sequence[LowRankFactors], config: PdrsConfig, *, seed: int, epochs: int) -> None:
        super().__init__(adapters)
        self.config, self.seed = config, seed
        self.masked_epochs = epochs - config.free_epochs
        self.importance = self._scores(config.beta)
        self.carried: dict[float, list[Importance]] = {}
        """Other betas -> what the scores are under them."""
        self.logged: dict[float, list[list[tuple[float, ...]]]] = {}
        """The same betas -> what the trace would hold of each adapter after each epoch without a decision."""

    def _scores(self, beta: float) -> list[Importance]:
        return [Importance(a.rank, beta, self.config.update, a.A_RI.device) for a in self.adapters]

    def carry(self, betas: Sequence[float]) -> None:
        """See `RankPolicy`."""
        self.carried = {beta: self._scores(beta) for beta in betas if beta != self.config.beta}
        self.logged = {beta: [] for beta in self.carried}

    def sample_mask(self, epoch: int, step: int) -> None:
        """Prefix b uniform in 1..r per (seed, step, adapter), from a private stream; all of r in free epochs.

        All of r also in the steps that `mask_share` leaves out, drawn from a stream of their own.
        """
        uniform_L = torch.rand(len(self.adapters), generator=private(self.seed, "prefix", step), dtype=torch.float64)
        masked = epoch < self.masked_epochs and self._has_mask(step)
        for adapter, u in zip(self.adapters, uniform_L.tolist(), strict=True):
            adapter.mask_prefix(1 + int(u * adapter.rank) if masked else adapter.rank)

    def _has_mask(self, step: int) -> bool:
        uniform = torch.rand(1, generator=private(self.seed, "mask share", step), dtype=torch.float64)
        return float(uniform) < self.config.mask_share

    def observe(self) -> None:
        """Move every adapter's EMA by this step's scores."""
        for i, adapter in enumerate(self.adapters):
            scores_b = adapter.importance()
            for scores in (self.importance, *self.carried.values()):
                scores[i].observe(scores_b)

    def state_for_agreement(self) -> Tensor:
        """All scores."""
        return torch.cat([importance.ema_R for importance in self.importance])

    def end_epoch(self, epoch: int, optimizer: Optimizer | None) -> list[RankRecord]:
        """Shrink to coverage rho, unless the epoch is before `start_epoch` or free."""
        decides = self.config.start_epoch <= epoch < self.masked_epochs
        evidence = self._evidence(epoch, optimizer, decides=decides)
        for beta, scores in ({} if decides else self.carried).items():
            self.logged[beta].append([importance.evidence().logged() for importance in scores])
        kept = (
            self._decide(evidence)
            if decides
            else [CoverageDecision(torch.arange(len(e.scores_R)), 1.0) for e in evidence]
        )
        return [self._apply(i, epoch, evidence[i], kept[i], decides, optimizer) for i in range(len(self.adapters))]

    def _evidence(self, epoch: int, optimizer: Optimizer | None, *, decides: bool) -> list[ImportanceScores]:
        """The scores at an epoch's end, which may decide."""
        return [importance.evidence() for importance in self.importance]

    def _decide(self, evidence: Sequence[ImportanceScores]) -> list[CoverageDecision]:
        kept: dict[int, CoverageDecision] = {}
        for scope in self._scopes():
            rho = self._rho(self.adapters[scope[0]])
            limits = {"floor": self.config.floor, "margin": self.config.margin}
            decision = keep_by_coverage([evidence[i] for i in scope], rho, **limits)
            kept.update(zip(scope, decision, strict=True))
        return [kept[i] for i in range(len(evidence))]

    def _scopes(self) -> list[list[int]]:
        """Adapters whose coverage is measured together."""
        if self.config.scope == "adapter":
            return [[i] for i in range(len(self.adapters))]

        pools: dict[tuple[bool, int], list[int]] = {}
        for i, adapter in enumerate(self.adapters):
            shared = adapter.site.shared
            # coverage is compared with one rho, so adapters of different rho are never pooled
            stage = adapter.site.stage if self.config.rho_by_stage(shared=shared) else -1
            pools.setdefault((shared, stage), []).append(i)
        return list(pools.values())

    def _rho(self, adapter: LowRankFactors) -> float:
        return self.config.rho(shared=adapter.site.shared, stage=adapter.site.stage)

    def _apply(
        self,
        i: int,
        epoch: int,
        evidence: ImportanceScores,
        kept: CoverageDecision,
        decided: bool,
        optimizer: Optimizer | None,
    ) -> RankRecord:
        adapter, before = self.adapters[i], self.adapters[i].rank

        if decided:  # also when all are kept: survivors are ordered, so that short prefixes hold the important ones
            shrink(adapter, kept.index_K, optimizer)
            for scores in (self.importance, *self.carried.values()):
                scores[i].keep(kept.index_K)
        adapter.clear_mask()

        rho = self._rho(adapter) if decided else 1.0
        unobserved = int((~evidence.observed_R).sum())
        return record(adapter, epoch, before, self.config.scope, rho, kept.coverage, evidence.logged(), unobserved)

    def state_dict(self) -> dict[str, Any]:
        """EMA and counts of every adapter; masks need no state, being a function of (seed, step, adapter)."""
        return {
            "beta": self.config.beta,
            "ema": [i.ema_R for i in self.importance],
            "count": [i.count_R for i in self.importance],
            "carried": [
                {"beta": beta, "ema": [i.ema_R for i in scores], "logged": self.logged[beta]}
                for beta, scores in self.carried.items()
            ],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`; under another beta the scores are those that were carried for it, or else scaled.

        Scaled so that bias-corrected scores stay what they were.
        """
        own = carried_scores(state, self.config.beta)
        self._load(self.importance, state["ema"] if own is None else own["ema"], state["count"])
        if own is None and state["beta"] != self.config.beta:
            for importance in self.importance:
                importance.change_beta(state["beta"])

        for beta, scores in self.carried.items():
            if (carried := carried_scores(state, beta)) is not None:
                self._load(scores, carried["ema"], state["count"])
                self.logged[beta] = [[tuple(row) for row in rows] for rows in carried["logged"]]

    @staticmethod
    def _load(scores: Sequence[Importance], emas: Sequence[Tensor], counts: Sequence[Tensor]) -> None:
        for importance, ema_R, count_R in zip(scores, emas, counts, strict=True):
            importance.ema_R = ema_R.to(importance.ema_R, copy=True)
            importance.count_R = count_R.to(importance.count_R, copy=True)
