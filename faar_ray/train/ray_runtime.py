"""One trial on several workers under Ray Train; whoever asks gets the same epochs as from `fit` in one process.

The trainer runs in a thread of the caller. Its controller says who it is as soon as it starts, so that it can be
aborted at any time, also before the first report: workers and their placement group are then freed at once, where
letting go of the trainer alone would leave them behind.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import torch
from ray import train as ray_train
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchTrainer, get_device
from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.util.queue import Empty, Queue

from faar_ray.config import TrialConfig
from faar_ray.errors import FaarRayError
from faar_ray.records import EpochRecord
from faar_ray.tracking.place import place_of_trial
from faar_ray.train.checkpoint import records_from_plain
from faar_ray.train.distributed import Distributed
from faar_ray.train.fit import fit

POLL_S = 0.2
START_S = 30.0
"""How long a controller may take to start before a stop gives up on it."""
ABORT_S = 20.0


class TrialFault(FaarRayError):
    """What a person must mend, raised in a worker."""


class _Messenger(UserCallback, ControllerCallback):
    """Runs in the controller: tells the trial's owner who the controller is, and every epoch."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue

    def after_controller_start(self, train_run_context: Any) -> None:
        self.queue.put(("controller", ray.get_runtime_context().current_actor))

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        self.queue.put(("report", metrics[0]))


def work(spec: Mapping[str, Any]) -> None:
    """What each worker does."""
    torch.set_num_threads(spec["threads"])
    runtime, place = Distributed(get_device()), place_of_trial(spec)
    try:
        for record in fit(
            TrialConfig.model_validate(spec["config"]),
            place.folder,
            trial_id=spec["trial_id"],
            trace=place.trace,
            references=spec["references"],
            keep_checkpoints=spec["keep_checkpoints"],
            runtime=runtime,
            twin=place.twin,
        ):
            ray_train.report({"record": asdict(record)})
    except FaarRayError as fault:  # raised on every worker alike; trying again would fail again
        ray_train.report({"fault": str(fault)})


class TrainRun:
    """The epochs of one trial, trained by several workers.

    Args:
        spec: of the trial, plain values; `workers`, `threads`, `gpus_per_worker` say how.
        scratch: folder for Ray Train's own bookkeeping.
    """

    def __init__(self, spec: Mapping[str, Any], scratch: Path) -> None:
        self.spec = dict(spec)
        self._queue = Queue(actor_options={"num_cpus": 0})
        self._controller: Any = None
        self._fault: BaseException | None = None
        self._trainer = TorchTrainer(
            work,
            train_loop_config=self.spec,
            scaling_config=ScalingConfig(
                num_workers=spec["workers"],
                use_gpu=spec["gpus_per_worker"] > 0,
                resources_per_worker={"CPU": spec["threads"], "GPU": spec["gpus_per_worker"]},
            ),
            run_config=RunConfig(
                name=spec["trial_id"],
                storage_path=str(scratch),
                callbacks=[_Messenger(self._queue)],  # type: ignore[list-item]
                failure_config=FailureConfig(max_failures=spec["max_retries"]),
            ),
        )
        self._thread = threading.Thread(target=self._fit, name=f"trainer of {spec['trial_id']}", daemon=True)
        self._thread.start()

    def _fit(self) -> None:
        try:
            self._trainer.fit()
        except BaseException as fault:
            self._fault = fault

    def epochs(self) -> Iterator[EpochRecord]:
        """Every epoch from 0, each once, whatever was retried in between.

        Raises:
            TrialFault: what a person must mend.
        """
        seen = -1
        while True:
            kind, message = self._next()
            if kind == "end":
                return
            if kind == "controller":
                self._controller = message
            elif "fault" in message:
                raise TrialFault(message["fault"])
            else:
                (record,) = records_from_plain([message["record"]])
                if record.epoch > seen:
                    seen = record.epoch
                    yield record

    def _next(self) -> tuple[str, Any]:
        while True:
            alive = self._thread.is_alive()
            try:
                kind, message = self._queue.get(timeout=POLL_S)
                return kind, message
            except Empty:
                if alive:
                    continue
                if self._fault is not None:
                    raise self._fault from None
                return "end", None

    def stop(self) -> None:
        """Free the workers and their placement group, whenever this is called."""
        if self._thread.is_alive():
            self._find_controller()
        if self._thread.is_alive() and self._controller is not None:
            try:
                ray.get(self._controller.abort.remote(), timeout=ABORT_S)
            except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
                ray.kill(self._controller)
        self._queue.shutdown(force=True)

    def _find_controller(self) -> None:
        waited = 0.0
        while self._controller is None and self._thread.is_alive() and waited < START_S:
            try:
                kind, message = self._queue.get(timeout=POLL_S)
            except Empty:
                waited += POLL_S
                continue
            if kind == "controller":
                self._controller = message
