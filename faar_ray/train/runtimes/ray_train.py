"""One trial on several workers under Ray Train; whoever asks gets the same epochs as from `fit` in one process.

The trainer runs in a thread of the caller. Worker 0 sends every epoch through a mailbox and goes on when the caller
asks for the next one, as a generator in one process does: a stopped trial has trained no epoch more than it reported.
The controller says who it is as soon as it starts, so that it can be ended at any time, also before the first report.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import ray
import torch
from ray.exceptions import GetTimeoutError, RayActorError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2.api.exceptions import WorkerGroupError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from faar_ray.cluster.ray_cluster import QUIET, set_defaults
from faar_ray.cluster.ray_internals import free_placement_groups_of_dead_actors
from faar_ray.errors import FaarRayError, StorageError
from faar_ray.storage.run_location import trial_paths
from faar_ray.train.checkpoint import records_from_plain
from faar_ray.train.fit import Epochs, fit_spec
from faar_ray.train.runtimes.distributed import Distributed
from faar_ray.train.runtimes.mailbox import Mailbox, Message
from faar_ray.train.spec import check_folder

LOST_THE_OTHERS = ("Connection closed by peer", "Connection reset by peer", "DistBackendError", "NCCL error")
"""What torch.distributed says in a worker when another one has gone."""
Handle = Any
"""Of a Mailbox: Ray's own annotations do not know its methods."""
POLL_S = 0.5
START_S, ABORT_S = 30.0, 5.0
"""How long a controller may take to say who it is, and to end itself, before it is killed."""


class TrialFault(FaarRayError):
    """What a person must mend, raised in a worker."""


class WorkerLost(RuntimeError):
    """A worker died or raised; trying again may help."""


class _Introduction(ControllerCallback):
    """Runs in the controller: tells the trial's owner who the controller is."""

    def __init__(self, mailbox: Handle) -> None:
        self.mailbox = mailbox

    def after_controller_start(self, train_run_context: Any) -> None:
        """Before any worker is asked for."""
        ray.get(self.mailbox.put.remote(("controller", ray.get_runtime_context().current_actor)))


class _Trainer(TorchTrainer):
    """Without Ray's detached watcher of placement groups, which needs the dashboard; here `stop` frees them."""

    def _create_default_callbacks(self) -> list[Any]:
        made = super()._create_default_callbacks()  # type: ignore[misc]
        return [callback for callback in made if not isinstance(callback, PlacementGroupCleanerCallback)]


def work_with(mailbox: Handle) -> Callable[[dict[str, Any]], None]:
    """What each worker does: the loop, as in one process."""

    def work(spec: dict[str, Any]) -> None:
        torch.set_num_threads(spec["threads"])
        runtime = Distributed(get_device())
        try:
            check_folder(spec)
            _send_epochs(fit_spec(spec, runtime), mailbox if runtime.rank == 0 else None)
        except StorageError as fault:  # nobody's fault here: the search ends, and goes on by --resume
            ray.get(mailbox.put.remote(("storage", str(fault))))
            raise
        except FaarRayError as fault:  # trying again would fail again
            ray.get(mailbox.put.remote(("fault", str(fault))))
            raise

    return work


def _send_epochs(epochs: Epochs, mailbox: Handle | None) -> None:
    while True:
        try:
            record = next(epochs)
        except StopIteration as end:
            if mailbox is not None:
                ray.get(mailbox.put.remote(("end", end.value)))
            return
        if mailbox is not None:  # the others wait for worker 0 in their next collective
            ray.get(mailbox.put.remote(("epoch", asdict(record))))
            ray.get(mailbox.until_wanted.remote(record.epoch + 1))


class TrainRun:
    """The epochs of one trial, trained by several workers.

    Args:
        spec: of the trial, plain values; `workers`, `threads`, `gpus_per_worker` say how.
    """

    def __init__(self, spec: Mapping[str, Any]) -> None:
        set_defaults(QUIET)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._mailbox: Handle = ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()
        self._scratch = trial_paths(spec).folder / ".ray"
        self._controller: Any = None
        self._fault: BaseException | None = None
        share = spec["gpus_per_worker"]
        self._trainer = _Trainer(
            work_with(self._mailbox),
            train_loop_config=dict(spec),
            torch_config=TorchConfig(backend="gloo" if share < 1 else None),  # NCCL refuses two workers on one GPU
            scaling_config=ScalingConfig(
                num_workers=spec["workers"],
                use_gpu=share > 0,
                resources_per_worker={"CPU": spec["threads"]} | ({"GPU": share} if share else {}),
            ),
            run_config=RunConfig(
                name=spec["trial_id"],
                storage_path=str(self._scratch),
                callbacks=[_Introduction(self._mailbox)],  # type: ignore[list-item]
                failure_config=FailureConfig(max_failures=0),  # the caller tries again, from the trial's checkpoint
            ),
        )
        self._thread = threading.Thread(target=self._fit, name=f"trainer of {spec['trial_id']}", daemon=True)
        self._thread.start()

    def _fit(self) -> None:
        try:
            self._trainer.fit()
        except BaseException as fault:
            self._fault = fault

    def epochs(self) -> Epochs:
        """Every epoch from 0, then what `fit` returns; closing it frees the workers.

        Raises:
            TrialFault: what a person must mend.
            StorageError: the run's place cannot be written.
            WorkerLost: a worker died or raised.
        """
        try:
            while True:
                kind, message = self._next()
                if kind == "fault":
                    raise TrialFault(message)
                if kind == "storage":
                    raise StorageError(message)
                if kind == "end":
                    self._thread.join(START_S)
                    found: dict[str, float] = message
                    return found
                (record,) = records_from_plain([message])
                yield record
                ray.get(self._mailbox.want.remote(record.epoch + 1))
        finally:
            self.stop()

    def _next(self) -> Message:
        """The next letter for the caller; the controller's is kept."""
        while True:
            alive = self._thread.is_alive()
            letter: Message | None = ray.get(self._mailbox.take.remote(POLL_S))
            if letter is None and not alive:
                raise WorkerLost(_why(self._fault)) from None
            if letter is None:
                continue
            if letter[0] != "controller":
                return letter
            self._controller = letter[1]

    def stop(self) -> None:
        """Free the workers and their placement group, whenever this is called."""
        if self._thread.is_alive():
            self._find_controller()
        if self._thread.is_alive() and self._controller is not None:
            try:
                ray.get(self._controller.abort.remote(), timeout=ABORT_S)
            except GetTimeoutError:
                ray.kill(self._controller)
            except RayActorError:
                pass  # it is gone, as wanted
            self._thread.join(ABORT_S)
        free_placement_groups_of_dead_actors()
        ray.kill(self._mailbox)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _find_controller(self) -> None:
        waited = 0.0
        while self._controller is None and self._thread.is_alive() and waited < START_S:
            letter = ray.get(self._mailbox.take.remote(POLL_S))
            if letter is None:
                waited += POLL_S
            elif letter[0] == "controller":
                self._controller = letter[1]


def _why(fault: BaseException | None) -> str:
    """What ended the workers, in one line; a worker that only lost the others is not the one to ask."""
    if isinstance(fault, WorkerGroupError) and fault.worker_failures:
        said = {rank: _last_line(cause) for rank, cause in sorted(fault.worker_failures.items())}
        first = {rank: line for rank, line in said.items() if not any(mark in line for mark in LOST_THE_OTHERS)} or said
        rank, line = next(iter(first.items()))
        return f"worker {rank} of {len(said)} that failed: {line}"
    return f"the workers ended without a word ({type(fault).__name__}: {fault})" if fault else "the workers ended"


def _last_line(cause: BaseException) -> str:
    if isinstance(cause, RayActorError):
        return "its process died (killed, or out of memory)"
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[-1] if lines else type(cause).__name__
