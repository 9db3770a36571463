"""A search's data reach its machines; moto's server on loopback stands in for S3."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faar_ray.data.scenes import scene_shards
from faar_ray.errors import ConfigError
from faar_ray.records import EpochRecord
from faar_ray.storage.object_store import ObjectStore
from faar_ray.storage.run_location import location_of
from faar_ray.train.fit import fit
from faar_ray.train.trial_spec import TrialSpec
from faar_ray.tune.run.datasets import make_data
from faar_ray.tune.run.jobs import RunContext, reference_job, shards_uri
from faar_ray.tune.run.remote_run import check_remote

from ..conftest import tiny_space


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes this another machine, with an empty cache; `idle` ones must not render."""

    def become(name: str, *, idle: bool = False) -> None:
        def render(*_: Any) -> None:
            raise AssertionError("rendered, not downloaded")

        monkeypatch.setenv("FAAR_RAY_CACHE", str(tmp_path / name))
        if idle:
            monkeypatch.setattr(scene_shards, "render_shard", render)

    return become


def test_a_trial_elsewhere_trains_on_what_the_driver_put_there(s3: str, machine: Callable[..., None]) -> None:
    space, place = tiny_space(), location_of(f"{s3}/runs", "tiny")
    machine("driver")
    output: list[str] = []
    make_data(space, output.append, shards_uri(place))
    assert output[-1] == f"putting data in {s3}/runs/data: 3 of 3 shards"
    assert len(ObjectStore(f"{s3}/runs/data").files()) == 3
    job = reference_job(space, "semseg")
    spec = RunContext(place, space.resources, 1).spec(job, {}, {}).to_dict()

    machine("worker", idle=True)
    assert isinstance(next(fit(TrialSpec.from_dict(spec))), EpochRecord)
    output.clear()
    make_data(space, output.append, shards_uri(place))  # nothing is left to do
    assert output == []

    machine("next driver", idle=True)
    make_data(space, output.append, shards_uri(place))
    assert output == []


def test_a_search_in_a_folder_hands_nothing_out(tmp_path: Path) -> None:
    assert shards_uri(location_of(str(tmp_path), "tiny")) == ""


def test_a_run_cannot_be_called_as_the_shards_folder(s3: str) -> None:
    with pytest.raises(ConfigError, match="is where searches put their data; choose another"):
        check_remote(location_of(f"{s3}/runs", "data"), resume=False)
