"""Batches are the same whoever reads them; the loader's processes end with their reader; faults arrive as they were."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

from faar_ray.config.data_section import DataConfig
from faar_ray.data import SplitData, load_dataset, load_datasets
from faar_ray.data.loader import automatic_processes, ready_on
from faar_ray.errors import DataError
from faar_ray.train.memory import PeakMemory

from .photographs.trees import nyud_tree

TASKS = ("semseg", "normals", "depth", "edge")
AUGMENT = {"rotation": 20.0, "scale": [0.75, 1.25], "crop": 0.8, "colour": 0.3}
Batches = list[dict[str, Tensor]]
ENDS_WITHIN_S = 60


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nyud_tree(tmp_path_factory.mktemp("nyud"), train=14)


def config(root: Path, **changes: Any) -> DataConfig:
    values = {"name": "nyud", "root": str(root), "tasks": TASKS, "protocol": "papers", "image_size": [32, 48]}
    fast = {"augment": AUGMENT, "loader_workers": 0, "cache": "never"}
    return DataConfig.model_validate({**values, **fast, **changes})


def pass_over(data: SplitData, **changes: Any) -> Iterator[dict[str, Tensor]]:
    return data.batches(**{"batch_size": 4, "seed": 1, "epoch": 0, "train": True, **changes})


def same(some: Batches, others: Batches) -> bool:
    return len(some) == len(others) and all(
        torch.equal(one[name], other[name]) for one, other in zip(some, others, strict=True) for name in one
    )


@pytest.fixture
def opened() -> Iterator[Callable[[DataConfig], SplitData]]:
    """Opens training data that are closed after the test."""
    opened: list[SplitData] = []

    def open_(config: DataConfig) -> SplitData:
        opened.append(load_dataset(config, "train"))
        return opened[-1]

    yield open_
    for data in opened:
        data.close()


Open = Callable[[DataConfig], SplitData]


def loader_pids() -> list[int]:
    """Of this process; the fork server, which stays, and Python's tracker of resources are none."""
    children = psutil.Process().children(recursive=True)
    servers = {child.pid for child in children if child.ppid() == os.getpid()}
    return [child.pid for child in children if child.pid not in servers]


@pytest.mark.parametrize("train", [True, False])
def test_any_number_of_processes_gives_the_same_batches(root: Path, train: bool, opened: Open) -> None:
    none, one, four = (list(pass_over(opened(config(root, loader_workers=n)), train=train)) for n in (0, 1, 4))
    assert [len(batch["image"]) for batch in none] == [4, 4, 4, 2]
    assert same(none, one) and same(none, four)


def test_an_epoch_is_the_same_after_others_after_a_stop_and_in_a_resumed_run(root: Path, opened: Open) -> None:
    kept, fresh = opened(config(root, loader_workers=2)), opened(config(root))
    list(pass_over(kept, epoch=0))
    list(islice(pass_over(kept, epoch=1), 1))
    through, resumed = list(pass_over(kept, epoch=2)), list(pass_over(fresh, epoch=2))
    assert same(through, resumed)
    assert not same(resumed, list(pass_over(fresh, epoch=1)))


def test_two_training_workers_together_see_the_rows_of_one_step_by_step(root: Path) -> None:
    data = load_dataset(config(root), "train")
    alone = list(pass_over(data))
    shares = [list(pass_over(data, worker=worker, workers=2)) for worker in (0, 1)]
    for step, batch in enumerate(alone):
        for name, values in batch.items():
            together = torch.empty_like(values)
            together[0::2], together[1::2] = (share[step][name] for share in shares)
            assert torch.equal(values, together)


def test_training_and_evaluation_share_their_processes(root: Path) -> None:
    splits = load_datasets(config(root, loader_workers=2), ("train", "val"))
    with closing(splits["train"]):
        for split, data in splits.items():
            alone = list(pass_over(load_dataset(config(root), split), train=False))
            assert same(list(pass_over(data, train=False)), alone)
        assert len(loader_pids()) == 2
    assert loader_pids() == []


def test_a_pass_that_another_has_ended_says_so_and_gives_no_batch_of_it(root: Path, opened: Open) -> None:
    for processes in (0, 1):
        data = opened(config(root, loader_workers=processes))
        first, second = pass_over(data), pass_over(data, epoch=1)
        next(first)
        next(second)
        with pytest.raises(RuntimeError, match="another pass over the data has begun"):
            next(first)


@pytest.mark.parametrize("processes", [0, 1])
def test_a_damaged_file_is_told_in_one_sentence_whoever_read_it(tmp_path: Path, processes: int, opened: Open) -> None:
    path = nyud_tree(tmp_path) / "images" / "train0003.jpg"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError) as caught:
        list(pass_over(opened(config(tmp_path, loader_workers=processes)), train=False))
    assert str(caught.value).startswith(f"{path}: cannot be read as a picture, it is damaged or cut off (")
    assert "Traceback" not in str(caught.value) and "\n" not in str(caught.value)


def test_processes_end_when_an_exception_leaves_the_loop(root: Path) -> None:
    with pytest.raises(ZeroDivisionError), closing(load_dataset(config(root, loader_workers=2), "train")) as data:
        for _ in pass_over(data):
            assert len(loader_pids()) == 2
            raise ZeroDivisionError
    assert loader_pids() == []


READ_AND_WAIT = """
import sys, time, psutil
from faar_ray.config.data_section import DataConfig
from faar_ray.data import load_dataset

if __name__ == "__main__":
    data = load_dataset(DataConfig.model_validate_json(sys.argv[1]), "train")
    batches = data.batches(batch_size=1, seed=0, epoch=0, train=True)
    next(batches)
    print(*[child.pid for child in psutil.Process().children(recursive=True)], flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize(
    "how",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGTERM, marks=pytest.mark.faults),
        pytest.param(signal.SIGINT, marks=pytest.mark.faults),
    ],
)
def test_no_process_outlives_a_reader_that_is_killed(root: Path, tmp_path: Path, how: signal.Signals) -> None:
    script = tmp_path / "read.py"
    script.write_text(READ_AND_WAIT)
    described = config(root, loader_workers=2).model_dump_json()
    with subprocess.Popen([sys.executable, str(script), described], stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        processes = [psutil.Process(int(pid)) for pid in reader.stdout.readline().split()]
        reader.send_signal(how)
    assert len(processes) == 4  # two, their server, and Python's tracker of resources
    _, alive = psutil.wait_procs(processes, timeout=ENDS_WITHIN_S)
    assert alive == []


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    few, many = (
        load_dataset(config(nyud_tree(tmp_path / str(n), n, 1, (192, 256)), image_size=[192, 256]), "train")
        for n in (10, 110)
    )

    def peak_mb(data: SplitData) -> float:
        memory, seen = PeakMemory(torch.device("cpu")), 0
        for batch in pass_over(data):
            seen += len(batch["image"])
        assert seen == len(data)
        return memory.mb()

    of_few = max(peak_mb(few), peak_mb(few))
    whole_mb = 100 * sum(values.nbytes for values in few[0].values()) / 2**20
    assert whole_mb > 150
    assert peak_mb(many) - of_few < whole_mb / 4


def test_batches_are_where_they_are_asked_for_and_sizes_stay(root: Path) -> None:
    data = load_dataset(config(root, image_size=64), "val")
    batch = next(pass_over(data, train=False, original=True, device=torch.device("meta")))
    assert {name: values.device.type for name, values in batch.items()} == {
        **dict.fromkeys(("image", *TASKS), "meta"),
        "label_size": "cpu",
    }


def test_for_an_accelerator_the_next_batch_is_read_while_one_is_used() -> None:
    second_is_asked_for = Event()

    def read() -> Iterator[dict[str, Tensor]]:
        yield {"image": torch.zeros(1)}
        second_is_asked_for.set()
        yield {"image": torch.ones(1)}
        raise DataError("the third is damaged")

    batches = ready_on(torch.device("meta"), read())
    assert next(batches)["image"].device.type == "meta"
    assert second_is_asked_for.wait(ENDS_WITHIN_S)  # though nobody has taken it yet
    next(batches)
    with pytest.raises(DataError, match="the third is damaged"):
        next(batches)


def test_memory_is_pinned_beside_a_gpu_only(root: Path) -> None:
    data: Any = load_dataset(config(root), "train")
    assert data._loader._open().pin_memory == torch.cuda.is_available()


@pytest.mark.gpu
def test_batches_on_a_gpu_are_those_of_the_cpu(root: Path, opened: Open) -> None:
    data = opened(config(root, loader_workers=2))
    there = [{name: values.cpu() for name, values in b.items()} for b in pass_over(data, device=torch.device("cuda"))]
    assert same(there, list(pass_over(data)))


def test_without_a_gpu_auto_takes_no_more_processes_than_the_trial_has_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    found = {}
    for threads in (1, 2, 16):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found[threads] = automatic_processes()
    assert found == {1: 0, 2: 1, 16: 4}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert automatic_processes() == 4
