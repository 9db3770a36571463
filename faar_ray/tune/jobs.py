"""A job: one (config, seed) that Ray is to train, and what is known of it while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from faar_ray.config import TrialConfig
from faar_ray.records import Role
from faar_ray.sections import Resources
from faar_ray.tracking.place import Place
from faar_ray.train.spec import spec_of

SHARDS = "data"
"""Folder of the shards below `storage.path`; no run there may have this name."""


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
    until: int | None = None
    """Finished epochs after which it waits for others, without a machine; None: it goes to its end."""
    parent: str = ""
    """Trial whose checkpoint it goes on from, "" for none."""
    inherited: int = 0
    """Epochs of that checkpoint."""

    @property
    def may_stop_early(self) -> bool:
        """Whether it is compared at the rungs: what the search explores is; all else runs to its end."""
        return self.role == "trial" and not self.replicate


def trial_name(number: int, seed: int) -> str:
    """Id of a trial: its configuration's number and the seed."""
    return f"t{number:03d}-s{seed}"


def shards_uri(place: Place) -> str:
    """Where a run in object storage puts the shards for its machines: beside the runs, so that all share them."""
    return f"{place.uri.rpartition('/')[0]}/{SHARDS}" if place.uri else ""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every trial of a search shares, beside its config."""

    place: Place
    """Of the run."""
    resources: Resources
    keep_checkpoints: int

    def spec(self, job: Job, val: Mapping[str, float], test: Mapping[str, float]) -> dict[str, Any]:
        """What the actor gets: plain JSON values, so that any runtime can stand in the same place.

        Args:
            job: the trial.
            val: single-task references on val, task -> metric; empty for a reference itself.
            test: the same on test.
        """
        part = {"until": job.until, "parent": job.parent, "inherited": job.inherited}
        part["witness"] = "" if self.place.uri else str(self.place.path / "space.yaml")
        return part | spec_of(
            job.trial_id,
            job.config,
            self.place,
            self.resources,
            keep_checkpoints=self.keep_checkpoints,
            references=val,
            test_references=test,
            test=True,
            data=shards_uri(self.place),
        )


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
    told: int = 0
    """Epochs of which the watchers have heard before."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Of the last epoch."""
    test: dict[str, float] = field(default_factory=dict)
    """Of the test split, once the trial is complete."""
    known: int = 0
    """Epochs that the journal held when the job was handed out: their verdicts were given before."""
    stop_reason: str = ""
    """Set by the scheduler's verdict or by a limit."""
    error: str = ""

    @property
    def waits(self) -> bool:
        """Whether it has come to where it waits for others."""
        return self.epochs == self.job.until and not (self.stop_reason or self.error)
