"""The command line: what it refuses, what a dry run says, and that neither starts anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from faar_ray.tune.__main__ import main
from faar_ray.tune.run.run_folder import lock_run
from faar_ray.tune.space.space import SearchSpace, read_space

SpaceFile = Callable[..., Path]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_dry_run_says_what_would_run_and_starts_nothing(
    space_file: SpaceFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = space_file(tmp_path / "space.yaml", controls=[{"method": "dora"}], references="auto")
    assert main([str(path), "--dry-run", "budget.trials=7", "resources.max_concurrent=1"]) == 0
    output = capsys.readouterr().out
    assert "trials: 7" in output
    assert output.count("{pdrs.rho_shared: ") == 3
    assert "{pdrs.rho_shared: 0.95}" in output
    assert "at once: 1 trial(s); " in output
    assert "bound: 7 trials x 3 epochs = 21 epochs" in output
    assert "in addition: 1 controls and 2 single-task references" in output
    assert [entry.name for entry in tmp_path.iterdir()] == ["space.yaml"]
    assert not ray.is_initialized()


def test_the_environments_tracking_server_is_said_first_and_its_password_never(
    space_file: SpaceFile, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "")  # so that the end of the test restores it
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:s3cr3t@host:5000")
    path = space_file(tmp_path / "space.yaml")
    assert main([str(path), "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert output.splitlines()[0] == "# MLflow: http://host:5000 (MLFLOW_TRACKING_URI)"
    assert "  uri: http://host:5000\n" in output
    assert main([str(path), "--dry-run", "tracking.uri=http://you:s3cr3t@other"]) == 0
    named = capsys.readouterr().out
    assert "  uri: http://other\n" in named
    assert "MLFLOW_TRACKING_URI" not in named
    assert "s3cr3t" not in output + named


def test_a_dry_run_shows_a_space_that_can_be_read_again(
    space_file: SpaceFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = space_file(tmp_path / "space.yaml")
    main([str(path), "--dry-run"])
    again = tmp_path / "again.yaml"
    again.write_text(capsys.readouterr().out.split("# three sample configs")[0])
    assert read_space(again) == read_space(path)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["pdrs.rho_sharde=0.9"], "did you mean"),
        (["resources.cpus_per_worker=4096"], "cpus_per_worker: 4096 CPUs, "),
        (["resources.gpus_per_worker=64"], "gpus_per_worker: 64 GPUs, "),
        (
            ["optim.batch_size=7", "resources.workers=5"],
            "command line: optim.batch_size=7: 7 leaves a batch of 4 of 32",
        ),
        (
            ["controls=[{backbone.name: x}]"],
            "controls=[{backbone.name: x}]: controls.0.backbone.name: must be swin_micro, ",
        ),
        (["resources.workers=9"], "space.yaml:18:5: optim.batch_size: 8 leaves a batch of 8 of 32 images"),
        (["--name", "../up"], "name"),
        (["--resume"], "there is no run in"),
    ],
)
def test_bad_usage_is_exit_2_with_one_message_and_no_folder(
    space_file: SpaceFile, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    path = space_file(tmp_path / "space.yaml")
    assert main([str(path), *arguments]) == 2
    output = capsys.readouterr()
    assert expected in output.err
    assert "Traceback" not in output.err
    assert output.out == ""
    assert not (tmp_path / "runs").exists()


def test_a_name_in_use_is_exit_2_and_nothing_is_written(
    space_file: SpaceFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = space_file(tmp_path / "space.yaml")
    space: SearchSpace = read_space(path)
    lock_run(tmp_path / "runs" / "tiny", space).close()
    begun = tmp_path / "runs" / "tiny" / "trials" / "t000-s0" / "config.yaml"
    begun.parent.mkdir()
    begun.write_text("")
    before = {entry: entry.stat().st_mtime_ns for entry in (tmp_path / "runs" / "tiny").rglob("*")}
    assert main([str(path)]) == 2
    assert "exists already: --resume" in capsys.readouterr().err
    assert {entry: entry.stat().st_mtime_ns for entry in (tmp_path / "runs" / "tiny").rglob("*")} == before
    assert not (tmp_path / "mlflow.db").exists()


CLUSTER = """cluster_name: lab
max_workers: 4
provider: {type: aws, region: us-east-1}
head_node_type: head
available_node_types:
  head: {resources: {CPU: 0}, node_config: {}, labels: {usd-per-hour: "0.25"}}
  worker: {resources: {CPU: 4}, node_config: {}, min_workers: 0, max_workers: 8, labels: {usd-per-hour: "2"}}
"""


def test_a_dry_run_on_a_cluster_file_says_nodes_prices_and_what_they_make_of_the_budget(
    space_file: SpaceFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, cluster = space_file(tmp_path / "space.yaml"), tmp_path / "lab.yaml"
    cluster.write_text(CLUSTER)
    budget = ["budget.trials=7", "budget.time=2h", "budget.usd=12"]
    assert main([str(path), "--dry-run", "resources.cluster=lab.yaml", "resources.cpus_per_worker=2", *budget]) == 0
    output = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in output]
    assert ["head", "0", "0", "1", "on-demand", "0.25"] in rows
    assert ["worker", "4", "0", "8", "on-demand", "2"] in rows
    assert "cost: 0.25 USD/h with the head alone, at most 8.25 USD/h" in output
    assert any(line.startswith("a trial: 1 USD/h, its share of a full worker, ") for line in output)
    assert "at once: 8 trial(s); a trial needs 2 CPUs, 5 machines may be added: 16 CPUs in all" in output
    assert "all within 2h of wall time: at most 16.5 USD for the whole cluster" in output
    assert "all within 12 USD: 12 h of trials, 1.5 h with all 8 slots busy" in output
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["lab.yaml", "space.yaml"]
    assert not ray.is_initialized()


@pytest.mark.parametrize(
    ("cluster", "arguments", "expected"),
    [
        (CLUSTER.replace(": lab", ": a:b"), ["--dry-run"], "lab.yaml:1:1: cluster_name: "),
        (CLUSTER.replace(', labels: {usd-per-hour: "2"}', ""), ["--dry-run", "budget.usd=3"], "(worker: no label usd-"),
        (
            CLUSTER,
            ["--dry-run", "resources.cpus_per_worker=5"],
            "(5 of them not started yet): cpus_per_worker: 5 CPUs, at most 4",
        ),
        (CLUSTER, [], "resources.cluster=lab.yaml: needs --address"),
        (None, ["--dry-run"], "resources.cluster=lab.yaml: lab.yaml: no such file"),
    ],
)
def test_faults_of_a_cluster_are_exit_2_before_anything_starts(
    space_file: SpaceFile,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    cluster: str | None,
    arguments: list[str],
    expected: str,
) -> None:
    path = space_file(tmp_path / "space.yaml")
    if cluster is not None:
        (tmp_path / "lab.yaml").write_text(cluster)
    assert main([str(path), "resources.cluster=lab.yaml", *arguments]) == 2
    output = capsys.readouterr()
    assert expected in output.err
    assert len(output.err.splitlines()) == 1
    assert output.out == ""
    assert not (tmp_path / "runs").exists()


def test_a_missing_file_is_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "gone.yaml")]) == 2
    assert "gone.yaml" in capsys.readouterr().err


def test_help_has_examples_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    output = capsys.readouterr().out
    assert "python -m faar_ray.tune search_spaces/rho.yaml --resume" in output
    assert "exit codes: 0 ok" in output
