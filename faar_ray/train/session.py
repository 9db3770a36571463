"""One trial outside a search: its folder, its MLflow run, and the loop between them."""

from __future__ import annotations

import json
from collections.abc import Iterator

from faar_ray.errors import ConfigError, StorageError
from faar_ray.records import EpochRecord, State
from faar_ray.tracking.atomic import check_writable, storing
from faar_ray.tracking.mlflow_writer import Tracker
from faar_ray.tracking.place import place_of
from faar_ray.tracking.remote import ATTEMPTS_AT_START, Remote
from faar_ray.train.fit import fit
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
        self.place = place_of(file.storage.path, name)
        self.here = self.place.trial(self.trial_id)
        self.folder, called = self.here.folder, self.place.below("trials", self.trial_id)
        exists = self._exists()
        if exists and not resume:
            raise ConfigError(f"name: {called} exists; go on with it by --resume, or give another name=NAME")
        if resume and not exists:
            raise ConfigError(f"--resume: there is no {called}; start without --resume")
        preflight(self.config)
        check_writable(self.folder)
        self.here.twin.pull()
        self._tracker = Tracker(file.tracking.uri, file.tracking.experiment or name)
        self.tracking_uri = self._tracker.uri
        self.run_id = self._tracker.start_trial(self.trial_id, self.config, {}, "trial", self._known_run())
        with storing(self.folder / "run.json") as scratch:
            scratch.write_text(json.dumps({"run_id": self.run_id, "tracking_uri": self.tracking_uri}) + "\n")
        self.here.twin.push()

    def _exists(self) -> bool:
        if not self.place.uri:
            return self.folder.exists()
        remote = Remote(self.place.uri, ATTEMPTS_AT_START)
        remote.check()
        return bool(remote.files(f"trials/{self.trial_id}"))

    def _known_run(self) -> str | None:
        path = self.folder / "run.json"
        if not path.exists():
            return None
        try:
            known: dict[str, str] = json.loads(path.read_text())
            return known["run_id"] if known["tracking_uri"] == self.tracking_uri else None
        except (OSError, ValueError, KeyError, TypeError):  # cut or damaged: a new view of the same trial
            return None

    def epochs(self) -> Iterator[EpochRecord]:
        """Train; every epoch is in MLflow before it is yielded, and the run never stays RUNNING."""
        state: State = "FAIL"
        reason = ""
        try:
            for record in fit(
                self.config,
                self.folder,
                trial_id=self.trial_id,
                trace=self.here.trace,
                references=self.file.references,
                keep_checkpoints=self.file.storage.keep_checkpoints,
                twin=self.here.twin,
            ):
                self._tracker.log_epoch(self.run_id, record.epoch, record.metrics)
                yield record
            state = "COMPLETE"
            self._tracker.log_rank_trace(self.run_id, self.here.trace, f"{self.place.path.name}/{self.trial_id}")
        except (KeyboardInterrupt, GeneratorExit):
            state, reason = "PRUNED", "interrupted"
            raise
        except StorageError as error:
            state, reason = "PRUNED", str(error)
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise
        finally:
            self._tracker.end_trial(self.run_id, state, artifacts=[self.folder / "adapter.safetensors"], reason=reason)
