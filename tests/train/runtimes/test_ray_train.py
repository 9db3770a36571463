"""A trial on two workers under Ray Train: the epochs of one process, and everything freed whenever it is stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from faar_ray.cluster import ray_cluster
from faar_ray.cluster.capacity import Node
from faar_ray.cluster.ray_cluster import connected
from faar_ray.config.trial import TrialConfig
from faar_ray.records import MEASURED, EpochRecord
from faar_ray.storage.run_location import RunLocation
from faar_ray.train.fit import Epochs, fit
from faar_ray.train.fork import begin_as_fork
from faar_ray.train.runtimes.ray_train import TrainRun, TrialFault, WorkerLost
from faar_ray.train.trial_spec import TrialSpec

pytestmark = pytest.mark.timeout(600)
RAW: dict[str, Any] = {
    "data": {
        "tasks": ["semseg", "normals"],
        "image_size": 32,
        "train_images": 32,
        "val_images": 16,
        "test_images": 16,
    },
    "backbone": {"pretrained": False},
    "ranks": {"init_rank": 4},
    "pdrs": {"rho_shared": 0.7},
    "optim": {"epochs": 3, "batch_size": 8, "warmup_steps": 2, "precision": "fp64"},
}
Spec = Callable[..., TrialSpec]


@pytest.fixture(scope="module")
def four_cpus() -> Iterator[None]:
    """Ray with four places, however many this machine has: two-worker trials wait for their workers, not for cores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_cluster, "this_machine", lambda: Node(4, 0))
        with connected(None):
            yield


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    def made(workers: int, name: str = "t", **dotted: Any) -> TrialSpec:
        return TrialSpec(
            name,
            TrialConfig.resolve(RAW, **dotted),
            RunLocation(tmp_path / str(workers)),
            references={"semseg": 40.0, "normals": 20.0},
            test_references={"semseg": 40.0, "normals": 20.0},
            test=True,
            workers=workers,
        )

    return made


def finished(epochs: Epochs) -> tuple[list[EpochRecord], dict[str, float]]:
    records = []
    while True:
        try:
            records.append(next(epochs))
        except StopIteration as end:
            return records, end.value


def timeless(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.startswith(MEASURED)}


def free_cpus(within: float) -> float:
    """CPUs that Ray has to give away, once it has all or the time is over."""
    deadline = time.monotonic() + within
    while (free := ray.available_resources().get("CPU", 0.0)) < 4 and time.monotonic() < deadline:
        time.sleep(0.1)
    return float(free)


def children() -> dict[int, str]:
    """Processes under this one with their titles."""
    result = {}
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            result[child.pid] = " ".join(child.cmdline())
    return result


def workers_alive() -> list[str]:
    """Ray Train's processes under this one."""
    return [name for name in children().values() if "RayTrainWorker" in name or "TrainController" in name]


def nothing_is_left() -> None:
    assert free_cpus(within=30) == 4
    deadline = time.monotonic() + 30
    while workers_alive() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert workers_alive() == []


@pytest.mark.usefixtures("four_cpus")
def test_two_workers_give_the_epochs_and_the_test_metrics_of_one_process(spec: Spec) -> None:
    theirs, their_test = finished(fit(spec(1)))
    ours, our_test = finished(TrainRun(spec(2)).epochs())
    assert [[row.rank for row in record.ranks] for record in ours] == [[r.rank for r in e.ranks] for e in theirs]
    for one, two in zip(theirs, ours, strict=True):
        assert timeless(dict(two.metrics)) == pytest.approx(timeless(dict(one.metrics)), rel=1e-8)
    assert our_test == pytest.approx(their_test, rel=1e-8)
    nothing_is_left()


@pytest.mark.slow
@pytest.mark.usefixtures("four_cpus")
def test_a_fork_of_a_prefix_on_two_workers_gives_what_two_workers_give_alone(spec: Spec) -> None:
    """fp64 and two workers: sums of two numbers do not depend on their order."""
    late = {"pdrs.start_epoch": 1}
    prefix = replace(spec(2, "prefix", **late, **{"pdrs.rho_shared": 0.9}), stop_after=2, leave_end=True)
    records, tested = finished(TrainRun(prefix).epochs())
    assert (len(records), tested) == (1, {})
    assert not prefix.paths.trace.exists()

    fork = replace(spec(2, "fork", **late), parent="prefix", inherited_epochs=2, redo=True)
    begin_as_fork(fork)
    ours, our_test = finished(TrainRun(fork).epochs())
    theirs, their_test = finished(TrainRun(spec(2, "alone", **late)).epochs())
    assert [record.ranks for record in ours] == [record.ranks for record in theirs]
    assert [timeless(dict(r.metrics)) for r in ours] == [timeless(dict(r.metrics)) for r in theirs]
    assert our_test == their_test
    nothing_is_left()


@pytest.mark.usefixtures("four_cpus")
def test_a_stop_after_an_epoch_frees_everything_and_trained_no_epoch_more(spec: Spec) -> None:
    given = spec(2)
    epochs = TrainRun(given).epochs()
    assert next(epochs).epoch == 0
    time.sleep(1)  # long enough to train an epoch that nobody asked for
    epochs.close()
    nothing_is_left()
    assert [p.name for p in sorted((given.paths.folder / "checkpoints").iterdir())] == ["epoch_0000.pt"]
    assert not (given.paths.folder / ".ray").exists()


@pytest.mark.usefixtures("four_cpus")
@pytest.mark.parametrize("after", [0.0, pytest.param(2.0, marks=pytest.mark.slow)])
def test_a_stop_before_the_first_report_frees_everything(spec: Spec, after: float) -> None:
    run = TrainRun(spec(2))
    time.sleep(after)
    run.stop()
    nothing_is_left()


@pytest.mark.slow
@pytest.mark.usefixtures("four_cpus")
def test_a_fault_of_the_config_is_told_and_nothing_tried_again(spec: Spec) -> None:
    wild = {"optim.lr": 1e300, "optim.decoder_lr": 1e300, "optim.warmup_steps": 0}
    with pytest.raises(TrialFault, match=r"step \d+: the loss of \w+ is (nan|inf)"):
        finished(TrainRun(spec(2, **wild)).epochs())
    nothing_is_left()


@pytest.mark.faults
@pytest.mark.usefixtures("four_cpus")
def test_a_killed_worker_is_told_and_the_next_try_goes_on_from_the_checkpoint(spec: Spec) -> None:
    undisturbed, _ = finished(fit(spec(1)))
    given = spec(2)
    epochs = TrainRun(given).epochs()
    first = next(epochs)
    os.kill(next(pid for pid, name in children().items() if "RayTrainWorker" in name), signal.SIGKILL)
    with pytest.raises(WorkerLost, match="worker"):
        finished(epochs)
    nothing_is_left()
    records, _ = finished(TrainRun(given).epochs())
    assert records[0] == first
    assert [[row.rank for row in record.ranks] for record in records] == [
        [r.rank for r in e.ranks] for e in undisturbed
    ]
    for one, two in zip(undisturbed, records, strict=True):
        assert timeless(dict(two.metrics)) == pytest.approx(timeless(dict(one.metrics)), rel=1e-8)
