"""A search_state's jobs, worked off under Ray Tune."""

from __future__ import annotations

import os
from pathlib import Path

from ray import tune
from ray.tune import Callback, Trainable

from faar_ray.config.run_sections import Resources
from faar_ray.tune.execute import interrupts
from faar_ray.tune.execute.node_loss import PlacementGroupReaper
from faar_ray.tune.execute.ray_tune_adapters import JobSearcher, Spec, StateCallback, StopScheduler
from faar_ray.tune.search_state import SearchState

COORDINATOR_RESOURCES: dict[str, int | float] = {"memory": 64_000_000}
"""Of an actor that passes on its workers' epochs: any share of a CPU would keep N workers from fitting on N CPUs."""


def run_jobs(
    state: SearchState,
    spec: Spec,
    need: Resources,
    max_retries: int,
    scratch: Path,
    actor: type[Trainable],
    watch: Callback,
) -> None:
    """Run the search_state's jobs under Ray Tune until it says that it is finished.

    Args:
        search_state: hands out jobs, judges and records them.
        spec: what the actor gets for a job.
        need: of one trial.
        max_retries: of a trial whose process died or raised.
        scratch: folder for Ray's own bookkeeping, in the run's.
        actor: what trains a trial.
        watch: looks at the machines.
    """
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(state.concurrent)  # else actors start one after another
    alone: dict[str, int | float] = {"CPU": need.cpus_per_worker, "GPU": need.gpus_per_worker}
    tune.run(
        tune.with_resources(actor, tune.PlacementGroupFactory([alone if need.workers == 1 else COORDINATOR_RESOURCES])),
        name="search",
        num_samples=-1,
        search_alg=JobSearcher(state, spec, scratch.parent),
        scheduler=StopScheduler(state),
        callbacks=[StateCallback(state, scratch.parent), PlacementGroupReaper(), watch],
        storage_path=str(scratch),
        max_failures=max_retries,
        reuse_actors=True,
        raise_on_failed_trial=False,
        verbose=0,
    )
    interrupts.check()
