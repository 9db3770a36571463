"""A small search space, and a driver without Ray that plays a search from invented metrics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from faar_ray.config.trial import merge_sections
from faar_ray.tune.propose.journal import open_journal
from faar_ray.tune.propose.proposer import Proposer
from faar_ray.tune.run.jobs import Job, control_jobs
from faar_ray.tune.run.references import References
from faar_ray.tune.search_state import SearchState
from faar_ray.tune.space.space import SearchSpace

TINY: dict[str, Any] = {
    "version": 1,
    "name": "tiny",
    "base": {
        "data": {
            "tasks": ["semseg", "normals"],
            "image_size": 32,
            "train_images": 32,
            "val_images": 16,
            "test_images": 16,
        },
        "backbone": {"pretrained": False},
        "ranks": {"init_rank": 4},
        "optim": {"epochs": 3, "batch_size": 8, "warmup_steps": 2},
    },
    "parameters": {"pdrs.rho_shared": {"min": 0.5, "max": 0.99, "scale": "log1m", "prior": 0.95}},
    "objectives": [{"name": "delta_m", "goal": "maximize"}, {"name": "trainable_params", "goal": "minimize"}],
    "references": {"semseg": 40.0, "normals": 20.0},
    "search": {"startup_trials": 2, "share_prefixes": False},
    "scheduler": {"min_epochs": 1, "reduction": 2},
    "budget": {"trials": 6},
}

CONDITIONAL: dict[str, Any] = {
    # named before what it depends on: the method, by its preset
    "decoder.cutoff": {"min": 0.1, "max": 0.9, "when": {"decoder.kind": "ts_pd"}},
    "method": {"values": ["faar", "dora", "pdrs_lora"], "prior": "faar"},
    "decoder.filter": {"values": ["grid", "radial"], "when": {"method": "faar"}, "prior": "radial"},
    "decoder.expansion": {"min": 1, "max": 4, "when": {"decoder.filter": "radial", "decoder.kind": "ts_pd"}},
    "pdrs.rho_shared": {"min": 0.5, "max": 0.99, "scale": "log1m", "when": {"ranks.kind": ["pdrs"]}, "prior": 0.95},
    "optim.lr": {"min": 1e-4, "max": 1e-2, "log": True},
}

Metrics = dict[str, float]
Trainer = Callable[[Job, int], Metrics]


def tiny_space(**over: Any) -> SearchSpace:
    """The small space with sections replaced or added."""
    return SearchSpace.model_validate(merge_sections(TINY, over))


def conditional_space(parameters: dict[str, Any] = CONDITIONAL, **over: Any) -> SearchSpace:
    """The small space with parameters of which some are conditional."""
    return SearchSpace.model_validate({**TINY, "parameters": parameters, **over})


def write_space(path: Path, **over: Any) -> Path:
    """The same as a file."""
    path.write_text(yaml.safe_dump(merge_sections(TINY, over), sort_keys=False))
    return path


def invented(job: Job, epoch: int) -> Metrics:
    """More rank, more quality and more parameters; a pure function of the trial, as training is."""
    rho = job.config.pdrs.rho_shared
    return {"delta_m": 10 * rho - 0.3 * job.config.seed + epoch, "trainable_params": 1e5 * (1 + rho) - 100 * epoch}


class Driver:
    """Plays Ray: takes jobs from the search_state, one epoch of every open job in turn."""

    def __init__(
        self, space: SearchSpace, journal: Path, train: Trainer = invented, concurrent: int = 1, **search_state: Any
    ):
        self.study = open_journal(journal, space.name, space.study_objectives)
        self.proposer = Proposer(space, self.study)
        references = search_state.pop("references", None) or References(space, self.proposer.results(), journal.parent)
        self.search_state = SearchState(
            space, self.proposer, references, control_jobs(space), concurrent=concurrent, **search_state
        )
        self.train = train
        self.open: dict[str, tuple[Job, int]] = {}
        self.order: list[str] = []

    def run(self) -> Driver:
        """Until the search_state is finished."""
        while not self.search_state.finished():
            self.take()
            for name in list(self.open):
                self.step(name)
        return self

    def take(self) -> None:
        """All jobs that the search_state hands out now."""
        while (job := self.search_state.next_job()) is not None:
            self.search_state.resources_acquired(job.trial_id)
            self.open[job.trial_id] = (job, 0)
            self.order.append(job.trial_id)

    def step(self, name: str) -> None:
        """One epoch of an open job, trained or replayed."""
        job, epoch = self.open[name]
        if job.role == "prefix" and epoch == job.epochs - job.leave_end:
            self.search_state.prefix_trained(name)
            del self.open[name]
            self.search_state.ended(name)
            return
        metrics = self.train(job, epoch)
        if "error" in metrics:
            self.search_state.failed(name, "it broke")
        else:
            done = epoch + 1 == (job.pause_after or job.config.optim.epochs)  # a prefix ends in the next step
            stop = False if done else bool(self.search_state.stop_reason(name, epoch, metrics))
            self.search_state.epoch(name, epoch, metrics)
            if not done and not stop:
                self.open[name] = (job, epoch + 1)
                return
        del self.open[name]
        self.search_state.ended(name)


@pytest.fixture(scope="session")
def space() -> Callable[..., SearchSpace]:
    """Makes small search spaces."""
    return tiny_space


@pytest.fixture(scope="session")
def conditional() -> Callable[..., SearchSpace]:
    """Makes small search spaces with conditional parameters."""
    return conditional_space


@pytest.fixture(scope="session")
def space_file() -> Callable[..., Path]:
    """Writes small search spaces."""
    return write_space


@pytest.fixture(scope="session")
def trainer() -> Trainer:
    """Invents the metrics of a trial's epoch."""
    return invented


@pytest.fixture
def driver(tmp_path: Path) -> Callable[..., Driver]:
    """Makes drivers over one journal."""

    def make(space: SearchSpace, journal: Path | None = None, **options: Any) -> Driver:
        return Driver(space, journal or tmp_path / "study.log", **options)

    return make
