"""One trial whose storage is a bucket (moto's server on loopback stands in for S3), or no place to write to."""

from __future__ import annotations

import json
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from faar_ray.config.trial_file import read_trial
from faar_ray.errors import StorageError
from faar_ray.export.read import read_adapter_file
from faar_ray.export.trials import adapter_of
from faar_ray.records import MEASURED
from faar_ray.storage.object_store import ObjectStore
from faar_ray.storage.remote_copy import RemoteCopy
from faar_ray.tracking.files.epoch_file import add_epoch
from faar_ray.tracking.files.rank_trace import read_rank_trace
from faar_ray.train.__main__ import main
from faar_ray.train.session import Session

TRIAL: dict[str, Any] = {
    "data": {"tasks": ["semseg", "normals"], "image_size": 32, "train_images": 20, "val_images": 10},
    "backbone": {"pretrained": False, "drop_path": 0.2},
    "ranks": {"init_rank": 4},
    "pdrs": {"rho_shared": 0.6},
    "optim": {"epochs": 3, "batch_size": 10, "warmup_steps": 2},
}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(TRIAL))
    return path


def timeless(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.startswith(MEASURED)}


def test_a_run_in_a_bucket_goes_on_where_its_machine_was_lost(
    config: Path, s3: str, own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(config), "--json"]) == 0
    undisturbed = json.loads(capsys.readouterr().out.splitlines()[-1])["metrics"]

    storage, twin = f"storage.path={s3}/runs", ObjectStore(f"{s3}/runs/mine")
    session = Session(read_trial(config, [storage]), "mine", resume=False)
    epochs = session.epochs()
    assert [record.epoch for record in islice(epochs, 2)] == [0, 1]
    checkpoints = {"trials/t000-s0/checkpoints/epoch_0000.pt", "trials/t000-s0/checkpoints/epoch_0001.pt"}
    parts = {"trials/t000-s0/records/epoch_0000.parquet", "trials/t000-s0/records/epoch_0001.parquet"}
    assert checkpoints | parts | {"trials/t000-s0/config.yaml"} <= set(twin.files())
    epochs.close()  # type: ignore[attr-defined]
    assert checkpoints | {"rank_trace/t000-s0.parquet", "trials/t000-s0/rank_trace.png"} <= set(twin.files())
    assert not parts & set(twin.files())
    shutil.rmtree(own_cache / "remote")

    assert main([str(config), storage]) == 2
    assert f"name: {twin.uri}/trials/t000-s0 exists; go on with it by --resume" in capsys.readouterr().err
    assert main([str(config), storage, "--resume", "--json"]) == 0
    output = capsys.readouterr()
    outcome = json.loads(output.out.splitlines()[-1])
    assert (outcome["path"], outcome["run_id"]) == (twin.uri, session.run_id)
    assert timeless(outcome["metrics"]) == timeless(undisturbed)
    assert f"written: {twin.uri}/trials/t000-s0" in output.err
    kept = {name for name in twin.files("trials/t000-s0/checkpoints")}
    assert kept == {f"trials/t000-s0/checkpoints/epoch_000{epoch}.pt" for epoch in (1, 2)}

    remote = RemoteCopy(twin.uri, config.parent / "there")
    remote.pull("")
    local = config.parent / "runs" / "mine"
    name = "rank_trace/t000-s0.parquet"
    assert (remote.folder / name).read_bytes() == (local / name).read_bytes()
    ours = read_adapter_file(local / "trials/t000-s0/adapter.safetensors")
    for uri in (f"{twin.uri}/trials/t000-s0", f"{twin.uri}/trials/t000-s0/adapter.safetensors"):
        theirs = read_adapter_file(adapter_of(uri))
        assert (theirs.config, theirs.ranks, theirs.tensors.keys()) == (ours.config, ours.ranks, ours.tensors.keys())
        assert all(torch.equal(theirs.tensors[name], ours.tensors[name]) for name in ours.tensors)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("s3://nobody-s-bucket/runs", "there is no bucket nobody-s-bucket"),
        (
            "ftp://bucket/runs",
            "must be a folder or s3://BUCKET/PREFIX (or gs://, az://CONTAINER/PREFIX), got 'ftp://bucket/runs'",
        ),
        ("az:/bucket/runs", "must be a folder or s3://BUCKET/PREFIX"),
        ("az://two--hyphens/runs", "a container's name as Azure takes it"),
        ("az://container@account/runs", "credentials come from the environment"),
        ("az://container/runs?sig=secret", "credentials come from the environment"),
        ("gs://No_Bucket", "a bucket's name as Google takes it"),
        ("s3:/bucket/runs", "must be a folder or s3://BUCKET/PREFIX"),
        ("s3://No_Bucket", "a bucket's name as S3 takes it"),
        ("s3://key:secret@bucket/runs", "credentials come from the environment"),
        ("s3://bucket/runs?endpoint_override=x", "credentials come from the environment"),
    ],
)
def test_a_place_that_cannot_be_is_exit_2(
    path: str, message: str, config: Path, s3: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = config.read_text() + yaml.safe_dump({"storage": {"path": path}})
    config.write_text(given)
    assert main([str(config)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "secret" not in error
    assert len(error.splitlines()) == 1
    assert list(config.parent.iterdir()) == [config]


def test_a_file_in_the_folders_place_is_exit_2(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "runs").write_text("in the way")
    assert main([str(config)]) == 2
    assert "storage.path: " in (error := capsys.readouterr().err)
    assert "cannot be written (Not a directory)" in error


def test_a_storage_that_gives_out_leaves_what_was_trained_and_names_the_command(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []

    def once(*arguments: Any) -> None:
        if len(written) == 1:
            raise StorageError("storage.path: /there cannot be written (No space left on device)")
        written.append(1)
        add_epoch(*arguments)

    monkeypatch.setattr("faar_ray.train.trial_sink.add_epoch", once)
    assert main([str(config)]) == 1
    error = capsys.readouterr().err
    assert "storage.path: /there cannot be written (No space left on device)" in error
    assert "mine.yaml --resume" in error
    assert read_rank_trace(config.parent / "runs/mine/rank_trace/t000-s0.parquet").num_rows > 0
    monkeypatch.setattr("faar_ray.train.trial_sink.add_epoch", add_epoch)
    assert main([str(config), "--resume"]) == 0


def test_a_damaged_run_json_is_no_reason_to_fail(config: Path) -> None:
    assert main([str(config), "optim.epochs=1"]) == 0
    (config.parent / "runs/mine/trials/t000-s0/run.json").write_text('{"run_id": "ab')
    assert main([str(config), "optim.epochs=1", "--resume"]) == 0
