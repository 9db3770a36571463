"""A trial as plain JSON values, as it travels between processes: the same for a search and for one trial alone."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faar_ray.config.run_sections import Resources
from faar_ray.config.trial import TrialConfig
from faar_ray.errors import StorageError
from faar_ray.storage.run_location import RunLocation


def spec_of(
    trial_id: str,
    config: TrialConfig,
    place: RunLocation,
    resources: Resources,
    *,
    keep_checkpoints: int,
    references: Mapping[str, float] | None,
    test_references: Mapping[str, float] | None = None,
    test: bool = False,
    data: str = "",
) -> dict[str, Any]:
    """What `fit.fit_spec` and `ray_runtime.TrainRun` take.

    Args:
        trial_id: the trial.
        config: its config.
        place: of its run.
        resources: of a trial.
        keep_checkpoints: how many stay on disk.
        references: single-task metrics on val, task -> metric; None or empty for no delta_m.
        test_references: the same on test.
        test: whether to read the test split at the end.
        data: URI that the shards are taken from, where the config names none; "" for none.
    """
    return {
        "trial_id": trial_id,
        "config": config.model_dump(mode="json"),
        "data": data,
        "run": {"path": str(place.path), "uri": place.uri},
        "references": dict(references or {}) or None,
        "test_references": dict(test_references or {}) or None,
        "test": test,
        "workers": resources.workers,
        "threads": resources.cpus_per_worker,
        "gpus_per_worker": resources.gpus_per_worker,
        "keep_checkpoints": keep_checkpoints,
    }


def check_folder(spec: Mapping[str, Any]) -> None:
    """See that the run's folder is on this machine, before one of that name is made: a search leaves a file in it.

    Raises:
        StorageError: it is not; whoever trains here would write where nobody looks.
    """
    if (witness := spec.get("witness")) and not Path(witness).is_file():
        folder = Path(witness).parent
        told = f"storage.path: {folder} is not on machine {socket.gethostname()}"
        raise StorageError(f"{told}: use a bucket or a folder that all machines share")
