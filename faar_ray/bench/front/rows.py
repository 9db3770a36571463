"""The rows of a study: a way of deciding ranks and its numbers by seed, and how rows of equal size are found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from faar_ray.bench.front.rates import KIND, RANK
from faar_ray.records import TrialResult
from faar_ray.report.statistics.groups import Config, complete_configs

VAL, TEST, SIZE = "delta_m", "test/delta_m", "params/adapters"
CUT, BUDGET, ROTATION, RHO = "spectral.cut_epoch", "ranks.budget", "spectral.rotation", "pdrs.rho_shared"
SAME = 0.02
"""Share by which sizes may differ and count as equal: a cut fills its budget only up to one component."""
FORK_EARLY, FORK_LATE = 0.2, 0.35
"""Shares of the full size up to which the front forks at 4 of 6 and at 5 of 6 of the epochs; above it only cuts."""


@dataclass(frozen=True)
class Row:
    """One configuration with the values of its seeds."""

    config: Config
    full_rank: int
    epochs: int
    """Of a whole training."""

    @property
    def kind(self) -> str:
        """`fixed`, `pdrs` or `spectral`."""
        return str(self.config.params[KIND])

    @property
    def rank(self) -> int:
        """At the start."""
        return int(self.config.params.get(RANK, self.full_rank))

    @property
    def is_trunk(self) -> bool:
        """Whether it is what spectral rows are until they are cut."""
        return self.kind == "fixed" and self.rank == self.full_rank

    @property
    def trained(self) -> int:
        """Epochs before the cut of a spectral row."""
        cut = self.config.params.get(CUT)
        return self.epochs if cut is None else int(cut) + 1

    @property
    def rotation(self) -> str:
        """Of a spectral row."""
        return str(self.config.params.get(ROTATION, "fisher"))

    @property
    def name(self) -> str:
        """For tables."""
        if self.kind == "fixed":
            return f"DoRA, fixed rank {self.rank}"
        if self.kind == "pdrs":
            return f"FAAR, rho {self.config.params[RHO]:g}"
        how = "Fisher" if self.rotation == "fisher" else "plain"
        after = "cut at the end" if self.trained == self.epochs else f"fork after {self.trained} of {self.epochs}"
        return f"spectral ({how}), {after}"

    def by_seed(self, metric: str) -> dict[int, float]:
        """A metric's values."""
        return {trial.seed: trial.metrics[metric] for trial in self.config.trials if metric in trial.metrics}

    @cached_property
    def size(self) -> float:
        """Adapter parameters, mean over seeds."""
        return self.config.mean(SIZE) or 0.0


def rows_of(results: Iterable[TrialResult], space: Mapping[str, Any]) -> list[Row]:
    """The configurations with finished trials.

    Args:
        results: of all stages; a configuration that is in two counts once.
        space: one of the search spaces, for what all share.
    """
    base = space["base"]
    configs = complete_configs([result for result in results if result.role == "trial"])
    return [Row(config, int(base["ranks"]["init_rank"]), int(base["optim"]["epochs"])) for config in configs]


def of_kind(rows: Sequence[Row], kind: str) -> list[Row]:
    """Rows of a kind, the smallest first."""
    return sorted((row for row in rows if row.kind == kind), key=lambda row: row.size)


def same_size(rows: Sequence[Row], size: float) -> list[Row]:
    """Rows whose size is no larger, and hardly smaller."""
    return [row for row in rows if size * (1 - SAME) <= row.size <= size]


def front_rows(rows: Sequence[Row]) -> list[Row]:
    """What one run gives: at each size the row that the front would train, and the trunk; the smallest first.

    Small sizes fork early, larger ones late, the largest are cut; where a size has no such row, the nearest stands in.
    """
    trunk = [row for row in rows if row.is_trunk]
    spectral = [row for row in of_kind(rows, "spectral") if row.rotation == "fisher"]
    full = max((row.size for row in [*trunk, *spectral]), default=0.0)
    chosen: list[Row] = []
    while spectral:
        alike = [row for row in spectral if row.size * (1 - SAME) <= spectral[0].size]
        wanted = wanted_share(alike[-1].size / full)
        chosen.append(min(alike, key=lambda row: abs(row.trained / row.epochs - wanted)))
        spectral = spectral[len(alike) :]
    return [*chosen, *trunk]


def cut_rows(rows: Sequence[Row]) -> list[Row]:
    """The trunk and its cuts after the last epoch, by the gradients' rotation; the smallest first."""
    cuts = [row for row in of_kind(rows, "spectral") if row.trained == row.epochs and row.rotation == "fisher"]
    return [*cuts, *(row for row in rows if row.is_trunk)]


def wanted_share(share: float) -> float:
    """Share of the epochs before the cut, for a size as a share of the full one."""
    return 4 / 6 if share <= FORK_EARLY else 5 / 6 if share <= FORK_LATE else 1.0
