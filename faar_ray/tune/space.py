"""A search space: what a search-space YAML (version 1) holds, frozen and validated at birth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from faar_ray.config import Positive, Section, TrialConfig

Scalar = bool | int | float | str
Count = Annotated[int, Field(ge=1)]


class Parameter(Section):
    """One searched key: a range (`min`, `max`) or a list (`values`)."""

    min: int | float | None = Field(None, description="Smallest value, inclusive.")
    max: int | float | None = Field(None, description="Largest value, inclusive.")
    values: Annotated[tuple[Scalar, ...], Field(min_length=1, strict=False)] | None = Field(
        None, description="The choices, instead of a range."
    )
    log: bool = Field(False, description="Sample on a log scale.")
    scale: Literal["linear", "log1m"] = Field("linear", description="`log1m` samples 1 - x on a log scale (max < 1).")
    prior: Scalar | None = Field(None, description="A value believed good: it is tried first.")
    # H4: also `when` if implemented, else leave the key out; cross-field checks live here.


class Objective(Section):
    """A metric to optimise."""

    name: str
    goal: Literal["maximize", "minimize"]


class Replicates(Section):
    """Leading configurations are run again on common seeds before an answer is given."""

    top: Count = 3
    seeds: Annotated[int, Field(ge=2)] = 2


class SearchConfig(Section):
    """Who proposes configurations."""

    sampler: Literal["tpe", "random"] = "tpe"
    seed: Annotated[int, Field(ge=0)] = 0
    startup_trials: Annotated[int, Field(ge=0)] = 4
    replicates: Replicates | None = None


class SchedulerConfig(Section):
    """Who stops trials early."""

    type: Literal["asha", "none"] = "asha"
    metric: str = "delta_m"
    min_epochs: Count = 2
    reduction: Annotated[int, Field(ge=2)] = 3


class Budget(Section):
    """When the search ends; references and controls are not counted."""

    trials: Count = 8
    time: str | None = None


class WarmStart(Section):
    """Configurations tried first."""

    points: Annotated[tuple[dict[str, Scalar], ...], Field(strict=False)] = ()


class Resources(Section):
    """What one trial needs."""

    workers: Annotated[int, Field(ge=1, le=1)] = 1
    cpus_per_worker: Count = 1
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0
    max_concurrent: Count | Literal["auto"] = "auto"


class Failure(Section):
    """How many failures are borne."""

    max_retries: Annotated[int, Field(ge=0)] = 2
    max_failures: Annotated[int, Field(ge=0)] = 5


class Storage(Section):
    """Where results go: `<path>/<name>/`."""

    path: str = "./runs"
    keep_checkpoints: Count = 2


class Tracking(Section):
    """Where MLflow writes."""

    uri: str = "sqlite:///mlflow.db"
    experiment: str | None = None


class SearchSpace(Section):
    """A whole search-space file."""

    version: Literal[1]
    name: str
    base: dict[str, Any] = Field(default_factory=dict)
    """Raw trial config; `trial_config` resolves it with a sample on top."""
    parameters: dict[str, Parameter]
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1, strict=False)]
    references: Literal["auto"] | dict[str, Positive] = "auto"
    """Single-task metric per task: `auto` trains them once and caches them."""
    controls: Annotated[tuple[dict[str, Any], ...], Field(strict=False)] = ()
    """Trial configs (dotted keys over `base`) run beside the search and shown with it, e.g. `{method: dora}`."""
    constraints: Annotated[tuple[str, ...], Field(strict=False)] = ()
    search: SearchConfig = SearchConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    budget: Budget = Budget()
    warm_start: WarmStart = WarmStart()
    resources: Resources = Resources()
    failure: Failure = Failure()
    storage: Storage = Storage()
    tracking: Tracking = Tracking()

    def trial_config(self, sample: Mapping[str, Any]) -> TrialConfig:
        """The base with a sample (dotted keys) on top."""
        return TrialConfig.resolve(self.base, **sample)
