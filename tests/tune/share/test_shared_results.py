"""Whole searches with real trainings, without Ray: what each trial gives with shared prefixes and without, bit for bit.

Of the shipped spaces those that share, on few images; for the others `test_stages` shows that nothing is shared.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from faar_ray.records import MEASURED
from faar_ray.storage.run_location import RunLocation
from faar_ray.tracking.files.rank_trace import read_rank_trace
from faar_ray.train import trial_sink
from faar_ray.train.fit import fit
from faar_ray.train.fork import begin_as_fork
from faar_ray.tune.propose import journal
from faar_ray.tune.propose.proposer import Proposer
from faar_ray.tune.run.jobs import Job, RunContext, control_jobs
from faar_ray.tune.run.references import References
from faar_ray.tune.search_state import SearchState
from faar_ray.tune.space.space import SearchSpace, read_space

SOURCE = Path(__file__).parents[3] / "search_spaces"
SMALL = (
    "data.train_images=20",
    "data.val_images=8",
    "data.test_images=8",
    "data.image_size=32",
    "backbone.pretrained=false",
    "ranks.init_rank=4",
    "optim.warmup_steps=2",
    "references={semseg: 40, human_parts: 30, normals: 20}",
)
BETA = ("search.seeds=1", "optim.epochs=5", "data.tasks=[semseg, normals]", "references={semseg: 40, normals: 20}")


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes as long as an epoch of these trials."""
    monkeypatch.setattr(trial_sink, "draw_pictures", lambda paths, title: False)


class Trained:
    """A search whose jobs are trained one after another in this process."""

    def __init__(self, space: SearchSpace, folder: Path) -> None:
        folder.mkdir()
        self.space, self.place = space, RunLocation(folder)
        self.study = journal.open_journal(folder / "study.log", space.name, space.objectives)
        proposer = Proposer(space, self.study)
        self.references = References(space, [], folder)
        self.state = SearchState(
            space, proposer, self.references, control_jobs(space), concurrent=1, remove_prefix=self.remove
        )
        self.epochs = 0
        """That were trained."""
        self.prefixes: list[str] = []
        while not self.state.finished():
            job = self.state.next_job()
            assert job is not None
            self.train(job)
        self.results = proposer.results()

    def remove(self, name: str) -> None:
        """The files of a prefix."""
        shutil.rmtree(self.place.trial(name).folder)

    def train(self, job: Job) -> None:
        """As an actor does."""
        self.prefixes += [job.trial_id] if job.role == "prefix" else []
        self.epochs += job.epochs - job.inherited
        around = RunContext(self.place, self.space.resources, self.space.storage.keep_checkpoints)
        spec = around.spec(job, self.state.references.val, self.state.references.test)
        if spec.parent:
            begin_as_fork(spec)
        epochs = fit(spec)
        while True:
            try:
                record = next(epochs)
            except StopIteration as end:
                break_with = dict(end.value)
                break
            self.state.epoch(job.trial_id, record.epoch, record.metrics)
        if job.role == "prefix":
            self.state.prefix_trained(job.trial_id)
        self.state.record_test_metrics(job.trial_id, break_with)
        self.state.ended(job.trial_id)

    def found(self) -> Iterator[tuple[Any, ...]]:
        """What may not depend on sharing: all but time, memory, and which row counts an epoch."""
        on_test = journal.tests(self.study)
        for r in self.results:
            metrics = {name: value for name, value in r.metrics.items() if not name.startswith(MEASURED)}
            trace = read_rank_trace(self.place.trial(r.trial_id).trace).to_pylist()
            yield r.trial_id, r.config_id, r.state, r.params, r.reached, metrics, on_test[r.trial_id], trace


def both(space_with: Callable[[bool], SearchSpace], folder: Path) -> Trained:
    """Run a search with and without sharing, compare, and give the one that shared."""
    shared, alone = (Trained(space_with(share), folder / f"share-{share}") for share in (True, False))
    assert list(shared.found()) == list(alone.found())
    assert shared.prefixes
    assert not alone.prefixes
    assert shared.epochs == sum(result.epochs for result in shared.results) < alone.epochs
    assert not list((folder / "share-True" / "trials").glob("p*"))
    return shared


def test_trials_of_a_small_space_end_as_they_would_alone(space: Callable[..., SearchSpace], tmp_path: Path) -> None:
    """Trials that part after epoch 1 of 3, one in three seeds, a control beside them, early stopping, and beta."""
    over = {
        "base": {"pdrs": {"start_epoch": 1}, "backbone": {"drop_path": 0.2}},
        "parameters": {"pdrs.beta": {"values": [0.5, 0.98]}},
        "controls": [{"pdrs.scope": "pooled"}],
        "scheduler": {"type": "none"},
        "budget": {"trials": 3},
    }
    both(lambda share: space(**over, search={"share_prefixes": share, "sampler": "random"}), tmp_path)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("name", "over"), [("rho", ()), ("beta", BETA)])
def test_trials_of_a_shipped_space_end_as_they_would_alone(name: str, over: tuple[str, ...], tmp_path: Path) -> None:
    def space_with(share: bool) -> SearchSpace:
        return read_space(SOURCE / f"{name}.yaml", [*SMALL, *over, f"search.share_prefixes={str(share).lower()}"])

    both(space_with, tmp_path)
