"""Rules between sections of a search space."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from faar_ray.config.quoting import KeyPath, quote_value
from faar_ray.config.trial import CHANGEABLE, TrialConfig
from faar_ray.config.validation_messages import Issue, did_you_mean, unknown_key
from faar_ray.report.statistics.groups import is_cost
from faar_ray.tune.propose.samplers import SAMPLERS, SamplerEntry
from faar_ray.tune.space.conditions import Sample, trial_faults
from faar_ray.tune.space.parameter import DEFAULTS, Parameter
from faar_ray.tune.space.sections import FRONT, Budget, SchedulerConfig, SearchConfig, SearchResources

MOST_LISTED = 10_000
"""Largest number of trials of a list."""
UNSETTLING = {"method", "optim.epochs", "ranks.kind", "ranks.budget", "pdrs.free_epochs", "spectral.cut_epoch"}
"""Keys that decide until when ranks are not settled."""


def sampler_faults(
    search: SearchConfig, parameters: Mapping[str, Parameter], objectives: Collection[Any], constraints: Collection[str]
) -> Iterator[Issue]:
    """What of a space the sampler cannot take, below `search`."""
    name, sampler = search.sampler, SAMPLERS[search.sampler]
    conditional = [key for key, parameter in parameters.items() if parameter.when]
    choices = [key for key, parameter in parameters.items() if len(parameter.values or ()) > 1]

    if conditional and not sampler.conditions:
        text = f"cannot be {name} where parameters have `when` ({_first(conditional)}): it would draw them at random"
        yield Issue(("sampler",), f"{text}; {_and(_samplers_that(lambda entry: entry.conditions))} take them")
    if choices and not sampler.lists:
        text = f"cannot be {name} where parameters are lists of values ({_first(choices)}): it knows ranges only"
        yield Issue(("sampler",), text)
    if len(objectives) > 1 and not sampler.many_objectives:
        yield Issue(("sampler",), f"cannot be {name} for {len(objectives)} objectives: it ranks by one")
    if constraints and not sampler.constraints:
        yield Issue(("sampler",), f"cannot be {name} with constraints ({_first(constraints)}): it looks at none")
    if search.population is not None and not sampler.generations:
        yield Issue(("population",), f"must be null for sampler {name}: it has no generations")


def older_run_faults(search: SearchConfig, older: str | None) -> Iterator[Issue]:
    """Why a sampler cannot use an older run, below `warm_start`."""
    if older is not None and not SAMPLERS[search.sampler].learns:
        learning = ", ".join(_samplers_that(lambda entry: entry.learns))
        text = f"must be null for sampler {search.sampler}: it learns from no result; {learning} do"
        yield Issue(("from",), text)


def _samplers_that(can: Callable[[SamplerEntry], bool]) -> list[str]:
    return [name for name, entry in SAMPLERS.items() if can(entry)]


def _and(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _first(names: Collection[str]) -> str:
    first = ", ".join(list(names)[:3])
    return f"{first}, ..." if len(names) > 3 else first


def scheduler_faults(
    scheduler: SchedulerConfig,
    objectives: Sequence[str],
    epochs: int,
    base: TrialConfig,
    searched: Collection[str],
) -> Iterator[Issue]:
    """Faults of the rule of early stopping.

    Args:
        scheduler: the section.
        objectives: names; none where the objectives themselves are at fault.
        epochs: the fewest that a trial may have.
        base: of the trials.
        searched: keys.
    """
    if fault := _metric_fault(scheduler, objectives):
        yield Issue(("metric",), fault)
    if scheduler.min_epochs > epochs and scheduler.type != "none":
        yield Issue(("min_epochs",), f"must be <= optim.epochs = {epochs}, got {scheduler.min_epochs}")
    elif scheduler.min_epochs == epochs and scheduler.type == "pbt":
        yield Issue(("min_epochs",), f"must be < optim.epochs = {epochs} for pbt, or no trial is ever replaced")
    if scheduler.type == "paired":
        yield from _paired_faults(scheduler, objectives)
        if not UNSETTLING & {*searched}:
            yield from _never_compared(scheduler, base)


def _paired_faults(scheduler: SchedulerConfig, objectives: Sequence[str]) -> Iterator[Issue]:
    """What `paired` must be told, because no default is right."""
    if len(objectives) > 1 and "metric" not in scheduler.model_fields_set:
        text = "must be given where scheduler.type is paired and there are several objectives: front compares them all,"
        yield Issue(("metric",), f"{text} delta_m alone stops small models for their lower delta_m")
    compared = objectives if scheduler.metric == FRONT else [scheduler.metric]
    quality = next((name for name in compared if not is_cost(name)), next(iter(compared), "delta_m"))
    if scheduler.margin is None and quality != "delta_m":
        text = f"must be given where scheduler.type is paired and compares {quality}, in its units: the default was"
        yield Issue(("margin",), f"{text} measured for delta_m")


def _never_compared(scheduler: SchedulerConfig, base: TrialConfig) -> Iterator[Issue]:
    """Why `paired` would compare no trial."""
    epochs, unsettled = base.optim.epochs, base.unsettled_epochs
    if unsettled < epochs <= unsettled + 1:
        text = f"cannot be paired where ranks are not settled up to epoch {unsettled} of {epochs}: no epoch before the"
        yield Issue(("type",), f"{text} last is left to compare in; change pdrs.free_epochs or spectral.cut_epoch")
    elif scheduler.first_paired(epochs) >= epochs:
        text = f"must be lower for {epochs} epochs: paired compares before the last, from epoch"
        yield Issue(("min_share",), f"{text} {scheduler.first_paired(epochs)} on (the larger of it and min_epochs)")


def _metric_fault(scheduler: SchedulerConfig, objectives: Sequence[str]) -> str:
    metric, names = scheduler.metric, ["delta_m", *objectives]
    if not objectives or metric in names:
        return ""
    if metric != FRONT:
        return (
            f"must be delta_m, an objective or front, got {quote_value(metric)}{did_you_mean(metric, [*names, FRONT])}"
        )
    if len(objectives) == 1:
        return "must be delta_m or an objective where there is one objective, got 'front'"
    if scheduler.type == "median":
        return "must be delta_m or an objective where scheduler.type is median: a front has no median, got 'front'"
    if scheduler.type == "pbt":
        return "must be delta_m or an objective where scheduler.type is pbt: it ranks trials by one metric, got 'front'"
    return ""


def population_faults(
    scheduler: SchedulerConfig, search: SearchConfig, budget: Budget, parameters: Mapping[str, Parameter], points: int
) -> Iterator[Issue]:
    """What prevents population based training.

    Args:
        scheduler: of type pbt.
        search: the sampler.
        budget: of trials, copies included.
        parameters: of the space.
        points: number of priors and warm-start points.
    """
    at = ("scheduler", "type")
    if search.sampler != "random":
        text = (
            f"cannot be pbt for sampler {search.sampler}: only the first trials are sampled, the others are copies; set"
        )
        yield Issue(at, f"{text} search.sampler: random")
    if search.replicates is not None:
        yield Issue(
            at,
            "cannot be pbt with search.replicates: no other seed can repeat a copy's history, which is another trial's",
        )
    if fixed := [key for key in parameters if key not in CHANGEABLE]:
        text = f"cannot be pbt where {', '.join(fixed)} is searched: only {', '.join(CHANGEABLE)} may change"
        yield Issue(at, f"{text} while a trial trains")
    if conditional := [key for key, parameter in parameters.items() if parameter.when]:
        yield Issue(at, f"cannot be pbt where parameters have `when` ({', '.join(conditional)}): a copy keeps its keys")
    if scheduler.population >= budget.trials:
        text = f"must be < budget.trials = {budget.trials}, which counts copies too, or no trial is ever replaced"
        yield Issue(("scheduler", "population"), f"{text}, got {scheduler.population}")
    elif points > scheduler.population:
        text = f"priors and warm_start.points are {points} trials and must fit into scheduler.population"
        yield Issue(("scheduler", "population"), f"{text}, got {scheduler.population}")


def control_faults(index: int, control: Mapping[str, Any], base: Mapping[str, Any]) -> Iterator[Issue]:
    """Faults of a control on top of a base, at the control's own keys."""
    for fault in trial_faults(base, control):
        path = _as_written(fault.path, control)
        unknown = fault.text.startswith("unknown key")
        yield Issue((index, *path), unknown_key(".".join(map(str, path)), DEFAULTS) if unknown else fault.text)


def _as_written(path: KeyPath, control: Iterable[str]) -> KeyPath:
    """A path into the trial config in terms of a control's dotted keys."""
    for key in control:
        parts = tuple(key.split("."))
        if parts[: len(path)] == path[: len(parts)]:
            return (key, *path[len(parts) :])
    return path


def budget_faults(
    budget: Budget, resources: SearchResources, search: SearchConfig, scheduler: SchedulerConfig
) -> Iterator[Issue]:
    """What prevents a budget from being measured."""
    if budget.patience is not None and search.listed:
        text = f"must be null for sampler {search.sampler}: a list is never stopped early, got {budget.patience}"
        yield Issue(("budget", "patience"), text)
    if budget.patience is not None and scheduler.type == "pbt":
        text = f"must be null where scheduler.type is pbt: all of a population end together, got {budget.patience}"
        yield Issue(("budget", "patience"), text)
    if budget.gpu_hours is not None and not resources.gpus_per_worker:
        text = "must be null where resources.gpus_per_worker is 0: no trial holds a GPU"
        yield Issue(("budget", "gpu_hours"), f"{text}, got {budget.gpu_hours:g}")
    if budget.usd is not None and resources.usd_per_hour is None and resources.cluster is None:
        text = "must be null where resources.usd_per_hour, the price of one trial's resources, is null"
        text += " and no resources.cluster has prices"
        yield Issue(("budget", "usd"), f"{text}, got {budget.usd:g}")


def list_faults(
    search: SearchConfig,
    parameters: Mapping[str, Parameter],
    points: Sequence[Sample],
    scheduler: SchedulerConfig,
    trials: int | None,
    budget: Budget,
) -> Iterator[Issue]:
    """What prevents a list of configurations from running.

    Args:
        search: with a sampler that is a list.
        parameters: of the space.
        points: of the warm start.
        scheduler: the section.
        trials: of the list; None where they are too many.
        budget: the section.
    """
    sampler = search.sampler
    if sampler == "grid":
        for key, parameter in parameters.items():
            if parameter.values is None:
                yield Issue(("parameters", key), "must be a list of values for sampler grid")
    elif not points:
        yield Issue(("warm_start", "points"), "must have at least one point for sampler points")
    for index, point in enumerate(points if sampler == "points" else ()):
        if not point:
            yield Issue(("warm_start", "points", index), "must set at least one parameter")
    if search.replicates is not None:
        yield Issue(("search", "replicates"), f"must be null for sampler {sampler}: search.seeds sets the seeds")
    if scheduler.type != "none":
        yield Issue(("scheduler", "type"), f"must be none for sampler {sampler}: a list is never stopped early")

    if trials is None:
        yield Issue(("search", "sampler"), f"must list at most {MOST_LISTED} trials (configurations x seeds)")
    elif trials == 0 and sampler == "grid" and all(parameter.values for parameter in parameters.values()):
        yield Issue(("relations",), "leave no combination of the grid")
    elif trials > budget.trials:
        yield Issue(("budget", "trials"), f"must be >= configurations x seeds = {trials}, got {budget.trials}")
