"""The command line: what it refuses, what a dry run says, and that neither starts anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from faar_ray.tune.__main__ import main
from faar_ray.tune.run_folder import hold
from faar_ray.tune.space import SearchSpace, read_space

SpaceFile = Callable[..., Path]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_dry_run_says_what_would_run_and_starts_nothing(
    space_file: SpaceFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = space_file(tmp_path / "space.yaml", controls=[{"method": "dora"}], references="auto")
    assert main([str(path), "--dry-run", "budget.trials=7", "resources.max_concurrent=1"]) == 0
    said = capsys.readouterr().out
    assert "trials: 7" in said
    assert said.count("{pdrs.rho_shared: ") == 3
    assert "{pdrs.rho_shared: 0.95}" in said
    assert "at once: 1 trial(s); " in said
    assert "bound: 7 trials x 3 epochs = 21 epochs" in said
    assert "beside: 1 controls and 2 single-task references" in said
    assert [entry.name for entry in tmp_path.iterdir()] == ["space.yaml"]
    assert not ray.is_initialized()


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
    said = capsys.readouterr()
    assert expected in said.err
    assert "Traceback" not in said.err
    assert said.out == ""
    assert not (tmp_path / "runs").exists()


def test_a_name_in_use_is_exit_2_and_nothing_is_written(
    space_file: SpaceFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = space_file(tmp_path / "space.yaml")
    space: SearchSpace = read_space(path)
    hold(tmp_path / "runs" / "tiny", space).close()
    before = {entry: entry.stat().st_mtime_ns for entry in (tmp_path / "runs" / "tiny").rglob("*")}
    assert main([str(path)]) == 2
    assert "exists already: --resume" in capsys.readouterr().err
    assert {entry: entry.stat().st_mtime_ns for entry in (tmp_path / "runs" / "tiny").rglob("*")} == before
    assert not (tmp_path / "mlflow.db").exists()


def test_a_missing_file_is_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "gone.yaml")]) == 2
    assert "gone.yaml" in capsys.readouterr().err


def test_help_has_examples_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert "python -m faar_ray.tune search_spaces/rho.yaml --resume" in said
    assert "exit codes: 0 ok" in said
