"""A trial in memory: model, optimizer, rank policy; its state can be saved and restored."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from faar_ray.adapters import decompose_all
from faar_ray.config.data_section import DataConfig
from faar_ray.config.trial import TrialConfig
from faar_ray.data import load_datasets
from faar_ray.models import (
    adapter_list,
    build_model,
    magnitude_penalty,
    parameters_by_part,
    sine_layers,
    trained_state,
)
from faar_ray.ranks import build_policy, shrink
from faar_ray.seeding import seed_of
from faar_ray.tasks import tasks_of
from faar_ray.train.checkpoint import load_trained_state
from faar_ray.train.finite import LateReader
from faar_ray.train.loss_norm import build_loss_norm
from faar_ray.train.optimizer import build_optimizer, build_scheduler
from faar_ray.train.preflight import check_last_batch
from faar_ray.train.runtimes.runtime import Runtime


def compiled(model: nn.Module) -> Callable[[Tensor], dict[str, Tensor]]:
    """The model under torch.compile; the Fourier transforms of TS-PD are not compiled, and need no warning."""
    warnings.filterwarnings("ignore", message="Torchinductor does not support code generation for complex")
    forward: Callable[[Tensor], dict[str, Tensor]] = torch.compile(model)
    return forward


class Trial:
    """Everything that changes while a trial trains, and the data that it trains on."""

    def __init__(
        self,
        config: TrialConfig,
        runtime: Runtime,
        data: DataConfig | None = None,
        checkpoint: str = "",
        betas: Sequence[float] = (),
    ) -> None:
        """Build it.

        Args:
            config: of the trial.
            runtime: one process, or a worker of several.
            data: the same as `config.data`, where this machine has them (`local_data`).
            checkpoint: where the weights of `backbone.checkpoint` lie now, "" for where the config says.
            betas: see `RankPolicy.carry`.
        """
        data = data or config.data
        self.config, self.runtime = config, runtime
        self.tasks = tasks_of(config.data)
        self.train_data, self.val_data = load_datasets(data, ("train", "val"), cached=True).values()
        self.dtype = torch.float64 if config.optim.precision == "fp64" else torch.float32
        built = config.with_checkpoint(checkpoint) if checkpoint else config
        self.model = build_model(built).to(runtime.device, self.dtype)
        decompose_all(self.model)
        self.adapters = adapter_list(self.model)
        self.sines = sine_layers(self.model)
        self.policy = build_policy(config, self.adapters)
        if betas:
            self.policy.carry(betas)
        self.steps_per_epoch = -(-len(self.train_data) // config.optim.batch_size)
        self.policy.begin(self.steps_per_epoch * config.optim.epochs)
        check_last_batch(config, len(self.train_data), runtime.world_size)
        self.scaler = torch.amp.GradScaler(runtime.device.type, enabled=config.optim.precision == "fp16")
        self.loss_norm = build_loss_norm(config.optim, len(self.tasks), runtime.device)
        self.skipped_steps = 0
        """Of the current epoch: fp16 overflowed."""
        # on a CPU a value is there at once, and under fp16 a step's gradients decide whether it counts
        waits = runtime.device.type != "cpu" and not self.scaler.is_enabled()
        self.late_reader = LateReader(config.data.tasks, self.model) if waits else None
        self._start_optimizer()
        self.wrap_model()
        # from here on drop-path and drop-out alone draw from the global generator, differently for each worker's images
        torch.manual_seed(seed_of(config.seed, "train", *([runtime.rank] if runtime.rank else [])))

    def wrap_model(self) -> None:
        """Wrap the model for training, anew after a shrink; evaluation calls the model itself."""
        if self.config.optim.compile:  # new shapes each epoch would soon reach the limit of recompilations
            torch.compiler.reset()
        self.wrapped_model = self.runtime.wrap_ddp(self.model)
        self.forward = compiled(self.wrapped_model) if self.config.optim.compile else self.wrapped_model

    def micro_batches(self, step: int) -> int:
        """Number of parts in which a step's batch is computed: as configured, but none is empty on any worker."""
        start = step % self.steps_per_epoch * self.config.optim.batch_size
        rows = min(self.config.optim.batch_size, len(self.train_data) - start)
        return min(self.config.optim.accumulate, rows // self.runtime.world_size)

    def _start_optimizer(self) -> None:
        self.optimizer = build_optimizer(self.model, self.config.optim)
        steps = self.steps_per_epoch * self.config.optim.epochs
        self.scheduler = build_scheduler(self.optimizer, self.config.optim, steps)

    def _apply_learning_rates(self) -> None:
        """Set the config's rates at the scheduler's step; a checkpoint's may be another trial's (see `fork`)."""
        rates = [
            base * factor(self.scheduler.last_epoch)
            for base, factor in zip(self.scheduler.base_lrs, self.scheduler.lr_lambdas, strict=True)
        ]
        for group, base, rate in zip(self.optimizer.param_groups, self.scheduler.base_lrs, rates, strict=True):
            group["initial_lr"], group["lr"] = base, rate
        self.scheduler._last_lr = list(rates)

    def penalty(self) -> Tensor | None:
        """What the loss of a step holds besides the tasks', the same on all workers."""
        terms = [] if (of_policy := self.policy.loss_term()) is None else [of_policy]
        if rate := self.config.adapter.magnitude_penalty:
            terms.append(rate * magnitude_penalty(self.model))
        return torch.stack(terms).sum() if terms else None

    def trainable_parameters(self) -> dict[str, float]:
        """`trainable_params`, and of these `params/adapters` (factors and magnitudes), `decoder`, `norms`, `other`."""
        parts = parameters_by_part(self.model)
        counts = {"trainable_params": sum(parts.values())}
        counts["params/adapters"] = parts.pop("adapters") + parts.pop("magnitudes")
        counts |= {f"params/{part}": count for part, count in parts.items()}
        return {name: float(count) for name, count in counts.items()}

    def close(self) -> None:
        """End the processes that read data."""
        self.train_data.close()
        self.val_data.close()

    def state(self) -> dict[str, Any]:
        """What `restore` needs; all workers call it together."""
        return {
            "config": self.config.model_dump(mode="json"),
            "weights": self.model.weights_digest,
            "ranks": [adapter.rank for adapter in self.adapters],
            "model": trained_state(self.model),
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "steps": self.scheduler.last_epoch,
            "scaler": self.scaler.state_dict(),
            "loss_norm": self.loss_norm.state_dict() if self.loss_norm is not None else {},
            "random": self.runtime.all_gather(random_states()),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become what the trial was when a checkpoint was written."""
        for adapter, rank in zip(self.adapters, state["ranks"], strict=True):
            shrink(adapter, torch.arange(rank))
        self._start_optimizer()  # over the shrunken parameters
        load_trained_state(self.model, state["model"])

        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.last_epoch = state["steps"]
        self._apply_learning_rates()
        self.scaler.load_state_dict(state["scaler"])
        if self.loss_norm is not None:
            self.loss_norm.load_state_dict(state["loss_norm"])

        self.wrap_model()
        set_random_states(state["random"][min(self.runtime.rank, len(state["random"]) - 1)])


def random_states() -> list[torch.Tensor]:
    """States of torch's global generators: CPU, then the current accelerator if any."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_available() else [])]


def set_random_states(states: list[torch.Tensor]) -> None:
    """Undo `random_states`, as far as there are generators."""
    torch.set_rng_state(states[0])
    if torch.cuda.is_available() and len(states) > 1:
        torch.cuda.set_rng_state(states[1])
