"""A trial's records through interruption, damage and loss: what a resumed trial starts from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest

from faar_ray.config.trial import TrialConfig
from faar_ray.records import MEASURED, EpochRecord, RankRecord
from faar_ray.storage.run_location import RunLocation, TrialPaths
from faar_ray.tracking.files.epoch_file import parts_of, read_epochs, read_trial_records, write_epochs
from faar_ray.tracking.files.rank_trace import read_rank_trace
from faar_ray.train.checkpoint import checkpoints_of, digest_of
from faar_ray.train.fit import fit
from faar_ray.train.trial_spec import TrialSpec

RAW: dict[str, Any] = {
    "data": {"tasks": ["semseg", "normals"], "image_size": 32, "train_images": 16, "val_images": 8, "test_images": 8},
    "backbone": {"pretrained": False},
    "ranks": {"init_rank": 4},
    "pdrs": {"rho_shared": 0.7},
    "optim": {"epochs": 4, "batch_size": 8, "warmup_steps": 2},
}


def spec(folder: Path) -> TrialSpec:
    return TrialSpec("t", TrialConfig.resolve(RAW), RunLocation(folder), keep_checkpoints=2)


def timeless(records: list[EpochRecord]) -> list[EpochRecord]:
    return [replace(r, metrics={k: v for k, v in r.metrics.items() if not k.startswith(MEASURED)}) for r in records]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[EpochRecord]:
    return timeless(list(fit(spec(tmp_path_factory.mktemp("whole")))))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `kill -9` leaves three epochs into a trial: parts and checkpoints."""
    folder = tmp_path_factory.mktemp("killed")
    epochs = fit(spec(folder / "running"))
    list(islice(epochs, 3))
    shutil.copytree(folder / "running", folder / "left")
    epochs.close()
    return folder / "left"


@pytest.fixture
def left(killed: Path, tmp_path: Path) -> TrialPaths:
    shutil.copytree(killed, tmp_path / "run")
    return TrialPaths(tmp_path / "run", "t")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[40] ^= 0x10
    path.write_bytes(content)


def test_a_running_trial_adds_one_part_per_epoch_and_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    trial = spec(tmp_path).paths
    written: list[dict[str, int]] = []
    epochs = fit(spec(tmp_path))
    for record in epochs:
        written.append({path.name: path.stat().st_mtime_ns for path in [*parts_of(trial), trial.epochs]})
        assert not trial.trace.exists()
        assert list(read_epochs(trial)) == list(range(record.epoch + 1))
        assert read_epochs(trial)[record.epoch] == record.metrics
        if record.epoch == 2:
            epochs.close()
    for before, after in pairwise(written):
        assert after.items() >= before.items()
        assert len(after) == len(before) + 1


def test_an_ended_trial_has_its_files_and_pictures_and_no_part(tmp_path: Path) -> None:
    trial = spec(tmp_path).paths
    epochs = fit(spec(tmp_path))
    for ended_after in (2, 4):  # stopped, then resumed to its end
        records = list(islice(epochs, ended_after))
        epochs.close()
        assert not trial.records.exists()
        assert list(read_trial_records(trial)[0].values()) == records
        assert read_rank_trace(trial.trace).num_rows == ended_after * len(records[0].ranks)
        assert trial.rank_picture.read_bytes().startswith(b"\x89PNG")
        assert not trial.sine_picture.exists()
        epochs = fit(spec(tmp_path))


def test_a_picture_that_cannot_be_drawn_fails_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("faar_ray.tracking.plots.rank_plot.plot_rank_trace", lambda *_: 1 / 0)
    next(fit(spec(tmp_path)))
    assert "rank_trace.png: could not be drawn (ZeroDivisionError" in caplog.text
    assert read_rank_trace(spec(tmp_path).paths.trace).num_rows > 0


def test_what_a_kill_left_is_readable_and_resumes_bit_for_bit(left: TrialPaths, whole: list[EpochRecord]) -> None:
    assert list(read_epochs(left)) == [0, 1, 2]
    assert timeless(list(fit(spec(left.run)))) == whole


def test_an_epoch_beyond_the_newest_checkpoint_is_trained_again(left: TrialPaths, whole: list[EpochRecord]) -> None:
    checkpoints_of(left.folder)[-1].unlink()
    epochs = fit(spec(left.run))
    assert timeless(list(islice(epochs, 2))) == whole[:2]
    assert list(read_epochs(left)) == [0, 1]
    assert timeless(list(epochs)) == whole[2:]


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_a_damaged_or_missing_part_takes_the_trial_back_to_the_checkpoint_before(
    damage: Callable[[Path], None], left: TrialPaths, whole: list[EpochRecord], caplog: pytest.LogCaptureFixture
) -> None:
    damage(parts_of(left)[2])
    epochs = fit(spec(left.run))
    assert timeless([next(epochs)]) == whole[:1]
    assert "epoch_0002.pt: the records of its 3 epochs are lost or damaged; the checkpoint before it" in caplog.text
    assert list(read_epochs(left)) == [0, 1]
    assert timeless(list(epochs)) == whole[1:]


def test_a_record_with_another_value_is_noticed(left: TrialPaths, whole: list[EpochRecord]) -> None:
    records = read_trial_records(left)[0]
    ranks = (replace(records[2].ranks[0], rank=1), *records[2].ranks[1:])
    write_epochs(parts_of(left)[2], [replace(records[2], ranks=ranks)])
    assert timeless(list(fit(spec(left.run)))) == whole


def test_without_records_for_any_checkpoint_the_trial_starts_again_and_says_so(
    left: TrialPaths, whole: list[EpochRecord], caplog: pytest.LogCaptureFixture
) -> None:
    parts_of(left)[0].unlink()
    assert timeless(list(fit(spec(left.run)))) == whole
    assert "trained again from its start, for lack of its records" in caplog.text


def test_the_digest_depends_on_every_value_and_not_on_how_a_number_is_stored() -> None:
    rank = RankRecord(0, 0, 0, "qkv", "shared", 2, 2, "adapter", 1.0, 1.0, (0.75, 0.25), 0, 9, {"x": 1})
    record = EpochRecord(0, {"loss": 1.0}, (rank,))
    others = [
        replace(record, metrics={"loss": 1.5}),
        replace(record, ranks=(replace(rank, importance=(0.75, 0.0)),)),
        replace(record, ranks=(replace(rank, extra={"x": 2}),)),
    ]
    assert len({digest_of([r]) for r in [record, *others]}) == 4
    assert digest_of([record]) == digest_of([replace(record, ranks=(replace(rank, rho=1, extra={"x": 1.0}),))])
    assert digest_of([record, others[0]]) == digest_of([others[0]], digest_of([record]))
