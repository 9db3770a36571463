"""One trial outside a search: its folder, its MLflow run, and the loop between them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch

from faar_ray.errors import ConfigError
from faar_ray.records import EpochRecord, State
from faar_ray.tracking.atomic import replacing
from faar_ray.tracking.mlflow_writer import Tracker
from faar_ray.train.capacity import capacity, this_machine
from faar_ray.train.fit import fit_spec
from faar_ray.train.preflight import preflight
from faar_ray.trial_file import TrialFile


class Session:
    """`<storage.path>/<name>/trials/<trial_id>/`, as a search writes it, and one MLflow run.

    Raises:
        ConfigError: the folder exists and `resume` is off, or the reverse.
    """

    def __init__(self, file: TrialFile, name: str, *, resume: bool) -> None:
        self.file, self.config = file, file.config
        self.trial_id = f"t000-s{file.seed}"
        self.run_folder = (Path(file.storage.path).expanduser() / name).absolute()
        self.folder = self.run_folder / "trials" / self.trial_id
        if self.folder.exists() and not resume:
            raise ConfigError(f"name: {self.folder} exists; go on with it by --resume, or give another name=NAME")
        if resume and not self.folder.exists():
            raise ConfigError(f"--resume: there is no {self.folder}; start without --resume")
        preflight(self.config, file.resources.workers)
        capacity(file.resources, [this_machine()])
        self._tracker = Tracker(file.tracking.uri, file.tracking.experiment or name)
        self.tracking_uri = self._tracker.uri
        self.run_id = self._tracker.start_trial(self.trial_id, self.config, {}, "trial", self._known_run())
        with replacing(self.folder / "run.json") as scratch:
            scratch.write_text(json.dumps({"run_id": self.run_id, "tracking_uri": self.tracking_uri}) + "\n")

    def _known_run(self) -> str | None:
        path = self.folder / "run.json"
        if not path.exists():
            return None
        known: dict[str, str] = json.loads(path.read_text())
        return known["run_id"] if known["tracking_uri"] == self.tracking_uri else None

    def epochs(self) -> Iterator[EpochRecord]:
        """Train; every epoch is in MLflow before it is yielded, and the run never stays RUNNING."""
        state: State = "FAIL"
        reason = ""
        try:
            for record in self._trained():
                self._tracker.log_epoch(self.run_id, record.epoch, record.metrics)
                yield record
            state = "COMPLETE"
            self._tracker.log_rank_trace(self.run_id, self.trace, f"{self.run_folder.name}/{self.trial_id}")
        except (KeyboardInterrupt, GeneratorExit):
            state, reason = "PRUNED", "interrupted"
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise
        finally:
            self._tracker.end_trial(self.run_id, state, artifacts=[self.folder / "adapter.safetensors"], reason=reason)

    @property
    def trace(self) -> Path:
        """The rank trace."""
        return self.run_folder / "rank_trace" / f"{self.trial_id}.parquet"

    def _trained(self) -> Iterator[EpochRecord]:
        """In this process, or on several workers under Ray Train."""
        need = self.file.resources
        spec = {
            "trial_id": self.trial_id,
            "config": self.config.model_dump(mode="json"),
            "folder": str(self.folder),
            "trace": str(self.trace),
            "references": self.file.references,
            "test_references": None,
            "test": False,
            "workers": need.workers,
            "threads": need.cpus_per_worker,
            "gpus_per_worker": need.gpus_per_worker,
            "keep_checkpoints": self.file.storage.keep_checkpoints,
        }
        if need.workers == 1:
            torch.set_num_threads(need.cpus_per_worker)
            yield from fit_spec(spec)
            return
        from faar_ray.train.ray_cluster import connected  # seconds to import
        from faar_ray.train.ray_runtime import TrainRun

        with connected(None):
            yield from TrainRun(spec).epochs()
