"""A trial's description on its way between processes and machines."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from faar_ray.config.trial import TrialConfig
from faar_ray.storage.run_location import RunLocation, location_of_uri
from faar_ray.train.trial_spec import TrialSpec

SPEC = TrialSpec(
    "t001-s0", TrialConfig(), RunLocation(Path("/runs/rho")), references={"semseg": 40.0},
    test_references={"depth": 1.0}, test=True, workers=2, threads=3, gpus_per_worker=0.5, keep_checkpoints=1, shards_uri="s3://bucket/data",
    pause_after=2, parent="t000-s0", inherited_epochs=1, redo=True, stop_after=3, leave_end=True,
    keep_epochs=(2,), betas=(0.5, 0.9), sentinel_file="/runs/rho/space.yaml",
    checkpoint="/weights/w.pth", data_root="/data/nyud", title="t001-s0: lr 1",
)  # fmt: skip


def test_every_field_survives_json() -> None:
    defaults = TrialSpec("t001-s0", TrialConfig(), RunLocation(Path("/runs/rho")))
    same = {f.name for f in fields(SPEC) if getattr(SPEC, f.name) == getattr(defaults, f.name)}
    assert same == {"trial_id", "config", "run"}
    assert TrialSpec.from_dict(json.loads(json.dumps(SPEC.to_dict()))) == SPEC


def test_a_run_in_a_bucket_is_in_the_cache_of_the_machine_that_reads_the_spec(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    remote = replace(SPEC, run=RunLocation(Path("/of/another/machine"), "s3://bucket/runs/rho"))
    monkeypatch.setenv("FAAR_RAY_CACHE", str(tmp_path))
    received = TrialSpec.from_dict(remote.to_dict())
    assert received.run == location_of_uri("s3://bucket/runs/rho")
    assert received.paths.folder.is_relative_to(tmp_path)
