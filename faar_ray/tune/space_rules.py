"""What sections of a search space ask of each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from faar_ray.faults import Fault, did_you_mean
from faar_ray.reading import shown
from faar_ray.tune.space_sections import FRONT, Budget, SchedulerConfig, SearchResources


def scheduler_faults(scheduler: SchedulerConfig, objectives: Sequence[str], epochs: int) -> Iterator[Fault]:
    """What keeps a rule of early stopping from judging.

    Args:
        scheduler: the section.
        objectives: names; none where the objectives themselves are at fault.
        epochs: the fewest that a trial may have.
    """
    if fault := _metric_fault(scheduler, objectives):
        yield Fault(("metric",), fault)
    if scheduler.min_epochs > epochs and scheduler.type != "none":
        yield Fault(("min_epochs",), f"must be <= optim.epochs = {epochs}, got {scheduler.min_epochs}")


def _metric_fault(scheduler: SchedulerConfig, objectives: Sequence[str]) -> str:
    metric, names = scheduler.metric, ["delta_m", *objectives]
    if not objectives or metric in names:
        return ""
    if metric != FRONT:
        return f"must be delta_m, an objective or front, got {shown(metric)}{did_you_mean(metric, [*names, FRONT])}"
    if len(objectives) == 1:
        return "must be delta_m or an objective where there is one objective, got 'front'"
    if scheduler.type == "median":
        return "must be delta_m or an objective where scheduler.type is median: a front has no median, got 'front'"
    return ""


def budget_faults(budget: Budget, resources: SearchResources) -> Iterator[Fault]:
    """What keeps a budget from being counted."""
    if budget.gpu_hours is not None and not resources.gpus_per_worker:
        text = "must be null where resources.gpus_per_worker is 0: no trial holds a GPU"
        yield Fault(("budget", "gpu_hours"), f"{text}, got {budget.gpu_hours:g}")
    if budget.usd is not None and resources.usd_per_hour is None:
        text = "must be null where resources.usd_per_hour, the price of one trial's resources, is null"
        yield Fault(("budget", "usd"), f"{text}, got {budget.usd:g}")
