"""One trial on several workers under Ray Train, with the same epochs as from `fit` in one process.

The trainer runs in a thread of the caller. Worker 0 sends every epoch through a mailbox and continues when the caller
asks for the next one, like a generator in one process: a stopped trial has trained no epoch more than it reported.
The controller sends its handle as soon as it starts, so that it can be ended at any time, also before the first report.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable
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
from faar_ray.tracking.files.finish import finish_trial_files
from faar_ray.train.fit import Epochs, fit, warn_of_skips
from faar_ray.train.runtimes.distributed import Distributed
from faar_ray.train.runtimes.mailbox import Mailbox, Message
from faar_ray.train.trial_spec import TrialSpec

PEER_LOSS_MARKS = ("Connection closed by peer", "Connection reset by peer", "DistBackendError", "NCCL error")
"""In torch.distributed's error in a worker when another worker has died."""
MailboxHandle = Any
"""Ray's annotations do not know the actor's methods."""
POLL_S = 0.5
START_S, ABORT_S = 30.0, 5.0
"""How long a controller may take to send its handle, and to end itself, before it is killed."""
log = logging.getLogger(__name__)


class TrialFault(FaarRayError):
    """An error that a person must mend, raised in a worker."""


class WorkerLost(RuntimeError):
    """A worker died or raised; trying again may help."""


class _SendHandle(ControllerCallback):
    """Runs in the controller and sends its handle to the trial's owner."""

    def __init__(self, mailbox: MailboxHandle) -> None:
        self.mailbox = mailbox

    def after_controller_start(self, train_run_context: Any) -> None:
        """Called before any worker is requested."""
        ray.get(self.mailbox.put.remote(("controller", ray.get_runtime_context().current_actor)))


class _Trainer(TorchTrainer):
    """Without Ray's detached cleaner of placement groups, which needs the dashboard; `TrainRun.stop` frees them."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()  # type: ignore[misc]
        return [callback for callback in callbacks if not isinstance(callback, PlacementGroupCleanerCallback)]


def training_loop(mailbox: MailboxHandle) -> Callable[[dict[str, Any]], None]:
    """The function that each worker runs."""

    def train(plain: dict[str, Any]) -> None:
        spec = TrialSpec.from_dict(plain)
        torch.set_num_threads(spec.threads)
        runtime = Distributed(get_device())
        try:
            spec.check_folder()
            _send_epochs(fit(spec, runtime), mailbox if runtime.rank == 0 else None)
        except StorageError as error:  # no fault of the trial: the search ends, and continues by --resume
            ray.get(mailbox.put.remote(("storage", str(error))))
            raise
        except FaarRayError as error:  # trying again would fail again
            ray.get(mailbox.put.remote(("fault", str(error))))
            raise

    return train


def _send_epochs(epochs: Epochs, mailbox: MailboxHandle | None) -> None:
    while True:
        try:
            record = next(epochs)
        except StopIteration as end:
            if mailbox is not None:
                ray.get(mailbox.put.remote(("end", end.value)))
            return
        if mailbox is not None:  # the others wait for worker 0 in their next collective
            ray.get(mailbox.put.remote(("epoch", record)))
            ray.get(mailbox.wait_for_request.remote(record.epoch + 1))


class TrainRun:
    """The epochs of one trial, trained by several workers.

    Args:
        spec: the trial.
    """

    def __init__(self, spec: TrialSpec) -> None:
        set_defaults(QUIET)
        this_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._mailbox: MailboxHandle = ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=this_node).remote()
        self._spec = spec
        self._scratch = spec.paths.folder / ".ray"
        self._controller: Any = None
        self._error: BaseException | None = None

        share = spec.gpus_per_worker
        self._trainer = _Trainer(
            training_loop(self._mailbox),
            train_loop_config=spec.to_dict(),
            torch_config=TorchConfig(backend="gloo" if share < 1 else None),  # NCCL refuses two workers on one GPU
            scaling_config=ScalingConfig(
                num_workers=spec.workers,
                use_gpu=share > 0,
                resources_per_worker={"CPU": spec.threads} | ({"GPU": share} if share else {}),
            ),
            run_config=RunConfig(
                name=spec.trial_id,
                storage_path=str(self._scratch),
                callbacks=[_SendHandle(self._mailbox)],  # type: ignore[list-item]
                failure_config=FailureConfig(max_failures=0),  # the caller tries again, from the trial's checkpoint
            ),
        )
        self._thread = threading.Thread(target=self._fit, name=f"trainer of {spec.trial_id}", daemon=True)
        self._thread.start()

    def _fit(self) -> None:
        try:
            self._trainer.fit()
        except BaseException as error:
            self._error = error

    def epochs(self) -> Epochs:
        """Every epoch from 0, then what `fit` returns; closing it frees the workers and completes the trial's files.

        Raises:
            TrialFault: an error that a person must mend.
            StorageError: the run's files cannot be read or written.
            WorkerLost: a worker died or raised.
        """
        try:
            while True:
                kind, content = self._next()
                if kind == "fault":
                    raise TrialFault(content)
                if kind == "storage":
                    raise StorageError(content)
                if kind == "end":
                    self._thread.join(START_S)
                    return dict(content)
                warn_of_skips(content)  # the worker's own warning stays on its machine
                yield content
                ray.get(self._mailbox.request_epoch.remote(content.epoch + 1))
        finally:
            self.stop()
            self._finish_files()

    def _finish_files(self) -> None:
        """Workers that were stopped or died could not complete the trial's files."""
        if self._spec.stop_after is not None:
            return
        try:
            finish_trial_files(self._spec.paths, self._spec.title)
        except FaarRayError as error:
            log.warning("%s: its files are not complete (%s)", self._spec.paths.folder, error)

    def _next(self) -> Message:
        """The next message for the caller; the controller's handle is stored."""
        while True:
            alive = self._thread.is_alive()
            message: Message | None = ray.get(self._mailbox.take.remote(POLL_S))
            if message is None and not alive:
                raise WorkerLost(reason_of_loss(self._error)) from None
            if message is None:
                continue
            if message[0] != "controller":
                return message
            self._controller = message[1]

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
                pass  # it has ended
            self._thread.join(ABORT_S)
        free_placement_groups_of_dead_actors()
        ray.kill(self._mailbox)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _find_controller(self) -> None:
        waited = 0.0
        while self._controller is None and self._thread.is_alive() and waited < START_S:
            message = ray.get(self._mailbox.take.remote(POLL_S))
            if message is None:
                waited += POLL_S
            elif message[0] == "controller":
                self._controller = message[1]


def reason_of_loss(error: BaseException | None) -> str:
    """What ended the workers, in one line; a worker that failed because it lost another one is not the cause."""
    if isinstance(error, WorkerGroupError) and error.worker_failures:
        lines = {rank: _last_line(cause) for rank, cause in sorted(error.worker_failures.items())}
        causes = {r: line for r, line in lines.items() if not any(mark in line for mark in PEER_LOSS_MARKS)} or lines
        rank, line = next(iter(causes.items()))
        return f"worker {rank} of {len(lines)} that failed: {line}"
    return f"the workers ended without a reason ({type(error).__name__}: {error})" if error else "the workers ended"


def _last_line(cause: BaseException) -> str:
    if isinstance(cause, RayActorError):
        return "its process died (killed, or out of memory)"
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[-1] if lines else type(cause).__name__
