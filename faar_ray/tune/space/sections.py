"""The sections of a search space, each valid by itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator

from faar_ray.config.quoting import quote_value
from faar_ray.config.run_sections import Count, Resources
from faar_ray.config.trial import Positive, Section
from faar_ray.config.validation_messages import did_you_mean, rule
from faar_ray.tune.propose.samplers import SAMPLERS
from faar_ray.tune.space.parameter import Scalar

SECONDS = {"s": 1, "m": 60, "h": 3600}
FRONT = "front"
MARGIN = 2.5
"""Of delta_m. From epoch 4 of 6 to the end no difference between two trials of one seed changed by more, to a digit, in
the 12 pairs of trials of `search_spaces/rho.yaml` that `bench.replay` keeps (root mean square 1.4)."""
WallTime = Annotated[str, Field(pattern=r"^[0-9]{1,6}(\.[0-9]{1,6})?[smh]$"), rule("a time such as 90s, 10m or 2h")]


class Replicates(Section):
    """Runs the leading configurations again on common seeds, so that the answer knows the seed noise."""

    top: Count = Field(3, description="Configurations that are run again.")
    seeds: Annotated[int, Field(ge=2)] = Field(2, description="Seeds of each of them, the first one included.")


class SearchConfig(Section):
    """How configurations are proposed."""

    sampler: str = Field(
        "tpe",
        json_schema_extra={"enum": [*SAMPLERS]},
        description="Optuna sampler, or a list of configurations. `tpe` supports everything: lists, `when`, several "
        "objectives, constraints. `nsga2` and `gp` support all but `when`; `cmaes` only ranges with one objective "
        "and no constraints. `random` and `qmc` (Sobol sequence, no `when`) do not learn from results. Only `tpe` "
        "learns from trials that were stopped early; all but `cmaes` learn from points and priors. `grid` runs every "
        "combination of values, `points` those of warm_start.points.",
    )
    seeds: Count = Field(1, description="`grid` and `points`: seeds of every configuration.")
    seed: Annotated[int, Field(ge=0, lt=2**32), rule("satisfy 0 <= seed < 2^32")] = Field(
        0, description="Seed of the sampler."
    )
    startup_trials: Annotated[int, Field(ge=0)] = Field(
        4, description="Random configurations before tpe, gp or cmaes proposes any."
    )
    population: Annotated[int, Field(ge=4)] | None = Field(
        None,
        description="`nsga2` and `cmaes`: finished trials per generation; the first generation is random. null is 50 "
        "for nsga2, 4 + 3 ln(parameters) for cmaes.",
    )
    lag: Count | None = Field(
        None,
        description="A trial is proposed from the results of all trials but the `lag` - 1 before it, and waits for "
        "those results. So the proposals are the same however fast the machines are and however many trials run at "
        "once, and about `lag` trials run at once. null: a proposal uses whatever has finished, nothing waits, and "
        "what a sampler that learns proposes depends on timing.",
    )
    share_prefixes: bool = Field(
        True,
        description="Whether trials that train alike at first (same seed, and only keys differ that matter later, as "
        "pdrs.rho_shared does from the first shrink on) train that part once. The result of every trial is what it "
        "would be alone; --dry-run says how many epochs it saves.",
    )
    replicates: Replicates | None = Field(None, description="Reruns of the leading configurations on common seeds.")

    @field_validator("sampler", mode="before")
    @classmethod
    def _sampler_exists(cls, name: Any) -> Any:
        if isinstance(name, str) and name in SAMPLERS:
            return name
        hint = did_you_mean(name, SAMPLERS) if isinstance(name, str) else ""
        raise ValueError(f"must be one of {', '.join(SAMPLERS)}, got {quote_value(name)}{hint}")

    @property
    def listed(self) -> bool:
        """Whether the configurations are a list that is known beforehand."""
        return SAMPLERS[self.sampler].listed


class SchedulerConfig(Section):
    """When trials are stopped early; never applied to replicates, controls and references."""

    type: Literal["asha", "hyperband", "median", "paired", "none", "pbt"] = Field(
        "asha",
        description="Rule of early stopping. asha: at each rung one in `reduction` continues. hyperband: several "
        "asha brackets with later first rungs; a trial's number decides its bracket. median: a trial stops if its "
        "best value is below the median of the other trials' mean values. These three compare a trial with those "
        "that reached the same epoch before it, so timing decides which trials are stopped. paired: a trial stops if "
        "it is behind a finished trial of the same seed at the same epoch, late enough to tell the end (`min_share`, "
        "`margin`); without such a trial it goes on. No rule compares a trial while its ranks are masked or "
        "still to be cut (pdrs, spectral); where that lasts to the end, such trials are compared with each other. pbt "
        "(population based training): every `interval` epochs the worst trials are replaced by copies of the best "
        "(checkpoint plus perturbed values). It needs sampler `random` and keys that may change while training.",
    )
    metric: str = Field(
        "delta_m",
        description="Metric that the rule compares: delta_m or an objective. With `front`, asha and hyperband rank "
        "trials by Pareto dominance, so small models are not stopped for lower delta_m. Parameter counts are those "
        "at the rung; with FAAR they can only fall later.",
    )
    min_epochs: Count = Field(2, description="Epochs that every trial trains at least; pbt: the first boundary.")
    reduction: Annotated[int, Field(ge=2)] = Field(
        3, description="asha, hyperband: one in so many continues at a rung."
    )
    min_share: Annotated[float, Field(gt=0, lt=1), rule("satisfy 0 < min_share < 1")] = Field(
        0.67,
        description="paired: share of a trial's epochs, rounded to whole ones, before which nothing is compared; "
        "min_epochs holds too. At epoch 4 of 6 the order within a seed was nearly the final one (Spearman 0.96), at "
        "epoch 2 it was none (0.12).",
    )
    margin: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="paired: a trial stops if it is behind by more than this, in units of the metric (with `front`: of "
        f"the first objective that is no cost). null is {MARGIN} of delta_m: in 12 pairs of trials no difference "
        "changed by more from epoch 4 of 6 to the end. It must be given for another metric.",
    )
    min_trials: Count = Field(3, description="median: number of other trials that must have reached the same epoch.")
    population: Annotated[int, Field(ge=2)] = Field(
        8,
        description="pbt: trials that train in parallel; the rest of budget.trials are copies. All finish together "
        "at the end, so a budget of time, GPU-hours or USD that ends the search early leaves no complete trial.",
    )
    interval: Count = Field(1, description="pbt: epochs from one boundary to the next.")
    quantile: Annotated[float, Field(gt=0, le=0.5), rule("satisfy 0 < quantile <= 0.5")] = Field(
        0.25,
        description="pbt: share of the population, rounded up, that is replaced at a boundary, and share that is "
        "copied.",
    )

    def first_paired(self, epochs: int) -> int:
        """Finished epochs, of `epochs`, from which on `paired` compares."""
        return max(self.min_epochs, round(self.min_share * epochs))


class Budget(Section):
    """When the search ends. References and controls do not count as `trials`, but use time, GPU-hours and USD.

    At a limit everything that runs, references and controls too, is stopped at the end of its epoch.
    """

    trials: Count = Field(8, description="Number of trials; a trial is one config and seed.")
    time: WallTime | None = Field(None, description="Wall time, e.g. 90s, 10m, 2h.")
    trial_time: WallTime | None = Field(
        None,
        description="Training time of one trial, e.g. 30m: its time/epoch_s summed over all its epochs, also over "
        "retries and resumes. A trial that has used it up stops at the end of that epoch, PRUNED like one that was "
        "stopped early. It holds for replicates and controls too, not for references. An epoch is never interrupted.",
    )
    gpu_hours: Positive | None = Field(
        None, description="GPU-hours: time that a trial holds its GPUs x their number, summed over trials."
    )
    patience: Count | None = Field(
        None,
        description="No new configuration is drawn after so many trials in a row (complete or stopped early) that "
        "improve nothing: the best feasible value of one objective, or the hypervolume of the feasible front of "
        "several. What runs goes on, replicates and controls follow. Counting begins at the first feasible trial.",
    )
    usd: Positive | None = Field(
        None,
        description="US dollars: hours that a trial holds its machine x resources.usd_per_hour (or the price from "
        "resources.cluster), summed over trials.",
    )

    @field_validator("time", "trial_time")
    @classmethod
    def _time_above_zero(cls, time: str | None) -> str | None:
        if time is not None and float(time[:-1]) == 0:
            raise ValueError(f"must be above zero, got {time!r}")
        return time

    @property
    def seconds(self) -> float | None:
        """Wall time in seconds, if limited."""
        return None if self.time is None else _seconds(self.time)

    @property
    def trial_seconds(self) -> float | None:
        """Training time of one trial in seconds, if limited."""
        return None if self.trial_time is None else _seconds(self.trial_time)


def _seconds(time: str) -> float:
    return float(time[:-1]) * SECONDS[time[-1]]


class SearchResources(Resources):
    """What one trial needs, and its price."""

    usd_per_hour: Positive | None = Field(
        None,
        description="Price of one trial's resources per hour, for budget.usd; null: taken from resources.cluster, if "
        "given, as the trial's share of the most expensive node that fits it.",
    )
    cluster: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="Cluster file that the search runs on, e.g. clusters/aws.yaml. Its node types give the number of "
        "trials that fit after scaling up and, by their labels usd-per-hour, the price of a trial.",
    )


class WarmStart(Section):
    """What the search starts from."""

    model_config = ConfigDict(serialize_by_alias=True)

    points: Annotated[tuple[dict[str, Scalar], ...], Field(strict=False)] = Field(
        (), description="Parameter values to try first; parameters that a point leaves out are sampled."
    )
    from_: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        alias="from",
        description="An older run: its name below storage.path, its folder or its URI. The sampler learns from its "
        "finished trials that fit this space. They are not results of this search and use none of its budget. An error "
        "if anything that is not searched differs.",
    )


class Failure(Section):
    """How many failures are tolerated."""

    max_retries: Annotated[int, Field(ge=0)] = Field(
        2,
        description="Retries of a trial after its process died, raised or ran out of memory. Errors of its config or "
        "data and a loss that is not finite are not retried.",
    )
    max_failures: Annotated[int, Field(ge=0)] = Field(
        5, description="The search ends (exit 3) after more failed trials than this."
    )
