"""What a step asks of its device: GPU kernels, by torch.profiler; on a CPU the operators that compute something."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

TOP = 10
COPIES = ("Memcpy", "Memset")


@dataclass(frozen=True, slots=True)
class Launches:
    """Of one step."""

    count: int
    """Kernels on a GPU, else operators; views, which compute nothing, are none."""
    busy_ms: float | None = None
    """How long a GPU computes."""
    top: tuple[tuple[str, int, float], ...] = ()
    """The kernels that take longest: name, how many, milliseconds."""


class _Operators(TorchDispatchMode):
    """Counts operators as they reach a device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not operator.is_view
        return operator(*args, **(kwargs or {}))


def wait_for(device: torch.device) -> None:
    """Until an accelerator has done what it was asked; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def launches_of(step: Callable[[], object], device: torch.device) -> Launches:
    """Run a step that has been run before, and count."""
    if device.type != "cuda":
        with _Operators() as operators:
            step()
        return Launches(operators.count)

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        step()
        wait_for(device)
    kernels = [event for event in profiler.events() or [] if event.device_type.name == "CUDA"]
    kernels = [event for event in kernels if not event.name.startswith(COPIES)]
    by_name: dict[str, list[float]] = {}
    for event in kernels:
        by_name.setdefault(event.name, []).append(event.device_time_total / 1000)
    longest = sorted(by_name.items(), key=lambda pair: -sum(pair[1]))[:TOP]
    top = tuple((name, len(times), sum(times)) for name, times in longest)
    return Launches(len(kernels), sum(map(sum, by_name.values())), top)
