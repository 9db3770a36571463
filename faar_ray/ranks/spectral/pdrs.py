"""`pdrs.basis: spectral`: PDRS decides in singular components."""

from __future__ import annotations

from collections.abc import Sequence

from torch.optim import Optimizer

from faar_ray.adapters import LowRankFactors
from faar_ray.config.trial import TrialConfig
from faar_ray.ranks.coverage import ImportanceScores
from faar_ray.ranks.pdrs import PDRS
from faar_ray.ranks.spectral.rotate import rotate_all


class SpectralPDRS(PDRS):
    """At each epoch's end that decides, adapters are rotated, and PDRS's scores are measured there.

    They are means over `spectral.score_batches` batches of (|<A_i, dL/dA_i>| + |<B_i, dL/dB_i>|) / 2. The moving
    average over steps decides nothing, is logged where nothing is decided, and begins anew after a rotation: the score
    of a mixture of components does not follow from theirs, for each is an absolute value.
    """

    def __init__(self, adapters: Sequence[LowRankFactors], config: TrialConfig) -> None:
        super().__init__(adapters, config.pdrs, seed=config.seed, epochs=config.optim.epochs)
        self.spectral = config.spectral

    def _evidence(self, epoch: int, optimizer: Optimizer | None, *, decides: bool) -> list[ImportanceScores]:
        if not decides:
            return super()._evidence(epoch, optimizer, decides=decides)
        components = rotate_all(self, self.spectral, epoch, optimizer)
        for scores in (self.importance, *self.carried.values()):
            for of_adapter in scores:
                of_adapter.restart()
        means = [of_adapter.gradient_NR.abs().mean(0).float() for of_adapter in components]
        return [ImportanceScores(scores_R, scores_R > 0) for scores_R in means]


def build_pdrs(config: TrialConfig, adapters: Sequence[LowRankFactors]) -> PDRS:
    """`pdrs`, over all epochs of a trial."""
    if config.pdrs.basis == "spectral":
        return SpectralPDRS(adapters, config)
    return PDRS(adapters, config.pdrs, seed=config.seed, epochs=config.optim.epochs)
