"""Performance-Driven Rank Shrinking (FAAR): prefix masks, importance scores, coverage, shrinking.

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
from faar_ray.ranks.importance import Importance
from faar_ray.ranks.inherited import carried_scores
from faar_ray.ranks.policy import RankPolicy, record
from faar_ray.ranks.shrink import shrink
from faar_ray.records import Extra, RankRecord
from faar_ray.seeding import private


class PDRS(RankPolicy):
    """The rank policy of FAAR."""

    def __init__(self, adapters: Sequence[LowRankFactors], config: PdrsConfig, *, seed: int, epochs: int) -> None:
        super().__init__(adapters)
        self.config, self.seed = config, seed
        self.observes_clipped = config.scored_gradients == "clipped"
        self.masked_epochs = epochs - config.free_epochs
        self.importance = self._scores(config.beta)
        self.carried: dict[float, list[Importance]] = {}
        """Other betas -> what the scores are under them."""
        self.logged: dict[float, list[list[tuple[float, ...]]]] = {}
        """The same betas -> what the trace would hold of each adapter after each epoch without a decision."""

    def _scores(self, beta: float) -> list[Importance]:
        of = self.config
        how: dict[str, Any] = {"bias_correction": of.bias_correction, "clamp": of.score_clamp}
        how["counts_dropped"] = of.dropped == "counted"
        return [Importance(a.rank, beta, of.update, a.A_RI.device, **how) for a in self.adapters]

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
            decision = keep_by_coverage(
                [evidence[i] for i in scope],
                rho,
                floor=self.config.floor,
                margin=self.config.margin,
                floor_holds_margin=self.config.floor_holds_margin,
            )
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
        extra: dict[str, Extra] = {"dropped": evidence.dropped} if self.config.dropped == "counted" else {}
        return record(
            adapter, epoch, before, self.config.scope, rho, kept.coverage, evidence.logged(), unobserved, extra
        )

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

    def _load(self, scores: Sequence[Importance], emas: Sequence[Tensor], counts: Sequence[Tensor]) -> None:
        for importance, adapter, ema_R, count_R in zip(scores, self.adapters, emas, counts, strict=True):
            importance.load(ema_R, count_R, adapter.rank)
