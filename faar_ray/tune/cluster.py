"""Ray, quiet and started on this machine alone unless an address says otherwise; its ports are behind its token."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import tune

from faar_ray.errors import ConfigError
from faar_ray.sections import Resources
from faar_ray.tune.book import Book
from faar_ray.tune.capacity import Node, this_machine
from faar_ray.tune.searcher import BookCallback, BookScheduler, BookSearcher, Spec
from faar_ray.tune.trainable import TrialActor

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_worker_niceness": "0",  # Ray's 15 starves trials wherever anything else runs
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
}

OBJECT_STORE = 200_000_000  # bytes; only small dicts travel


@contextmanager
def connected(address: str | None) -> Iterator[list[Node]]:
    """Start Ray here, or connect to a cluster; gives its machines and lets go at the end.

    Raises:
        ConfigError: nothing answers at the address.
    """
    os.environ.update({key: value for key, value in QUIET.items() if key not in os.environ})
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": None}
    if address is None:
        here = this_machine()
        options |= {"address": "local", "num_cpus": int(here.cpus), "include_dashboard": False}
        options |= {"object_store_memory": OBJECT_STORE}
    else:
        options |= {"address": address}
    on_term = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as fault:
        if address is None:
            raise
        raise ConfigError(f"--address: no Ray cluster answers at {address!r} ({fault})") from None
    signal.signal(signal.SIGTERM, on_term)  # Ray's own prints a stack and leaves runs open
    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        machines = ray.nodes()
        yield [_node(entry["Resources"]) for entry in machines if entry["Alive"]]
    finally:
        ray.shutdown()


def _node(resources: Mapping[str, float]) -> Node:
    return Node(resources.get("CPU", 0), resources.get("GPU", 0))


def work_off(book: Book, spec: Spec, need: Resources, max_retries: int, scratch: Path) -> None:
    """Run the book's jobs under Ray Tune until it says that it is finished.

    Args:
        book: hands out jobs, judges and records them.
        spec: what the actor gets for a job.
        need: of one trial.
        max_retries: of a trial whose process died or raised.
        scratch: folder for Ray's own bookkeeping, in the run's.
    """
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(book.concurrent)  # else actors start one after another
    tune.run(
        tune.with_resources(TrialActor, {"cpu": need.cpus_per_worker, "gpu": need.gpus_per_worker}),
        name="search",
        num_samples=-1,
        search_alg=BookSearcher(book, spec, scratch.parent),
        scheduler=BookScheduler(book),
        callbacks=[BookCallback(book, scratch.parent)],
        storage_path=str(scratch),
        max_failures=max_retries,
        reuse_actors=True,
        raise_on_failed_trial=False,
        verbose=0,
    )
