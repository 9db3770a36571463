"""`--dry-run`: print what a search would run, without a start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import optuna
from rich.console import Console
from rich.text import Text

from faar_ray.cluster.capacity import Capacity
from faar_ray.config.null_values import value_words
from faar_ray.config.presets import RECIPES, differences
from faar_ray.config.trial import config_id
from faar_ray.errors import FaarRayError
from faar_ray.tune.propose import journal
from faar_ray.tune.propose.ask import sampler_of
from faar_ray.tune.propose.budget import HOUR, hourly_rates
from faar_ray.tune.propose.distributions import to_optuna
from faar_ray.tune.propose.exploit import boundaries, quantile_size
from faar_ray.tune.propose.related_draws import check_relations, draw_related
from faar_ray.tune.propose.stopping_rules import compared_epochs, most_epochs
from faar_ray.tune.propose.warm_start import warm_start
from faar_ray.tune.run.resolved_search import ResolvedSearch
from faar_ray.tune.run.run_folder import as_yaml
from faar_ray.tune.share.stages import planned_epochs, why_not_shared
from faar_ray.tune.show.front_plan import base_points, front_words
from faar_ray.tune.space.front import own_epochs
from faar_ray.tune.space.initial_points import active_parameters
from faar_ray.tune.space.parameter import Scalar
from faar_ray.tune.space.sections import SchedulerConfig
from faar_ray.tune.space.space import SearchSpace

if TYPE_CHECKING:
    from faar_ray.tune.show.cluster_plan import ClusterPlan  # imports Ray; a dry run of one machine needs none

SAMPLES = 3


def show_plan(
    console: Console, space: SearchSpace, capacity: Capacity | None, cluster: ClusterPlan | None = None
) -> None:
    """Print the resolved space, three sample configs, the cluster, the concurrency and the bound on trials x epochs."""
    console.print(Text("# the resolved search space\n" + as_yaml(space)), soft_wrap=True)
    console.print(Text("# three sample configs (searched keys; all others are the base's)"), soft_wrap=True)
    for point in samples(space, SAMPLES, lambda text: console.print(Text(text), soft_wrap=True)):
        config = space.trial_config(point)
        values = ", ".join(f"{key}: {value_words(key, value)}" for key, value in point.items())
        console.print(Text(f"{config_id(config)}  {{{values}}}"), soft_wrap=True)
    if recipe := recipe_words(space):
        console.print(Text(recipe), soft_wrap=True)
    if share := check_relations(space):
        console.print(Text(share), soft_wrap=True)
    full, points = base_points(space)
    if full:
        console.print(Text("\n" + front_words(space.trial_config({}), full, points)), soft_wrap=True)
    if cluster is not None:
        cluster.show(console)

    at_once = f"{capacity.concurrent} trial(s); {capacity.why}" if capacity else "as many as fit on the cluster's hosts"
    console.print(Text(f"\nat once: {at_once}"), soft_wrap=True)
    further = own_epochs(points, space.trial_config({}).optim.epochs)
    console.print(Text(bound(space, capacity, cluster, further)), soft_wrap=True)
    console.print(Text(sharing_words(space)), soft_wrap=True)
    if stopping := early_stopping_words(space):
        console.print(Text(stopping), soft_wrap=True)
    if cluster is None:
        console.print(Text(duration(space, capacity, further)), soft_wrap=True)


def early_stopping_words(space: SearchSpace) -> str:
    """After which epochs trials of the base may be stopped early; "" where there is no rule that stops."""
    rule, epochs = space.scheduler.type, space.trial_config({}).optim.epochs
    if rule in ("none", "pbt"):
        return ""
    compared, unsettled = ([*map(str, numbers)] for numbers in compared_epochs(space))
    where = f"after epochs {', '.join(compared)} of {epochs}" if compared else "after no epoch"
    first = " (of the first bracket)" if rule == "hyperband" else ""
    but = f"; not after {', '.join(unsettled)}, when ranks are not settled yet" if unsettled else ""
    sibling = ", once a trial of the same seed has finished" if rule == "paired" else ""
    return f"early stopping: {rule}, {where}{first}{sibling}{but}"


def sharing_words(space: SearchSpace) -> str:
    """How many epochs shared prefixes save, or why there are none."""
    if reason := why_not_shared(space):
        return f"prefixes: not shared, {reason}"
    alone, trained = planned_epochs(space)
    if alone == trained:
        return "prefixes: none is shared, trials differ in what matters from their start"
    saved = 100 * (alone - trained) / alone
    return (
        f"prefixes: {trained} epochs with what trials share trained once, {alone} without ({saved:.0f}% less; "
        "trials and controls to their end)"
    )


def recipe_words(space: SearchSpace) -> str:
    """Which keys differ from the base's recipe, in the base or because they are searched; "" without one."""
    config = space.trial_config({})
    if config.recipe not in RECIPES:
        return ""
    searched = [key for key in RECIPES[config.recipe] if key in space.parameters]
    found = [one for one in differences(config.recipe, config.dotted()) if one.key not in searched]
    values = [
        f"{one.key} {value_words(one.key, one.config)} (recipe: {value_words(one.key, one.recipe)})" for one in found
    ]
    listed = [*values, *(f"{key} searched" for key in searched)]
    return f"\nrecipe {config.recipe}: {len(listed)} key(s) differ{': ' if listed else ''}{', '.join(listed)}"


def duration(space: SearchSpace, capacity: Capacity | None, further: int = 0) -> str:
    """How long a trial of the base takes on this machine, from a few steps, and the whole search at most.

    Args:
        space: the search space.
        capacity: how many trials run at once, where that is known.
        further: epochs that a trial's points train.
    """
    from faar_ray.train.estimate import data_is_here, seconds_per_epoch  # seconds to import

    config = space.trial_config({})
    if not data_is_here(config):
        where = f" at {config.data.root}" if config.data.root else ""
        return f"time: not estimated, for this machine does not have the data of {config.data.name} yet{where}"

    try:
        epoch = seconds_per_epoch(config, space.resources.cpus_per_worker)
    except FaarRayError as error:
        return f"time: not estimated: {error}"
    trial = epoch * config.optim.epochs
    text = f"time: about {words(epoch)} an epoch and {words(trial)} a trial of the base, by a few steps measured here"
    if capacity is None or space.scheduler.type == "pbt":
        return text
    tasks = len(config.data.tasks) if space.references == "auto" else 0
    jobs = space.budget.trials + len(space.controls) + tasks
    whole = (trial * jobs + epoch * further * space.budget.trials) / capacity.concurrent
    like = f"{jobs} like it{' and their points' if space.front else ''}"
    return f"{text}; about {words(whole)} for {like}, {capacity.concurrent} at once"


def words(seconds: float) -> str:
    """A duration, roughly."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.2g} s"


def samples(space: SearchSpace, number: int, notify: Callable[[str], None] = print) -> list[dict[str, Scalar]]:
    """First points of the search that depend on no result; `notify` gets the message about an older run."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=[objective.goal for objective in space.study_objectives])
    warm_start(study, space, notify)
    points = space.planned()

    out = []
    for index in range(min(number, len(points)) if space.search.listed else number):
        study.sampler = sampler_of(space.search, space.parameters, index, journal.older(study))
        if index < len(points):
            study.enqueue_trial(to_optuna(space.parameters, points[index]))
        parameters = active_parameters(space.search, space.parameters, points, index)
        sampler_at = partial(sampler_of, space.search, space.parameters, index, journal.older(study))
        out.append(draw_related(study.ask(), parameters, space.related, sampler_at, space.search))
    return out


def bound(
    space: SearchSpace, capacity: Capacity | None = None, cluster: ClusterPlan | None = None, further: int = 0
) -> str:
    """The most that the search can train and cost, a line for each budget.

    Args:
        space: the search space.
        capacity: how many trials run at once, where that is known.
        cluster: the cluster, if its prices are printed elsewhere.
        further: epochs that a trial's points train beyond its own.
    """
    base, most = space.trial_config({}).optim.epochs, most_epochs(space)
    trials, controls = space.budget.trials, len(space.controls)

    of_points = f" and {further} of their points" if further else ""
    lines = [f"bound: {trials} trials x {most} epochs{of_points} = {trials * (most + further)} epochs"]
    if space.scheduler.type == "pbt":
        lines = [population_bound(space.scheduler, trials, most)]
    if (patience := space.budget.patience) is not None:
        lines.append(f"no new configuration after {patience} trials in a row that improve nothing")
    tasks = len(space.trial_config({}).data.tasks) if space.references == "auto" else 0
    if controls or tasks:
        jobs = f"{controls} controls and {tasks} single-task references (none where cached)"
        lines.append(f"in addition: {jobs} x {base} epochs")

    if space.budget.trial_time:
        lines.append(f"each trial within {space.budget.trial_time} of training, then to the end of its epoch")
    if limits := list(limits_of(space, capacity, cluster.at_most() if cluster else None)):
        lines += [*limits, "at a limit, running trials, references and controls end after their epoch"]
    if (price := space.resources.usd_per_hour) is not None and cluster is None:
        slots = f", {price * capacity.concurrent:g} with all {capacity.concurrent} slots busy" if capacity else ""
        lines.append(f"price: {price:g} USD per hour of a trial{slots}")
    return "\n".join(lines)


def population_bound(scheduler: SchedulerConfig, trials: int, epochs: int) -> str:
    """The most epochs of a population: a copy starts with its parent's epochs and replaces another trial."""
    members, times = scheduler.population, boundaries(scheduler, epochs)
    copies = min(trials - members, len(times) * quantile_size(members, scheduler.quantile))
    copied_after = ", ".join(map(str, times[:4])) + ", ..." * (len(times) > 4)
    text = f"{members} members and at most {copies} copies, each trained for the epochs left after {copied_after}"
    return f"bound: {members} places x {epochs} epochs = {members * epochs} epochs ({text})"


def limits_of(space: SearchSpace, capacity: Capacity | None, top_price: float | None) -> Iterator[str]:
    """The budgets that may end the search before its last trial."""
    budget, rates = space.budget, hourly_rates(space)

    if budget.seconds:
        cost = None if top_price is None else top_price * budget.seconds / HOUR
        whole = "" if cost is None else f": at most {cost:.4g} USD for the whole cluster"
        yield f"all within {budget.time} of wall time{whole}"

    if budget.gpu_hours is not None:
        gpus = rates["gpu_hours"]
        yield f"all within {budget.gpu_hours:g} GPU-hours: {budget.gpu_hours / gpus:.4g} h of trials on {gpus:g} GPUs"

    if budget.usd is not None:
        hours = budget.usd / rates["usd"]
        busy = f", {hours / capacity.concurrent:.4g} h with all {capacity.concurrent} slots busy" if capacity else ""
        yield f"all within {budget.usd:g} USD: {hours:.4g} h of trials{busy}"


def show_search(console: Console, search: ResolvedSearch) -> None:
    """Print what would run on this machine, on the cluster of the file, or on the cluster at the address.

    Raises:
        ConfigError: no trial fits, or no cluster answers at the address.
    """
    if search.capacity is not None:
        show_plan(console, search.space, search.capacity)
        return

    from faar_ray.cluster.autoscaling import cluster_from_ray  # imports Ray
    from faar_ray.cluster.ray_cluster import connected
    from faar_ray.tune.show.cluster_plan import ClusterPlan

    if search.address is None:
        plan = ClusterPlan(search.space, search.cluster_file, None)
    else:
        with connected(search.address, code=False) as machines:
            plan = ClusterPlan(search.space, search.cluster_file or cluster_from_ray(machines), machines)
    show_plan(console, search.space, plan.capacity(), plan)
