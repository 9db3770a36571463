"""All uses of Ray beyond its public API.

`TESTED_VERSION` is the Ray version they were written for; a test compares it with the installed one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import ray
import ray._private.worker as driver
from ray._private import state as gcs
from ray.core.generated import gcs_pb2
from ray.job_config import JobConfig
from ray.util.placement_group import PlacementGroup, remove_placement_group

TESTED_VERSION = "2.60"
TABLES: Any = gcs_pb2  # generated at import, so it has no types


def redirect_raylet_messages(handler: Callable[[Mapping[str, Any]], None]) -> None:
    """Send raylets' warnings to a handler: Ray prints them on the driver's stdout even with `log_to_driver=False`."""
    driver.print_to_stdstream = lambda data, *_, **__: handler(data)


def job_with_path(folders: Iterable[str]) -> JobConfig:
    """Settings of a driver whose workers find modules in these folders too; by itself Ray adds the current one."""
    job = JobConfig()
    job._py_driver_sys_path.extend(folders)
    return job


def cluster_config() -> Any | None:
    """The autoscaler's report of its node groups; None without one."""
    config = gcs.state.get_cluster_config()
    return config if config is not None and config.node_group_configs else None


def placement_groups() -> Iterator[Any]:
    """Ray's records of the placement groups of this job that are not removed."""
    job = ray.get_runtime_context().get_job_id()
    for raw in gcs.state._connect_and_get_accessor().get_placement_group_table():
        group = TABLES.PlacementGroupTableData.FromString(raw)
        if group.state != group.REMOVED and group.creator_job_id.hex() == job:
            yield group


def free_placement_groups_of_dead_actors() -> None:
    """Remove placement groups of this job whose creator is a dead actor.

    A placement group outlives a killed actor until its job ends, so a killed trial would keep its workers' CPUs and
    GPUs for the rest of the search (ray-project/ray#54305, #58515).
    """
    dead = {name for name, actor in gcs.actors().items() if actor["State"] == "DEAD"}
    for group in placement_groups():
        if group.creator_actor_id.hex() in dead:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))


def node_of_actor(actor_id: str) -> str | None:
    """Id of the node that an actor runs or ran on; None for an unknown actor."""
    raw = gcs.state._connect_and_get_accessor().get_actor_info(ray.ActorID.from_hex(actor_id))
    return None if raw is None else str(TABLES.ActorTableData.FromString(raw).address.node_id.hex())


def drop_from_resetting(controller: Any, trial: Any) -> None:
    """Remove a trial whose actor died from Ray Tune's list of trials that reuse an actor.

    Args:
        controller: the trial runner that Ray Tune gives a scheduler.
        trial: a trial of Ray Tune.
    """
    controller._tune_controller._resetting_trials.discard(trial)


def set_trial_status(controller: Any, trial: Any, status: str) -> None:
    """Change the status of a trial in Ray Tune; arguments as above."""
    controller._set_trial_status(trial, status)
