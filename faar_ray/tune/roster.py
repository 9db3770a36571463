"""Who takes part besides the trials that are proposed, and which config stands behind a result."""

from __future__ import annotations

from typing import Any

from faar_ray.config import TrialConfig
from faar_ray.records import TrialResult
from faar_ray.tune.jobs import Job
from faar_ray.tune.space import SearchSpace


def reference_job(space: SearchSpace, task: str) -> Job:
    """The single-task run of a task: the whole backbone and one HRNet head, on the base's data, schedule and seed."""
    base = space.trial_config({}).model_dump(mode="json")
    raw: dict[str, Any] = {
        "method": "single_task",
        "seed": base["seed"],
        "data": base["data"] | {"tasks": [task]},
        "backbone": {key: value for key, value in base["backbone"].items() if key != "trainable"},
        "decoder": {key: base["decoder"][key] for key in ("width", "expansion")},
        "optim": base["optim"],
    }
    return Job(f"ref-{task}", "reference", TrialConfig.resolve(raw), {"data.tasks": task})


def controls(space: SearchSpace) -> list[Job]:
    """The user's configs beside the search."""
    configs = [space.trial_config(control) for control in space.controls]
    return [
        Job(f"c{index:02d}-s{config.seed}", "control", config, control)
        for index, (config, control) in enumerate(zip(configs, space.controls, strict=True))
    ]


def config_of(space: SearchSpace, result: TrialResult) -> TrialConfig:
    """The config behind a result."""
    if result.role == "reference":
        return reference_job(space, str(result.params["data.tasks"])).config
    return space.trial_config({**result.params, "seed": result.seed})


def job_of(space: SearchSpace, result: TrialResult) -> Job:
    """The job behind a result."""
    return Job(result.trial_id, result.role, config_of(space, result), result.params)
