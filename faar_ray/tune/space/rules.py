"""What sections of a search space ask of each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from faar_ray.config.quoting import KeyPath, quote_value
from faar_ray.config.trial import CHANGEABLE
from faar_ray.config.validation_messages import Issue, did_you_mean, unknown_key
from faar_ray.tune.space.conditions import trial_faults
from faar_ray.tune.space.parameter import DEFAULTS, Parameter
from faar_ray.tune.space.sections import FRONT, Budget, SchedulerConfig, SearchConfig, SearchResources


def scheduler_faults(scheduler: SchedulerConfig, objectives: Sequence[str], epochs: int) -> Iterator[Issue]:
    """What keeps a rule of early stopping from judging.

    Args:
        scheduler: the section.
        objectives: names; none where the objectives themselves are at fault.
        epochs: the fewest that a trial may have.
    """
    if fault := _metric_fault(scheduler, objectives):
        yield Issue(("metric",), fault)
    if scheduler.min_epochs > epochs and scheduler.type != "none":
        yield Issue(("min_epochs",), f"must be <= optim.epochs = {epochs}, got {scheduler.min_epochs}")
    elif scheduler.min_epochs == epochs and scheduler.type == "pbt":
        yield Issue(("min_epochs",), f"must be < optim.epochs = {epochs} for pbt, or nobody is ever replaced")


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
        return (
            "must be delta_m or an objective where scheduler.type is pbt: it tells best and worst by one, got 'front'"
        )
    return ""


def population_faults(
    scheduler: SchedulerConfig, search: SearchConfig, budget: Budget, parameters: Mapping[str, Parameter], points: int
) -> Iterator[Issue]:
    """What keeps a search from being population based training.

    Args:
        scheduler: of type pbt.
        search: who proposes.
        budget: for the population and its copies.
        parameters: of the space.
        points: how many are tried first.
    """
    at = ("scheduler", "type")
    if search.sampler != "random":
        text = (
            f"cannot be pbt for sampler {search.sampler}: only the first trials are drawn, the others are copies; give"
        )
        yield Issue(at, f"{text} search.sampler: random")
    if search.replicates is not None:
        yield Issue(
            at, "cannot be pbt with search.replicates: a copy's past is another trial's, and no seed repeats it"
        )
    if fixed := [key for key in parameters if key not in CHANGEABLE]:
        text = f"cannot be pbt where {', '.join(fixed)} is searched: only {', '.join(CHANGEABLE)} may change"
        yield Issue(at, f"{text} while a trial trains")
    if conditional := [key for key, parameter in parameters.items() if parameter.when]:
        yield Issue(at, f"cannot be pbt where parameters have `when` ({', '.join(conditional)}): a copy keeps its keys")
    if scheduler.population >= budget.trials:
        text = f"must be < budget.trials = {budget.trials}, which counts copies too, or nobody is ever replaced"
        yield Issue(("scheduler", "population"), f"{text}, got {scheduler.population}")
    elif points > scheduler.population:
        text = f"priors and warm_start.points are {points} trials and must fit into scheduler.population"
        yield Issue(("scheduler", "population"), f"{text}, got {scheduler.population}")


def control_faults(index: int, control: Mapping[str, Any], base: Mapping[str, Any]) -> Iterator[Issue]:
    """What is wrong with a control on top of a base, where it is written."""
    for fault in trial_faults(base, control):
        path = _as_written(fault.path, control)
        unknown = fault.text.startswith("unknown key")
        yield Issue((index, *path), unknown_key(".".join(map(str, path)), DEFAULTS) if unknown else fault.text)


def _as_written(path: KeyPath, control: Iterable[str]) -> KeyPath:
    """A path into the trial config as a control's dotted keys have it."""
    for key in control:
        parts = tuple(key.split("."))
        if parts[: len(path)] == path[: len(parts)]:
            return (key, *path[len(parts) :])
    return path


def budget_faults(budget: Budget, resources: SearchResources) -> Iterator[Issue]:
    """What keeps a budget from being counted."""
    if budget.gpu_hours is not None and not resources.gpus_per_worker:
        text = "must be null where resources.gpus_per_worker is 0: no trial holds a GPU"
        yield Issue(("budget", "gpu_hours"), f"{text}, got {budget.gpu_hours:g}")
    if budget.usd is not None and resources.usd_per_hour is None and resources.cluster is None:
        text = "must be null where resources.usd_per_hour, the price of one trial's resources, is null"
        text += " and no resources.cluster has prices"
        yield Issue(("budget", "usd"), f"{text}, got {budget.usd:g}")
