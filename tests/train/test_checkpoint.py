from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from faar_ray.records import EpochRecord, RankRecord, SineRecord
from faar_ray.tracking.files.rank_trace import read_rank_trace
from faar_ray.tracking.files.sine_trace import read_sine_trace
from faar_ray.tracking.files.trial_files import write_epoch_files
from faar_ray.train.checkpoint import (
    PARTS,
    read_checkpoint,
    records_from_plain,
    records_to_plain,
    save_checkpoint,
)

RANK = RankRecord(0, 0, 0, "qkv", "shared", 2, 2, "adapter", 1.0, 1.0, (0.75, 0.25), 0, 9)
SINE = SineRecord(0, 3, 1, "fc1", "depth", 9.0, 0.01, 0.05, 0.1, 0.45, 64, 40.0, 90.0, 0.2, None)


@pytest.fixture
def records() -> list[EpochRecord]:
    return [EpochRecord(0, {"train/loss": 1.0}, (RANK,), (SINE,)), EpochRecord(1, {"train/loss": 0.5})]


def through_a_file(folder: Path, plain: list[dict[str, Any]]) -> list[EpochRecord]:
    state: dict[str, Any] = dict.fromkeys(PARTS)
    path = save_checkpoint(folder, 1, state | {"records": plain}, keep=1)
    return records_from_plain(read_checkpoint(path)["records"])


def test_records_come_out_of_a_checkpoint_as_they_went_in(tmp_path: Path, records: list[EpochRecord]) -> None:
    assert through_a_file(tmp_path, records_to_plain(records)) == records


def test_a_checkpoint_of_before_there_were_sine_records_is_read(tmp_path: Path, records: list[EpochRecord]) -> None:
    plain = records_to_plain(records)
    for row in plain:
        del row["sines"]

    found = through_a_file(tmp_path, plain)

    assert [record.sines for record in found] == [(), ()]
    assert [record.ranks for record in found] == [record.ranks for record in records]


def test_both_traces_are_written_down_and_the_sines_only_where_there_are_any(
    tmp_path: Path, records: list[EpochRecord]
) -> None:
    trace, sines = tmp_path / "t.parquet", tmp_path / "sinewich_trace.parquet"
    write_epoch_files(tmp_path, trace, "t0", records[1:])
    assert not sines.exists()

    write_epoch_files(tmp_path, trace, "t0", records)

    assert read_rank_trace(trace)["layer"].to_pylist() == ["qkv"]
    assert read_sine_trace(sines)["layer"].to_pylist() == ["fc1"]
