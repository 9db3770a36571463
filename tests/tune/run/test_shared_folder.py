"""A trial on a machine that has not the run's folder: the search ends and says so, and nothing is made there.

The other machine is played by a folder that is not there: all that a trial's process sees of another machine.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faar_ray.config.run_sections import Resources
from faar_ray.errors import StorageError
from faar_ray.storage.run_location import RunLocation
from faar_ray.train.trial_spec import TrialSpec
from faar_ray.tune.execute.trainable import TrialActor
from faar_ray.tune.run.jobs import Job, RunContext
from faar_ray.tune.space.space import SearchSpace

Space = Callable[..., SearchSpace]


def spec(space: Space, run: Path) -> TrialSpec:
    job = Job("t000-s0", "trial", space(base={"optim": {"epochs": 1}}).trial_config({}), {}, 0)
    return RunContext(RunLocation(run), Resources(), 1).spec(job, {}, {})


def first_result(spec: TrialSpec) -> dict[str, Any]:
    result: dict[str, Any] = TrialActor(spec.to_dict()).train()  # type: ignore[no-untyped-call]
    return result


def test_a_trial_that_does_not_find_its_run_ends_the_search_and_makes_no_folder(space: Space, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "tiny"
    result = first_result(spec(space, run))
    folder = f"storage.path: {run} is not on machine {socket.gethostname()}"
    assert result["storage"] == f"{folder}: use a bucket or a folder that all machines share"
    assert result["done"]
    assert "error" not in result  # which would count against the trial
    assert not run.exists()


def test_a_folder_of_the_same_name_without_the_search_is_no_run_of_it(space: Space, tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    assert "is not on machine" in first_result(spec(space, tmp_path))["storage"]
    assert list((tmp_path / "trials").iterdir()) == []


def test_a_trial_that_finds_its_run_trains(space: Space, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text("version: 1")
    result = first_result(spec(space, tmp_path))
    assert (result["epoch"], result["done"]) == (0, True)


def test_a_run_in_a_bucket_needs_no_folder_on_the_machine(space: Space, tmp_path: Path) -> None:
    job = Job("t000-s0", "trial", space().trial_config({}), {}, 0)
    RunContext(RunLocation(tmp_path / "copy", "s3://bucket/runs/tiny"), Resources(), 1).spec(job, {}, {}).check_folder()
    with pytest.raises(StorageError):
        RunContext(RunLocation(tmp_path / "copy"), Resources(), 1).spec(job, {}, {}).check_folder()
