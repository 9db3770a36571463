"""Start Ray on this machine, or connect to a cluster, without its output; its ports require its token."""

from __future__ import annotations

import logging
import os
import signal
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

import faar_ray
from faar_ray.cluster import ray_internals
from faar_ray.cluster.capacity import Node, this_machine
from faar_ray.cluster.ray_folder import use_short_ray_folder
from faar_ray.errors import ConfigError, FaarRayError
from faar_ray.interrupts import hangups_held_back
from faar_ray.storage.credentials import SHARED_VARIABLES

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_worker_niceness": "0",  # with Ray's 15, other processes starve the trials
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # the end of a trial is seen this late
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
}

HEAD = "node:__internal_head__"
"""Ray's resource that only a cluster's head has."""

log = logging.getLogger(__name__)
OBJECT_STORE = 200_000_000  # bytes; only small dicts travel


@dataclass(frozen=True, slots=True)
class Machine:
    """A live node of a cluster."""

    address: str
    node: Node
    head: bool
    labels: Mapping[str, str]
    """Labels of Ray and of the cluster's file."""


def set_defaults(variables: Mapping[str, str]) -> None:
    """Set the environment variables that are not set yet."""
    for key, value in variables.items():
        os.environ.setdefault(key, value)


@contextmanager
def connected(address: str | None, *, code: bool = True, modules: Iterable[str] = ()) -> Iterator[list[Machine]]:
    """Start Ray on this machine, or connect to a cluster; yields its machines and disconnects at the end.

    Args:
        address: address of the cluster; None starts Ray on this machine.
        code: whether to send this package to the cluster, for connections that run something on it.
        modules: names of further modules that trials import (`data.module`); this process has imported them.

    Raises:
        ConfigError: no cluster answers at the address.
        FaarRayError: Ray does not start on this machine.
    """
    set_defaults(QUIET)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": None}
    if address is None:
        node = this_machine()
        options |= {"address": "local", "num_cpus": int(node.cpus), "include_dashboard": False}
        options |= {"object_store_memory": OBJECT_STORE, "job_config": ray_internals.job_with_path(parents_of(modules))}
        use_short_ray_folder()
    else:
        options |= {"address": address}
        variables = {name: os.environ[name] for name in SHARED_VARIABLES if name in os.environ}
        # every node runs the driver's code
        options |= (
            {"runtime_env": {"py_modules": [faar_ray, *sources_of(modules)], "env_vars": variables}} if code else {}
        )

    ray_internals.redirect_raylet_messages(_log_raylet_message)
    on_term = signal.getsignal(signal.SIGTERM)
    try:
        with hangups_held_back():
            ray.init(**options)
    except (OSError, RuntimeError, ValueError) as fault:
        if address is None:
            raise FaarRayError(f"Ray cannot start on this machine: {fault}") from fault
        raise ConfigError(f"--address: no Ray cluster answers at {address!r} ({fault})") from None
    signal.signal(signal.SIGTERM, on_term)  # Ray's handler prints a stack and leaves runs open
    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield machines()
    finally:
        ray.shutdown()


def sources_of(modules: Iterable[str]) -> list[str]:
    """Files or folders of the top-level modules that other machines need: installed ones are theirs to have.

    Ray packs a folder with everything below it.
    """
    installed = [Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib", "purelib", "platlib")]
    sources: list[str] = []
    for top in dict.fromkeys(name.partition(".")[0] for name in modules):
        module = sys.modules[top]
        places = getattr(module, "__path__", None) or [module.__file__]
        found = [Path(str(place)).resolve() for place in places]
        if top != faar_ray.__name__ and not any(path.is_relative_to(folder) for path in found for folder in installed):
            sources += map(str, found)
    return sources


def parents_of(modules: Iterable[str]) -> list[str]:
    """Folders that must be on the path of Python for modules to be found."""
    return list(dict.fromkeys(str(Path(source).parent) for source in sources_of(modules)))


def _log_raylet_message(data: Mapping[str, Any]) -> None:
    """Log a warning of a raylet; stdout is for the answer."""
    log.debug("raylet: %s", " ".join(map(str, data["lines"])))


def machines() -> list[Machine]:
    """The nodes of the cluster that are alive now."""
    return [_machine(entry) for entry in ray.nodes() if entry["Alive"]]


def _machine(entry: Mapping[str, Any]) -> Machine:
    resources = entry["Resources"]
    node = Node(resources.get("CPU", 0), resources.get("GPU", 0))
    return Machine(entry["NodeManagerAddress"], node, HEAD in resources, dict(entry["Labels"]))


def placements() -> tuple[int, int]:
    """How many of this job's requests for CPUs or GPUs are placed on machines, and how many are pending."""
    placed = [group.state == group.CREATED for group in ray_internals.placement_groups() if _requests_resources(group)]
    return sum(placed), len(placed) - sum(placed)


def _requests_resources(group: Any) -> bool:
    return any(bundle.unit_resources.get(name) for bundle in group.bundles for name in ("CPU", "GPU"))
