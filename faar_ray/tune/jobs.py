"""A job: one (config, seed) that Ray is to train, and what is known of it while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faar_ray.config import TrialConfig
from faar_ray.records import Role


@dataclass(frozen=True, slots=True)
class Job:
    """One trial of the search, one control, or one reference."""

    trial_id: str
    role: Role
    config: TrialConfig
    params: Mapping[str, Any]
    """Searched keys and their values; of a control, the keys it sets; of a reference, its task."""
    number: int | None = None
    """Optuna's number; None for controls and references."""
    replicate: bool = False
    """A leading configuration on one more seed."""
    cached: bool = False
    """A reference that an earlier search trained."""

    @property
    def may_stop_early(self) -> bool:
        """Only what the search explores is compared at the rungs; replicates, controls and references run to their end."""
        return self.role == "trial" and not self.replicate

    def trainable_config(self, folder: Path, references: Mapping[str, float], *, threads: int, keep: int) -> dict[str, Any]:
        """What the Ray actor gets: plain JSON values, so that any runtime can stand in the same place."""
        return {
            "trial_id": self.trial_id,
            "role": self.role,
            "config": self.config.model_dump(mode="json"),
            "folder": str(folder / "trials" / self.trial_id),
            "trace": str(folder / "rank_trace" / f"{self.trial_id}.parquet"),
            "references": dict(references) if self.role != "reference" else None,
            "threads": threads,
            "keep_checkpoints": keep,
        }


@dataclass(slots=True)
class Running:
    """A job between its start and its end, in the driver."""

    job: Job
    started: float
    """time.monotonic() at the hand-over."""
    seconds_before: float = 0.0
    """Of epochs that were trained before the driver was killed."""
    epochs: int = 0
    """Epochs known to be finished (replays included once)."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Of the last epoch."""
    known: int = 0
    """Epochs that the journal held when the job was handed out: their verdicts were given before."""
    stop_reason: str = ""
    """Set by the scheduler's verdict or by a limit."""
    error: str = ""
