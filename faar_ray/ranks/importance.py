"""Importance of an adapter's components over time (FAAR, coverage strategy).

Axes: R components of the adapter.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from faar_ray.ranks.coverage import ImportanceScores

LEAST = 1e-12
"""What a clamp leaves of a score where the median is 0 (the released code)."""


class Importance:
    """EMA over time of one adapter's scores: s_hat <- beta s_hat + (1 - beta) s (FAAR, coverage strategy).

    With `update="active"` a component moves only in steps in which it was active, and a count per component
    corrects the bias of the start at 0. With `"all"` (the released code) inactive components receive 0: a component's
    EMA then tells, too, how often prefixes reach it. The released code clamps scores besides (`clamp`): prefixes of
    half of the initial rank or less score next to nothing.

    A score of exactly 0 is no evidence: the step could not score the component, because its B_i was still 0 or no
    gradient came (no valid label of the adapter's task). Such a step changes neither EMA nor count: of the component,
    with `"all"` of the adapter if no component has a score.

    Args:
        rank: components at the start.
        beta: EMA factor.
        update: see above.
        device: where scores come from.
        bias_correction: divide by 1 - beta^count.
        clamp: largest score in a step, in medians over the components at the start.
        counts_dropped: `ema_R` and `count_R` hold dropped components behind the others.
    """

    def __init__(
        self,
        rank: int,
        beta: float,
        update: str = "active",
        device: torch.device | str | None = None,
        *,
        bias_correction: bool = True,
        clamp: float | None = None,
        counts_dropped: bool = False,
    ) -> None:
        self.beta, self.update = beta, update
        self.bias_correction, self.clamp, self.counts_dropped = bias_correction, clamp, counts_dropped
        self.initial_rank = self.rank = rank
        self.ema_R = torch.zeros(rank, device=device)
        self.count_R = torch.zeros(rank, dtype=torch.int64, device=device)

    def observe(self, scores_b: Tensor) -> None:
        """Add the scores of the active prefix, shape (b,) with b <= R."""
        scores_R = torch.zeros_like(self.ema_R)
        scores_R[: len(scores_b)] = scores_b.detach()
        if self.clamp is not None:
            median = F.pad(scores_R, (0, self.initial_rank - len(scores_R))).median()
            scores_R = torch.minimum(scores_R, self.clamp * median + LEAST)
        scored_R = scores_R > 0
        if self.update == "all":
            scored_R = scored_R.any().expand_as(scored_R)

        self.ema_R = self.ema_R.lerp(scores_R, 1 - self.beta).where(scored_R, self.ema_R)
        self.count_R += scored_R

    def evidence(self) -> ImportanceScores:
        """Scores s_hat / (1 - beta^count), or s_hat, and which components were ever scored."""
        ema_R, count_R = self.ema_R.cpu(), self.count_R.cpu()
        observed_R = count_R > 0
        # float64 until the division: beta^count is close to 1 in the first steps
        scores_R = (ema_R / self._correction(self.beta).clamp_min(1e-12)).float().where(observed_R, 0.0)
        dropped = float(scores_R[self.rank :].double().sum())
        return ImportanceScores(scores_R[: self.rank], observed_R[: self.rank], dropped)

    def _correction(self, beta: float) -> Tensor:
        """1 - beta^count, or 1."""
        count_R = self.count_R.cpu()
        if not self.bias_correction:
            return torch.ones_like(count_R, dtype=torch.float64)
        return 1 - torch.pow(torch.tensor(beta, dtype=torch.float64), count_R)

    def restart(self) -> None:
        """Forget all scores: the components are others now."""
        self.ema_R, self.count_R = torch.zeros_like(self.ema_R), torch.zeros_like(self.count_R)

    def change_beta(self, before: float) -> None:
        """Keep the scores of `evidence` as they were under the beta before."""
        was_R, is_R = self._correction(before), self._correction(self.beta)
        self.ema_R *= (is_R / was_R.clamp_min(1e-12)).to(self.ema_R)

    def keep(self, index_K: Tensor) -> None:
        """Keep the EMA and count of these components, in this order, as after a shrink."""
        index_K = index_K.to(self.ema_R.device)
        self.rank = len(index_K)
        if self.counts_dropped:
            others = torch.ones_like(self.count_R, dtype=torch.bool)
            others[index_K] = False
            index_K = torch.cat([index_K, others.nonzero().squeeze(1)])
        self.ema_R, self.count_R = self.ema_R[index_K].clone(), self.count_R[index_K].clone()

    def load(self, ema_R: Tensor, count_R: Tensor, rank: int) -> None:
        """Take over what another one held, of which `rank` components are left."""
        self.ema_R, self.rank = ema_R.to(self.ema_R, copy=True), rank
        self.count_R = count_R.to(self.count_R, copy=True)
