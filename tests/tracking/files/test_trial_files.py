"""Files of a trial: parts while it runs, the contract's files once it has ended, completed by anyone."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from faar_ray.errors import DataError
from faar_ray.records import EpochRecord, RankRecord, SineRecord
from faar_ray.storage.run_location import RunLocation, TrialPaths
from faar_ray.tracking.files.epoch_file import (
    add_epoch,
    part_path,
    parts_of,
    read_epochs,
    read_trial_records,
    write_epochs,
)
from faar_ray.tracking.files.finish import complete_trial_files, finish_trial_files
from faar_ray.tracking.files.rank_trace import SCHEMA, read_rank_trace
from faar_ray.tracking.files.sine_trace import read_sine_trace
from faar_ray.tracking.files.trial_files import read_trial_ranks, write_trial_files


def record(epoch: int, **extra: float | int | str | tuple[float, ...]) -> EpochRecord:
    rank = RankRecord(epoch, 0, 0, "qkv", "shared", 2, 2, "adapter", 1.0, 1.0, (0.75, 0.25), 0, 9, extra)
    sine = SineRecord(epoch, 3, 1, "fc1", "depth", 9.0, 0.01, 0.05, 0.1, 0.45, 64, 40.0, 90.0, 0.2, None)
    return EpochRecord(epoch, {"train/loss": 1.0 / (epoch + 1), f"only/{epoch}": 2.0}, (rank,), (sine,))


@pytest.fixture
def trial(tmp_path: Path) -> TrialPaths:
    return RunLocation(tmp_path).trial("t0")


def files_of(trial: TrialPaths) -> dict[str, bytes]:
    return {path.relative_to(trial.run).as_posix(): path.read_bytes() for path in trial.run.rglob("*.*")}


def test_records_come_back_as_they_were_written(trial: TrialPaths) -> None:
    records = [record(0), EpochRecord(1, {"train/loss": 0.5})]
    for one in records:
        add_epoch(trial, one)
    assert read_trial_records(trial) == (dict(enumerate(records)), {})

    assert complete_trial_files(trial)

    assert read_trial_records(trial) == (dict(enumerate(records)), {})


def test_an_ended_trial_has_both_traces_and_no_part(trial: TrialPaths) -> None:
    for epoch in range(3):
        add_epoch(trial, record(epoch))

    assert complete_trial_files(trial)

    assert set(files_of(trial)) == {
        "trials/t0/epochs.parquet", "trials/t0/sinewich_trace.parquet", "rank_trace/t0.parquet",
    }  # fmt: skip
    assert read_rank_trace(trial.trace)["epoch"].to_pylist() == [0, 1, 2]
    assert read_sine_trace(trial.sines)["layer"].to_pylist() == ["fc1"] * 3
    assert read_rank_trace(trial.trace).schema.equals(SCHEMA)
    assert not complete_trial_files(trial)


def test_sines_are_written_only_where_there_are_any(trial: TrialPaths) -> None:
    write_trial_files(trial, [EpochRecord(0, {})])
    assert not trial.sines.exists()


def test_columns_that_a_rank_policy_names_follow_the_standard_ones(trial: TrialPaths) -> None:
    records = [record(0, share=1, why="start"), record(1, share=0.5, why="cut", scores_before=(1.0, 0.5))]
    for one in records:
        add_epoch(trial, one)
    complete_trial_files(trial)

    table = read_rank_trace(trial.trace)

    assert table.column_names == [*SCHEMA.names, "share", "why", "scores_before"]
    assert table["share"].to_pylist() == [1.0, 0.5]
    assert table["scores_before"].to_pylist() == [None, [1.0, 0.5]]
    assert [dict(r.ranks[0].extra) for r in read_trial_records(trial)[0].values()] == [
        dict(r.ranks[0].extra) for r in records
    ]


def test_a_column_of_a_rank_policy_cannot_replace_a_standard_one(trial: TrialPaths) -> None:
    with pytest.raises(ValueError, match="extra column 'rho'"):
        add_epoch(trial, record(0, rho=0.5))


def test_traces_of_policies_with_different_columns_read_as_one_table(tmp_path: Path) -> None:
    for name, extra in (("a", {"share": 1}), ("b", {"share": 0.5}), ("c", {})):
        write_trial_files(RunLocation(tmp_path).trial(name), [record(0, **extra)])
    assert read_rank_trace(tmp_path / "rank_trace")["share"].to_pylist() == [1.0, 0.5, None]


@pytest.mark.parametrize("removed", [0, 1])
def test_a_completion_that_was_cut_off_is_repeated(trial: TrialPaths, removed: int) -> None:
    records = [record(epoch) for epoch in range(3)]
    for one in records:
        add_epoch(trial, one)
    write_epochs(trial.epochs, records)
    for path in parts_of(trial)[:removed]:
        path.unlink()

    complete_trial_files(trial)

    assert list(read_epochs(trial)) == [0, 1, 2]
    assert read_rank_trace(trial.trace).num_rows == 3
    assert parts_of(trial) == []


def test_epochs_of_a_trial_that_continues_are_those_of_both_files(trial: TrialPaths) -> None:
    assert read_epochs(trial) == {}
    write_trial_files(trial, [record(0), record(1)])
    add_epoch(trial, record(2))
    assert list(read_epochs(trial)) == [0, 1, 2]
    assert read_epochs(trial)[1] == {"train/loss": 0.5, "only/1": 2.0}
    assert read_trial_ranks(trial).num_rows == 3


def test_an_epoch_file_of_before_there_were_records_in_it_still_gives_its_metrics(trial: TrialPaths) -> None:
    trial.folder.mkdir(parents=True)
    pq.write_table(pa.table({"epoch": [0, 1], "train/loss": [1.0, None]}), trial.epochs)
    assert read_epochs(trial) == {0: {"train/loss": 1.0}, 1: {}}


@pytest.mark.parametrize("content", [b"", b"PAR1 but not really PAR1"])
def test_a_damaged_part_is_named_set_aside_and_costs_its_own_epoch(
    trial: TrialPaths, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    for epoch in range(3):
        add_epoch(trial, record(epoch))
    part_path(trial, 1).write_bytes(content)
    with pytest.raises(DataError, match=r"epoch_0001\.parquet"):
        read_epochs(trial)

    complete_trial_files(trial)

    assert "epoch_0001.parquet: not a readable Parquet file" in caplog.text
    assert part_path(trial, 1).with_suffix(".damaged").read_bytes() == content
    assert list(read_epochs(trial)) == [0, 2]


def test_a_damaged_trace_is_written_again_and_without_records_is_an_error(trial: TrialPaths) -> None:
    write_trial_files(trial, [record(0)])
    before = trial.trace.read_bytes()
    trial.trace.write_bytes(before[:100])
    assert complete_trial_files(trial)
    assert trial.trace.read_bytes() == before

    trial.epochs.unlink()
    trial.trace.write_bytes(before[:100])
    with pytest.raises(DataError, match=r"rank_trace/t0\.parquet"):
        complete_trial_files(trial)


def test_a_trial_whose_process_was_killed_gets_its_files_and_pictures(trial: TrialPaths) -> None:
    for epoch in range(2):
        add_epoch(trial, record(epoch))

    finish_trial_files(trial, "run/t0")

    files = files_of(trial)
    assert {"trials/t0/rank_trace.png", "trials/t0/sinewich_trace.png", "rank_trace/t0.parquet"} <= set(files)
    finish_trial_files(trial, "run/t0")
    assert files_of(trial) == files


def test_a_trial_that_wrote_nothing_gets_no_files(trial: TrialPaths) -> None:
    finish_trial_files(trial, "run/t0")
    assert not trial.folder.exists()


def test_files_of_a_trial_on_another_machine_are_completed_in_the_bucket(s3: str, tmp_path: Path) -> None:
    remote, driver = (RunLocation(tmp_path / name, f"{s3}/runs/rho").trial("t0") for name in ("there", "driver"))
    add_epoch(remote, record(0))
    (remote.folder / "config.yaml").write_text("x: 1")
    remote.remote_copy.push()

    finish_trial_files(driver, "rho/t0")

    remote.remote_copy.pull()
    assert {"rank_trace/t0.parquet", "trials/t0/rank_trace.png", "trials/t0/config.yaml"} <= set(files_of(remote))
    assert parts_of(remote) == []
