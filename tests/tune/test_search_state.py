"""The driver's search_state: order of jobs, limits, failures."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faar_ray.errors import StorageError, TooManyFailures
from faar_ray.tune.execute.ray_tune_adapters import abort_on_storage_error
from faar_ray.tune.run.jobs import Job
from faar_ray.tune.space.space import SearchSpace

Space = Callable[..., SearchSpace]
Drive = Callable[..., Any]


def with_test(job: Job, epoch: int) -> dict[str, float]:
    task = job.config.data.tasks[0]
    metric = {"semseg": "miou", "normals": "mean_angle"}[task]
    values = {"delta_m": float(epoch), "trainable_params": 1e5}
    return values | ({f"{s}/{task}/{metric}": 10.0 for s in ("val", "test")} if job.role == "reference" else {})


def test_references_come_first_and_trials_wait_for_them(space: Space, driver: Drive) -> None:
    drive = driver(space(references="auto"), train=with_test, concurrent=3)
    handed = [drive.search_state.next_job(), drive.search_state.next_job(), drive.search_state.next_job()]
    assert [job and job.trial_id for job in handed] == ["ref-semseg", "ref-normals", None]
    assert not drive.search_state.finished()


def test_a_reference_of_an_earlier_search_is_part_of_this_one(space: Space, driver: Drive, tmp_path: Path) -> None:
    auto = space(references="auto", budget={"trials": 1})
    assert driver(auto, tmp_path / "a.log", train=with_test).run().order[:2] == ["ref-semseg", "ref-normals"]
    second = driver(auto, tmp_path / "b.log", train=with_test).run()
    assert second.order == ["t000-s0"]
    assert [r.trial_id for r in second.proposer.results()] == ["ref-normals", "ref-semseg", "t000-s0"]
    assert (
        second.search_state.references.val == second.search_state.references.test == {"semseg": 10.0, "normals": 10.0}
    )


def test_other_data_and_other_seeds_need_other_references(space: Space, driver: Drive, tmp_path: Path) -> None:
    driver(space(references="auto", budget={"trials": 1}), tmp_path / "a.log", train=with_test).run()
    other = space(references="auto", budget={"trials": 1}, base={"optim": {"lr": 1e-3}})
    assert "ref-semseg" in driver(other, tmp_path / "b.log", train=with_test).run().order


def test_a_failed_reference_ends_the_search(space: Space, driver: Drive) -> None:
    drive = driver(space(references="auto"), train=lambda job, epoch: {"error": 1.0}).run()
    assert "ref-semseg failed: it broke" in str(drive.search_state.fatal)
    assert drive.proposer.counts() == {"complete": 0, "pruned": 0, "failed": 0}


def test_controls_fill_the_gap_while_replicates_wait(space: Space, driver: Drive) -> None:
    waiting = space(
        controls=[{"method": "dora"}],
        budget={"trials": 4},
        search={"replicates": {"top": 1, "seeds": 2}},
        scheduler={"type": "none"},
    )
    order = driver(waiting, concurrent=2).run().order
    assert order.index("c00-s0") == 3
    assert len(order) == 5


def test_controls_run_to_their_end(space: Space, driver: Drive) -> None:
    def train(job: Job, epoch: int) -> dict[str, float]:
        return {"delta_m": -99.0 if job.role == "control" else 1.0, "trainable_params": 1e5}

    results = driver(space(controls=[{"method": "dora"}, {"method": "lora"}]), train=train).run().proposer.results()
    assert [(r.state, r.epochs) for r in results if r.role == "control"] == [("COMPLETE", 3)] * 2


def test_time_ends_the_search_within_one_epoch_and_says_so(space: Space, driver: Drive) -> None:
    ticks = iter(range(0, 100000, 1))
    drive = driver(space(budget={"trials": 50, "time": "60s"}), now=lambda: float(next(ticks))).run()
    assert drive.search_state.limit.startswith("budget.time 60s was reached after 1:0")
    last = drive.proposer.results()[-1]
    assert (last.state, last.reason) == ("PRUNED", drive.search_state.limit) or last.state == "COMPLETE"
    assert 1 < len(drive.proposer.results()) < 50


def test_downtime_is_not_counted(space: Space, driver: Drive) -> None:
    timed = space(budget={"trials": 2, "time": "60s"})
    first = driver(timed, now=lambda: 1000.0)
    first.search_state.next_job()
    first.search_state.epoch("t000-s0", 0, {"delta_m": 1.0, "trainable_params": 1.0})
    assert driver(timed, now=lambda: 9999.0).search_state.elapsed() == 0.0


def test_one_failure_too_many_ends_the_search(space: Space, driver: Drive) -> None:
    breaking = space(failure={"max_failures": 2}, budget={"trials": 9})
    drive = driver(breaking, train=lambda job, epoch: {"error": 1.0}).run()
    assert isinstance(drive.search_state.fatal, TooManyFailures)
    assert "3 trials failed, failure.max_failures is 2" in str(drive.search_state.fatal)
    assert drive.proposer.counts()["failed"] == 3


def test_a_trial_that_ends_short_of_its_epochs_is_a_failure(space: Space, driver: Drive) -> None:
    drive = driver(space())
    job = drive.search_state.next_job()
    drive.search_state.epoch(job.trial_id, 0, {"delta_m": 1.0, "trainable_params": 1.0})
    drive.search_state.ended(job.trial_id)
    (result,) = drive.proposer.results()
    assert result.state == "FAIL"
    assert result.reason.startswith("it ended by itself after 1 of 3 epochs [t000-s0: pdrs.rho_shared 0.95")


def test_the_test_split_is_kept_from_the_search_and_shown_in_the_results(space: Space, driver: Drive) -> None:
    drive = driver(space(budget={"trials": 1}))
    job = drive.search_state.next_job()
    for epoch in range(3):
        drive.search_state.epoch(job.trial_id, epoch, {"delta_m": 1.0, "trainable_params": 1.0})
    drive.search_state.record_test_metrics(job.trial_id, {"test/delta_m": 7.0})
    drive.search_state.ended(job.trial_id)
    assert drive.proposer.results()[0].metrics["test/delta_m"] == 7.0
    assert "test/delta_m" not in drive.study.get_trials()[0].user_attrs["result"]["metrics"]


def test_a_storage_that_gives_out_ends_the_search_and_none_of_its_jobs(
    space: Space, driver: Drive, tmp_path: Path
) -> None:
    four = space(budget={"trials": 4}, scheduler={"type": "none"})
    undisturbed = driver(four, tmp_path / "whole.log").run()
    broken = driver(four, tmp_path / "study.log")

    def train(job: Job, epoch: int) -> dict[str, float]:
        if (job.trial_id, epoch) == ("t001-s0", 1):
            broken.search_state.abort(StorageError("full"))
        metrics: dict[str, float] = plain(job, epoch)
        return metrics

    plain, broken.train = broken.train, train
    broken.run()
    assert broken.search_state.aborted
    assert broken.proposer.counts() == {"complete": 1, "pruned": 0, "failed": 0}
    resumed = driver(four, tmp_path / "study.log").run()
    message = [{r.trial_id: (r.state, r.metrics) for r in drive.proposer.results()} for drive in (resumed, undisturbed)]
    assert message[0] == message[1]


def test_what_cannot_be_written_is_no_fault_of_a_trial(space: Space, driver: Drive, tmp_path: Path) -> None:
    search_state = driver(space()).search_state
    with abort_on_storage_error(search_state, tmp_path):
        os.write(os.open("/dev/full", os.O_WRONLY), b"x")
    assert str(search_state.fatal) == f"storage.path: {tmp_path} cannot be written (No space left on device)"
    assert search_state.finished()


def test_a_job_that_could_not_be_begun_is_not_waited_for(space: Space, driver: Drive, tmp_path: Path) -> None:
    class Full:
        def started(self, job: Job) -> None:
            raise StorageError("full")

    search_state = driver(space(), watchers=[Full()], concurrent=1).search_state
    with abort_on_storage_error(search_state, tmp_path):
        search_state.next_job()
    assert (search_state.aborted, search_state.running, search_state.finished()) == (True, {}, True)


NO_NORMALS = {"val/normals/mean_angle": math.nan, "test/normals/mean_angle": math.nan}


def without_normals(job: Job, epoch: int) -> dict[str, float]:
    """Metrics on data without any label of normals."""
    values = {"delta_m": float(epoch), "trainable_params": 1e5, "train/loss/normals": math.nan} | NO_NORMALS
    return values | {"val/semseg/miou": 10.0, "test/semseg/miou": 10.0}


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def test_a_reference_without_labels_is_told_cached_and_no_number(space: Space, driver: Drive, tmp_path: Path) -> None:
    def is_nan(values: dict[str, float]) -> dict[str, bool]:
        return {task: math.isnan(value) for task, value in values.items()}

    notes: list[str] = []
    auto = space(references="auto", budget={"trials": 1})
    told = "normals: no labels on val and test, delta_m leaves it out there"
    for journal, expected in (("a.log", ["ref-semseg", "ref-normals", "t000-s0"]), ("b.log", ["t000-s0"])):
        drive = driver(auto, tmp_path / journal, train=without_normals, notify=notes.append)
        assert drive.run().order == expected
        assert notes == [told]
        notes.clear()
        references = drive.search_state.references
        assert is_nan(references.val) == is_nan(references.test) == {"semseg": False, "normals": True}
    for file in (tmp_path / "references").glob("*.json"):
        json.loads(file.read_text(), parse_constant=refuse)


def test_what_the_journal_has_of_a_metric_without_evidence_is_valid_json(
    space: Space, driver: Drive, tmp_path: Path
) -> None:
    def train(job: Job, epoch: int) -> dict[str, float]:
        return without_normals(job, epoch) | ({"delta_m": math.nan} if epoch == 0 else {})

    drive = driver(space(scheduler={"type": "none"}, budget={"trials": 2}), tmp_path / "a.log", train=train).run()
    for line in (tmp_path / "a.log").read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    assert all("val/normals/mean_angle" not in r.metrics for r in drive.proposer.results())
    history = driver(space(scheduler={"type": "none"}, budget={"trials": 2}), tmp_path / "a.log").proposer.history()
    assert [math.isnan(values[0]) for values in history[0]] == [True, False, False]
