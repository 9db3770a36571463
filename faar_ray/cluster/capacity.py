"""The CPUs and GPUs that a trial needs and that machines offer, and how many trials run at once."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from faar_ray.config.run_sections import Resources
from faar_ray.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Node:
    """CPUs and GPUs of one machine."""

    cpus: float
    gpus: float


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many trials run at once, and why."""

    concurrent: int
    """With all machines that may be added."""
    why: str
    now: int
    """On the machines alive."""


def this_machine() -> Node:
    """CPUs that this process may use (affinity and cgroup quota) and its visible NVIDIA GPUs."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    if visible is not None:
        gpus = min(gpus, len([name for name in visible.split(",") if name.strip() not in ("", "-1")]))
    return Node(max(1, min(len(os.sched_getaffinity(0)), _quota())), gpus)


def capacity(
    need: Resources, nodes: Sequence[Node], coming: Sequence[Node] = (), *, one: str = "this machine"
) -> Capacity:
    """How many trials fit at once; a worker runs on one machine, a trial may use several.

    Args:
        need: resources of a trial.
        nodes: machines alive.
        coming: machines that an autoscaler may add.
        one: name of a single machine in error messages.

    Raises:
        ConfigError: not even one trial fits on all of them; with the shortfall.
    """
    now, later = (sum(workers_on(need, node) for node in group) for group in (nodes, coming))
    total = (now + later) // need.workers
    if total == 0:
        raise ConfigError(_shortfall(need, [*nodes, *coming], now + later, len(coming), one))

    why = f"{format_need(need)}, {_supply(nodes, coming)}"
    if need.max_concurrent == "auto":
        return Capacity(total, why, now // need.workers)
    if need.max_concurrent < total:
        why = f"resources.max_concurrent; {total} would fit: {why}"
        return Capacity(need.max_concurrent, why, min(need.max_concurrent, now // need.workers))
    more = "" if need.max_concurrent == total else f", so resources.max_concurrent {need.max_concurrent} is not reached"
    return Capacity(total, why + more, now // need.workers)


def format_need(need: Resources) -> str:
    """A trial's resources as text."""
    worker = _format_resources(need.cpus_per_worker, need.gpus_per_worker)
    return f"a trial needs {worker if need.workers == 1 else f'{need.workers} workers of {worker}'}"


def format_supply(nodes: Sequence[Node]) -> str:
    """The sum of the machines' resources as text."""
    return _format_resources(sum(node.cpus for node in nodes), sum(node.gpus for node in nodes))


def _supply(nodes: Sequence[Node], coming: Sequence[Node]) -> str:
    total = format_supply(nodes)
    text = f"there {'is' if total == '1 CPU' else 'are'} {total}"
    if not coming:
        return text
    more = f"{len(coming)} machine{'s' if len(coming) > 1 else ''} may be added: {format_supply([*nodes, *coming])}"
    return f"{text} now, {more} in all" if nodes else f"{more} in all"


def workers_on(need: Resources, node: Node) -> int:
    """Workers that fit on a machine."""
    by_cpu = math.floor(node.cpus / need.cpus_per_worker)
    if not need.gpus_per_worker:
        return by_cpu
    whole = need.gpus_per_worker >= 1
    shares = math.floor(1 / need.gpus_per_worker + 1e-9) if not whole else 0
    by_gpu = math.floor(node.gpus / need.gpus_per_worker) if whole else math.floor(node.gpus) * shares
    return min(by_cpu, by_gpu)


def _shortfall(need: Resources, nodes: Sequence[Node], workers: int, coming: int, one: str) -> str:
    cpus, gpus = max((node.cpus for node in nodes), default=0), max((node.gpus for node in nodes), default=0)
    short = []
    if need.cpus_per_worker > cpus:
        short.append(f"cpus_per_worker: {need.cpus_per_worker} CPUs, at most {cpus:g} on one machine")
    if need.gpus_per_worker > gpus:
        short.append(f"gpus_per_worker: {need.gpus_per_worker:g} GPUs, at most {gpus:g} on one machine")
    if not short and 0 < workers < need.workers:
        each = _format_resources(need.cpus_per_worker, need.gpus_per_worker)
        short.append(f"workers: {need.workers} of {each} each, {workers} would fit")
    where = one if len(nodes) == 1 else f"any of {len(nodes)} machines"
    if workers:
        where = where.replace("any of", "all of")
    if coming:
        where += f" ({coming} of them not started yet)" if len(nodes) > 1 else " (not started yet)"
    what = "; ".join(short) or "its CPUs and GPUs are on different machines"
    return f"resources: no trial can ever start on {where}: {what}"


def _format_resources(cpus: float, gpus: float) -> str:
    text = f"{cpus:g} CPU{'s' if cpus != 1 else ''}"
    return f"{text} and {gpus:g} GPU{'s' if gpus != 1 else ''}" if gpus else text


def _quota() -> int:
    """CPUs of the cgroup's quota, rounded up; 65536 without a quota."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):
        return 1 << 16
