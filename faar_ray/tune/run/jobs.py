"""A job: one (config, seed) that Ray trains, and its state while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from faar_ray.config.null_values import value_words
from faar_ray.config.paths import weights_path
from faar_ray.config.run_sections import Resources
from faar_ray.config.trial import TrialConfig, config_id
from faar_ray.records import Role, State, TrialResult
from faar_ray.storage.run_location import RunLocation
from faar_ray.train.trial_spec import TrialSpec
from faar_ray.tune.space.front import KIND, POINT, Point
from faar_ray.tune.space.space import SearchSpace

SHARDS = "data"
"""Folder of the shards below `storage.path`; no run there may have this name."""


@dataclass(frozen=True, slots=True)
class Job:
    """One trial of the search, one control, one reference, or a prefix: the beginning that trials share."""

    trial_id: str
    role: Role
    config: TrialConfig
    params: Mapping[str, Any]
    """Searched keys and their values; of a control, the keys it sets; of a reference, its task."""
    number: int | None = None
    """Optuna's number; None for controls and references."""
    replicate: bool = False
    """A leading configuration on one more seed."""
    cached: bool = False
    """A reference that an earlier search trained."""
    pause_after: int | None = None
    """Finished epochs after which it waits for its population, without a machine; None where it never waits."""
    parent: str = ""
    """Trial whose checkpoint it goes on from, "" for none."""
    inherited: int = 0
    """Epochs of that checkpoint."""
    redo: bool = False
    """Whether it makes the end of the last of these epochs anew, under its own config."""
    keep_epochs: tuple[int, ...] = ()
    """Numbers of finished epochs whose checkpoints are kept for forks."""
    trunk: int | None = None
    """Of a point: Optuna's number of its trunk, in whose trial it is written down."""
    betas: tuple[float, ...] = ()
    """Values of `pdrs.beta` whose scores are carried along for forks."""
    shared: bool = False
    """Whether its parent is a prefix: what it inherits is what it would have trained."""
    paid: int = 0
    """Of the epochs that it inherits, those that are counted as its own, for it is the first that begins with them."""
    stop_after: int | None = None
    """Of a prefix: the epochs that it trains."""
    leave_end: bool = False
    """Of a prefix: whether it leaves the end of the last of these to each fork."""

    @property
    def epochs(self) -> int:
        """After which it ends by itself."""
        return self.config.optim.epochs if self.stop_after is None else self.stop_after

    @property
    def title(self) -> str:
        """Its id and what its config sets."""
        values = format_params(self.params.items())
        return f"{self.trial_id}: {values}" if values else self.trial_id

    @property
    def may_stop_early(self) -> bool:
        """Whether early stopping applies: not to replicates, controls and references."""
        return self.role == "trial" and not self.replicate


def point_job(space: SearchSpace, trunk: Job, point: Point) -> Job:
    """A point of a trunk: its config with a smaller size, an ordinary trial that begins with the trunk's checkpoint."""
    params = {**trunk.params, **point.keys()}
    config = space.trial_config({**params, KIND: POINT, "seed": trunk.config.seed})
    name = f"{trunk.trial_id}-{point.name}"
    parent, inherited = trunk.trial_id, point.inherited
    return Job(name, "point", config, params, parent=parent, inherited=inherited, redo=True, trunk=trunk.number)


def trial_name(number: int, seed: int) -> str:
    """Id of a trial: its configuration's number and the seed."""
    return f"t{number:03d}-s{seed}"


def shards_uri(place: RunLocation) -> str:
    """Where a run in object storage puts the data shards: beside the runs, which share them. "" for a local run."""
    return f"{place.uri.rpartition('/')[0]}/{SHARDS}" if place.uri else ""


@dataclass(frozen=True, slots=True)
class RunContext:
    """What every trial of a search shares, beside its config."""

    place: RunLocation
    """Of the run."""
    resources: Resources
    keep_checkpoints: int
    moved: Mapping[str, str] = field(default_factory=dict)
    """`backbone.checkpoint` of configs -> the same weights' file now."""

    def spec(self, job: Job, val: Mapping[str, float], test: Mapping[str, float]) -> TrialSpec:
        """What the actor trains.

        Args:
            job: the trial.
            val: single-task references on val, task -> metric; empty for a reference itself.
            test: the same on test.
        """
        return TrialSpec(
            job.trial_id,
            job.config,
            self.place,
            references=val,
            test_references=test,
            test=job.role != "prefix",
            workers=self.resources.workers,
            threads=self.resources.cpus_per_worker,
            gpus_per_worker=self.resources.gpus_per_worker,
            keep_checkpoints=self.keep_checkpoints,
            shards_uri=shards_uri(self.place),
            pause_after=job.pause_after,
            parent=job.parent,
            inherited_epochs=job.inherited,
            redo=job.redo,
            keep_epochs=job.keep_epochs,
            betas=job.betas,
            stop_after=job.stop_after,
            leave_end=job.leave_end,
            title=job.title,
            checkpoint=self._checkpoint(job.config.backbone.checkpoint),
            sentinel_file="" if self.place.uri else str(self.place.path / "space.yaml"),
        )

    def _checkpoint(self, path: str | None) -> str:
        """Where a file of weights lies now, for processes with other working directories; "" for none."""
        return weights_path(self.moved.get(path, path)) if path else ""


@dataclass(slots=True)
class Running:
    """A job between its start and its end, in the driver."""

    job: Job
    started: float
    """Clock when it was handed to Ray, in seconds."""
    seconds_before: float = 0.0
    """Of epochs that were trained before the driver was killed."""
    trained_s: float = 0.0
    """Of its own finished epochs, whichever driver saw them; epochs that it inherited are not its own."""
    epochs: int = 0
    """Epochs known to be finished (replays included once)."""
    notified_epochs: int = 0
    """Epochs that the watchers were notified of before."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Of the last epoch."""
    test: dict[str, float] = field(default_factory=dict)
    """Of the test split, once the trial is complete."""
    journalled_epochs: int = 0
    """Epochs in the journal when the job was handed out: whether to stop after them was decided before."""
    stop_reason: str = ""
    """Set by the stopping rule or by a limit."""
    error: str = ""
    is_trained: bool = False
    """Of a prefix: to its end."""

    @property
    def waits(self) -> bool:
        """Whether it now waits for its population."""
        return self.epochs == self.job.pause_after and not (self.stop_reason or self.error)


def result_of_running(running: Running, seconds: float, run_id: str) -> TrialResult:
    """How a job has ended, or stands while it waits.

    Args:
        running: the job.
        seconds: of its own.
        run_id: of its MLflow run.
    """
    job, epochs = running.job, running.epochs
    forks = job.role == "point" or (job.shared and job.role != "prefix")  # a copy of pbt takes over its parent's epochs
    inherited = min(epochs, job.inherited - job.paid) if forks else 0
    complete = running.is_trained if job.role == "prefix" else epochs >= job.config.optim.epochs
    state: State = "COMPLETE" if complete else "PRUNED"
    reason = running.error or (running.stop_reason if state == "PRUNED" else "")
    if running.error or (state == "PRUNED" and not reason and not running.waits):
        reason = reason or f"it ended by itself after {epochs} of {job.epochs} epochs"
        state, reason = "FAIL", describe_failure(reason, job.trial_id, job.params)

    return TrialResult(
        job.trial_id,
        config_id(job.config),
        job.config.seed,
        job.role,
        state,
        dict(job.params),
        dict(running.metrics),
        seconds,
        epochs - inherited,
        run_id,
        reason,
        job.parent if forks else "",
        inherited,
    )


def reference_job(space: SearchSpace, task: str) -> Job:
    """The single-task run of a task: the whole backbone and one HRNet head, on the base's data, schedule and seed."""
    base = space.trial_config({}).model_dump(mode="json")
    raw: dict[str, Any] = {
        "method": "single_task",
        "seed": base["seed"],
        "data": base["data"] | {"tasks": [task]},
        "backbone": {key: value for key, value in base["backbone"].items() if key != "trainable"},
        "decoder": {key: base["decoder"][key] for key in ("width", "expansion")},
        "optim": base["optim"],
    }
    return Job(f"ref-{task}", "reference", TrialConfig.resolve(raw), {"data.tasks": task})


def control_jobs(space: SearchSpace) -> list[Job]:
    """The jobs of `controls`, the user's configs beside the search."""
    configs = [space.trial_config(control) for control in space.controls]
    return [
        Job(f"c{index:02d}-s{config.seed}", "control", config, control)
        for index, (config, control) in enumerate(zip(configs, space.controls, strict=True))
    ]


def config_of(space: SearchSpace, result: TrialResult) -> TrialConfig:
    """The config behind a result."""
    if result.role == "reference":
        return reference_job(space, str(result.params["data.tasks"])).config
    kind = {KIND: POINT} if result.role == "point" else {}
    return space.trial_config({**result.params, **kind, "seed": result.seed})


def job_of(space: SearchSpace, result: TrialResult) -> Job:
    """The job behind a result."""
    config = config_of(space, result)
    return Job(result.trial_id, result.role, config, result.params, parent=result.parent, inherited=result.inherited)


def format_params(params: Iterable[tuple[str, Any]], digits: int = 4) -> str:
    """(key, value) pairs for people: `optim.lr 0.001, ranks.init_rank 8`."""
    return ", ".join(
        f"{key} {value:.{digits}g}" if isinstance(value, float) else f"{key} {value_words(key, value)}"
        for key, value in params
    )


def describe_failure(reason: str, trial_id: str, params: Mapping[str, Any]) -> str:
    """The reason with the trial's id and the values that it sets."""
    values = format_params(params.items(), digits=6)
    return f"{reason} [{trial_id}{': ' if values else ''}{values}]"
