"""The sections of a search space, each valid by itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, field_validator

from faar_ray.config.run_sections import Count, Resources
from faar_ray.config.trial import Positive, Section
from faar_ray.objectives.metrics import Goal
from faar_ray.tune.space.parameter import Scalar

SECONDS = {"s": 1, "m": 60, "h": 3600}
FRONT = "front"


class Objective(Section):
    """A metric to optimise."""

    name: str = Field(description="Metric, e.g. delta_m, trainable_params, time/step_ms, val/semseg/miou.")
    goal: Goal = Field(description="Which way is better.")


class Replicates(Section):
    """Leading configurations are run again on common seeds before an answer is given."""

    top: Count = Field(3, description="Configurations that are run again.")
    seeds: Annotated[int, Field(ge=2)] = Field(2, description="Seeds of each of them, the first one included.")


class SearchConfig(Section):
    """Who proposes configurations."""

    sampler: Literal["tpe", "nsga2", "gp", "cmaes", "random", "qmc", "grid", "points"] = Field(
        "tpe",
        description="Optuna sampler, or a list that is run as it is. `tpe` takes everything: lists, `when`, several "
        "objectives, constraints. `nsga2` and `gp` take all but `when`; `cmaes` ranges only, one objective, no "
        "constraints. `random` and `qmc` (Sobol's sequence, without `when`) learn from no result. Trials that were "
        "stopped early teach `tpe` alone, points and priors all but `cmaes`. `grid` is every combination of values; "
        "`points`, those of warm_start.points.",
    )
    seeds: Count = Field(1, description="`grid` and `points`: seeds of every configuration.")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(0, description="Seed of the sampler.")
    startup_trials: Annotated[int, Field(ge=0)] = Field(
        4, description="Random configurations before tpe, gp or cmaes sets in."
    )
    population: Annotated[int, Field(ge=4)] | None = Field(
        None,
        description="`nsga2` and `cmaes`: finished trials of a generation; the first is random. null is 50 for nsga2, "
        "4 + 3 ln(parameters) for cmaes.",
    )
    replicates: Replicates | None = Field(None, description="Reruns of the leading configurations on common seeds.")

    @property
    def listed(self) -> bool:
        """Whether the configurations are known beforehand."""
        return self.sampler in ("grid", "points")


class SchedulerConfig(Section):
    """Who stops trials early; replicates, controls and references are never stopped by it."""

    type: Literal["asha", "hyperband", "median", "none", "pbt"] = Field(
        "asha",
        description="Rule of early stopping. asha: at each rung one in `reduction` goes on; hyperband: several ashas "
        "whose first rungs come later and later, a trial's drawn by its number; median: stopped where its best so far "
        "is below the median of the other trials' means so far; pbt (population based training): at each boundary all "
        "trials wait for each other, and copies of the best, with their checkpoints and other values, take the places "
        "of the worst. It needs sampler `random` and keys that may change while training.",
    )
    metric: str = Field(
        "delta_m",
        description="Metric the rule looks at: delta_m or an objective; asha and hyperband also take `front`, "
        "non-domination over all objectives at that rung, so that small trials are not stopped for being small. "
        "Parameter counts are those at the rung: FAAR's only fall from there.",
    )
    min_epochs: Count = Field(2, description="Epochs that every trial gets; pbt: the first boundary.")
    reduction: Annotated[int, Field(ge=2)] = Field(3, description="asha, hyperband: one in so many goes on at a rung.")
    min_trials: Count = Field(3, description="median: other trials that must have come as far.")
    population: Annotated[int, Field(ge=2)] = Field(
        8,
        description="pbt: trials that train side by side; the rest of budget.trials are the copies. All finish at the "
        "end, so a budget of time, GPU-hours or USD that ends it early leaves no complete trial.",
    )
    interval: Count = Field(1, description="pbt: epochs from one boundary to the next.")
    quantile: Annotated[float, Field(gt=0, le=0.5)] = Field(
        0.25,
        description="pbt: share of the population, rounded up, whose places are taken at a boundary, and share whose "
        "copies take them.",
    )


class Budget(Section):
    """When the search ends; references and controls are no `trials`, but time, GPU-hours and USD are theirs too.

    At a limit whatever runs, references and controls too, is stopped at the end of its epoch.
    """

    trials: Count = Field(8, description="Trials; a trial is one config and seed.")
    time: str | None = Field(
        None,
        description="Wall time, e.g. 90s, 10m, 2h.",
        pattern=r"^[0-9]{1,6}(\.[0-9]{1,6})?[smh]$",
        json_schema_extra={"words": "a time such as 90s, 10m or 2h"},
    )
    gpu_hours: Positive | None = Field(
        None, description="Hours in which trials hold their GPUs x GPUs of a trial, summed over trials."
    )
    usd: Positive | None = Field(
        None,
        description="Hours in which trials hold their machine x resources.usd_per_hour, or the price that "
        "resources.cluster makes of a trial, summed over trials.",
    )

    @field_validator("time")
    @classmethod
    def _time_above_zero(cls, time: str | None) -> str | None:
        if time is not None and float(time[:-1]) == 0:
            raise ValueError(f"must be above zero, got {time!r}")
        return time

    @property
    def seconds(self) -> float | None:
        """Wall time in seconds, if limited."""
        return None if self.time is None else float(self.time[:-1]) * SECONDS[self.time[-1]]


class SearchResources(Resources):
    """What one trial needs, and its price."""

    usd_per_hour: Positive | None = Field(
        None,
        description="Price of one trial's resources per hour, for budget.usd; null takes it from resources.cluster, if "
        "that is given: the trial's share of the dearest node that can take it.",
    )
    cluster: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="File of the cluster that the search is to run on, e.g. clusters/aws.yaml: its node types say how "
        "many trials fit once it has grown, and, by their labels usd-per-hour, what a trial costs.",
    )


class WarmStart(Section):
    """What the search knows at its beginning."""

    model_config = ConfigDict(serialize_by_alias=True)

    points: Annotated[tuple[dict[str, Scalar], ...], Field(strict=False)] = Field(
        (), description="Values of parameters, tried first; what a point leaves out is sampled."
    )
    from_: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        alias="from",
        description="An older run: its name below storage.path, its folder or its URI. The sampler learns from "
        "its finished trials that fit this space; they are none of this search's results, and cost nothing of its "
        "budget. Refused where anything that is not searched differs.",
    )


class Failure(Section):
    """How many failures are borne."""

    max_retries: Annotated[int, Field(ge=0)] = Field(
        2,
        description="Times that one trial is tried again after its process died, raised or ran out of memory; a fault "
        "of its config or data and a loss that is not finite are not tried again.",
    )
    max_failures: Annotated[int, Field(ge=0)] = Field(5, description="Failed trials that end the search (exit 3).")
