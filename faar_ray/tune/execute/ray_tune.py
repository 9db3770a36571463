"""Runs the jobs of a search under Ray Tune."""

from __future__ import annotations

import os
from pathlib import Path

from ray import tune
from ray.tune import Callback, Trainable

from faar_ray import interrupts
from faar_ray.config.run_sections import Resources
from faar_ray.tune.execute.node_loss import PlacementGroupReaper
from faar_ray.tune.execute.ray_tune_adapters import JobSearcher, Spec, StateCallback, StopScheduler
from faar_ray.tune.search_state import SearchState

COORDINATOR_RESOURCES: dict[str, int | float] = {"memory": 64_000_000}
"""Of an actor that passes on its workers' epochs. With a share of a CPU, N workers would not fit on N CPUs."""


def run_jobs(
    state: SearchState,
    spec: Spec,
    resources: Resources,
    max_retries: int,
    scratch: Path,
    actor: type[Trainable],
    monitor: Callback,
) -> None:
    """Run the jobs of a search until it is finished.

    Args:
        state: of the search; hands out jobs, stops and records them.
        spec: gives the actor's config for a job.
        resources: of one trial.
        max_retries: of a trial whose process died or raised.
        scratch: folder for Ray's own files, in the run's folder.
        actor: trains a trial.
        monitor: checks whether the search has machines.
    """
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(state.concurrent)  # else Ray starts actors one after another
    one_worker: dict[str, int | float] = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    tune.run(
        tune.with_resources(
            actor, tune.PlacementGroupFactory([one_worker if resources.workers == 1 else COORDINATOR_RESOURCES])
        ),
        name="search",
        num_samples=-1,
        search_alg=JobSearcher(state, spec, scratch.parent),
        scheduler=StopScheduler(state),
        callbacks=[StateCallback(state, scratch.parent), PlacementGroupReaper(), monitor],
        storage_path=str(scratch),
        max_failures=max_retries,
        reuse_actors=True,
        raise_on_failed_trial=False,
        verbose=0,
    )
    interrupts.check()
