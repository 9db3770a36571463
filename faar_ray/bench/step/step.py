"""`bench step`: whole training steps (forward, backward, AdamW) of several variants against the floor, interleaved.

Only ratios within one process mean something on a shared machine: each row alternates with the floor, step by step,
and its ratio is the median over these pairs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import yaml
from pydantic import ValidationError
from rich.table import Table
from torch.optim import AdamW, Optimizer

from faar_ray.adapters import adapters_of, decompose_all
from faar_ray.bench.output import print_result
from faar_ray.bench.step.launches import launches_of, wait_for
from faar_ray.bench.step.macs import macs_of
from faar_ray.bench.step.variants import (
    FAMILIES,
    PEFT,
    VARIANTS,
    Setting,
    build,
    check_variant,
    peft_is_there,
    taken_by,
)
from faar_ray.config.trial import TrialConfig
from faar_ray.config.validation_messages import issues_of
from faar_ray.errors import ConfigError
from faar_ray.ranks import shrink
from faar_ray.train.memory import MIB, PeakMemory
from faar_ray.train.runtimes.runtime import InProcess
from faar_ray.train.trial import compiled


@dataclass(frozen=True)
class Row:
    """A measured variant at a rank."""

    variant: str
    rank: int
    ms: float
    ratio: float
    """Median over interleaved pairs of this variant's step over the floor's."""
    peak_mb: float | None
    """Largest memory of a process that does these steps and nothing else."""
    trainable_params: int
    macs_ratio: float | None
    """Like `ratio`, of the multiply-adds in matrix products and convolutions: what bounds it."""
    backbone: str
    kernels: int | None
    """GPU kernels of a step; None on a CPU."""
    operators: int | None
    """Operators of a step that compute something; None on a GPU, and where the step is compiled."""
    busy: float | None
    """Share of the step's time in which the GPU computes; None on a CPU."""


class Stepper:
    """A model, its optimizer and one batch: `step()` is one training step."""

    def __init__(self, setting: Setting, device: torch.device) -> None:
        self.device = InProcess(device).device
        self.held = torch.cuda.memory_allocated(device) if self.device.type == "cuda" else 0
        self.model = build(setting).to(device).train()
        decompose_all(self.model)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer: Optimizer = AdamW(trained, lr=1e-5, fused=True)
        side = setting.image_size
        self.bf16 = setting.precision == "bf16"
        self.forward = compiled(self.model) if setting.compiled else self.model
        self.image = torch.randn(setting.batch, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)

    def step(self) -> float:
        """Forward, backward, AdamW; returns milliseconds."""
        wait_for(self.device)
        started = time.perf_counter()
        self._backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        wait_for(self.device)
        return 1000 * (time.perf_counter() - started)

    def _backward(self) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            predictions: dict[str, torch.Tensor] = self.forward(self.image)
        torch.stack([p.float().square().mean() for p in predictions.values()]).sum().backward()

    def shrink(self, rank: int) -> None:
        """Shrink every adapter to its first components, as PDRS does."""
        for adapter in adapters_of(self.model):
            shrink(adapter, torch.arange(min(rank, adapter.rank)), self.optimizer)
        torch.compiler.reset()

    def macs(self) -> float:
        """Multiply-adds of a step, forward and backward, as torch counts them."""
        macs = macs_of(self._backward)
        self.optimizer.zero_grad(set_to_none=True)
        return macs

    def peak_mb(self) -> float:
        """Of a step on an accelerator, without what others hold there."""
        torch.cuda.reset_peak_memory_stats(self.device)
        self.step()
        return (torch.cuda.max_memory_allocated(self.device) - self.held) / MIB

    def trainable_params(self) -> int:
        """Numbers that the optimizer moves."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)


def run(args: argparse.Namespace) -> None:
    """`bench step`: measure what the arguments ask for, and print it.

    Raises:
        ConfigError: a device that is not there, a backbone that no family has, or variants or keys that do not fit.
    """
    if args.device != "cpu" and not torch.cuda.is_available():
        raise ConfigError(f"--device: must be cpu where torch sees no accelerator, got {args.device!r}")
    if args.threads:
        torch.set_num_threads(args.threads)

    backbones = tuple(FAMILIES.values()) if args.families else (args.backbone,)
    variants = variants_of(args, backbones)
    base = Setting("", args.rank, backbones[0], args.image_size, args.batch, args.precision, args.compile)
    options = {"shrunk": args.shrunk, "pairs": args.pairs, "memory": not args.no_memory}
    result = measure_steps(base, variants, device=torch.device(args.device), **options)
    print_result(args, result, table_of(result))


def variants_of(args: argparse.Namespace, backbones: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """For each backbone the variants that are asked for and that it takes.

    Raises:
        ConfigError: a backbone that no family has, or variants or keys that do not fit.
    """
    if args.method is not None:
        chosen = {args.method: {"method": args.method, **keys_of(args.set)}}
    else:
        wanted = args.only or (["faar_own"] if args.families else list(VARIANTS))
        if odd := [name for name in wanted if name not in VARIANTS and name != PEFT]:
            raise ConfigError(f"--only: must be of {', '.join([*VARIANTS, PEFT])}, got {', '.join(odd)}")
        if PEFT in wanted and not peft_is_there():
            raise ConfigError(f"--only: {PEFT} must be installed: pip install peft")
        chosen = {name: VARIANTS.get(name, {}) for name in wanted}
        if args.only is None and not args.families and peft_is_there():
            chosen[PEFT] = {}
    try:
        for keys in chosen.values():
            TrialConfig.resolve({}, **keys)
    except ValidationError as error:
        issues = issues_of(error, TrialConfig, {})
        raise ConfigError("; ".join(f"{issue.name}: {issue.text}" for issue in issues)) from None
    if args.method is not None:
        for backbone in backbones:
            check_variant(backbone, chosen[args.method])
    return {backbone: taken_by(backbone, chosen) for backbone in backbones}


def keys_of(pairs: Sequence[str]) -> dict[str, Any]:
    """`key=value` pairs, values read as YAML.

    Raises:
        ConfigError: something that is no pair.
    """
    if odd := next((pair for pair in pairs if not pair.partition("=")[1]), None):
        raise ConfigError(f"--set: must be KEY=VALUE, got {odd!r}")
    return {key: yaml.safe_load(value) for key, _, value in (pair.partition("=") for pair in pairs)}


def measure_steps(
    base: Setting,
    variants: Mapping[str, Mapping[str, dict[str, Any]]],
    *,
    shrunk: int,
    pairs: int,
    memory: bool,
    device: torch.device,
) -> dict[str, Any]:
    """The whole comparison as plain data, DESIGN.md's `bench step --json`; `variants` are of each backbone."""
    rows: list[Row] = []
    for backbone, of_backbone in variants.items():
        settings = [replace(base, backbone=backbone, variant=name, keys=keys) for name, keys in of_backbone.items()]
        floor = replace(base, backbone=backbone, variant="floor", rank=0)
        rows += _rows(floor, settings, shrunk, pairs, memory, device)
    return {
        "device": device.type if device.type == "cpu" else torch.cuda.get_device_name(device),
        "threads": torch.get_num_threads(),
        "image_size": base.image_size,
        "batch": base.batch,
        "floor_ms": rows[0].ms,
        "rows": [asdict(row) for row in rows],
        **({"precision": base.precision} if base.precision != "fp32" else {}),
        **({"compiled": True} if base.compiled else {}),
    }


def _rows(
    floor_setting: Setting,
    settings: Sequence[Setting],
    shrunk: int,
    pairs: int,
    memory: bool,
    device: torch.device,
) -> list[Row]:
    """Of one backbone: its floor, and each variant beside it."""
    floor = Stepper(floor_setting, device)
    floor_macs = None if floor_setting.compiled else floor.macs()
    floor_ms: list[float] = []
    rows = []
    for setting in settings:
        for rank, stepper in _at_ranks(setting, shrunk, device):
            taken = _interleaved(floor.step, stepper.step, pairs)
            floor_ms += [of_floor for of_floor, _ in taken]
            macs = None if floor_macs is None else stepper.macs() / floor_macs
            ms, ratio = (statistics.median(values) for values in zip(*((v, v / f) for f, v in taken), strict=True))
            rows.append(_row(setting, rank, ms, ratio, macs, stepper, memory))
            del stepper
    middle = statistics.median(floor_ms or [floor.step()])
    return [_row(floor_setting, 0, middle, 1.0, 1.0, floor, memory), *rows]


def _at_ranks(setting: Setting, shrunk: int, device: torch.device) -> Iterator[tuple[int, Stepper]]:
    """At the start's rank, then after shrinking; PEFT cannot shrink, so it starts anew. Without ranks once, at 0."""
    stepper = Stepper(setting, device)
    has_ranks = setting.variant == PEFT or any(adapters_of(stepper.model))
    yield setting.rank if has_ranks else 0, stepper
    if shrunk >= setting.rank or not has_ranks:
        return
    if setting.variant == PEFT:
        del stepper
        stepper = Stepper(replace(setting, rank=shrunk), device)
    else:
        stepper.shrink(shrunk)
    yield shrunk, stepper


def _interleaved(floor: Callable[[], float], variant: Callable[[], float], pairs: int) -> list[tuple[float, float]]:
    """Milliseconds of floor and variant in turn, after one step each to warm up."""
    floor(), variant()
    return [(floor(), variant()) for _ in range(pairs)]


def _row(
    setting: Setting, rank: int, ms: float, ratio: float, macs: float | None, stepper: Stepper, memory: bool
) -> Row:
    on_gpu = stepper.device.type == "cuda"
    counted = None if setting.compiled and not on_gpu else launches_of(stepper.step, stepper.device)
    count = None if counted is None else counted.count
    peak = None
    if memory:
        peak = stepper.peak_mb() if on_gpu else _peak_mb(setting, rank, stepper.device)
    return Row(
        setting.variant,
        rank,
        ms,
        ratio,
        peak,
        stepper.trainable_params(),
        macs,
        setting.backbone,
        count if on_gpu else None,
        None if on_gpu else count,
        None if counted is None or counted.busy_ms is None else min(1.0, counted.busy_ms / ms),
    )


def _peak_mb(setting: Setting, rank: int, device: torch.device) -> float:
    """Peak of a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_here, (setting, rank, str(device), torch.get_num_threads()))


def _peak_here(setting: Setting, rank: int, device: str, threads: int) -> float:
    torch.set_num_threads(threads)
    stepper = Stepper(setting if setting.variant != PEFT else replace(setting, rank=rank), torch.device(device))
    if 0 < rank < setting.rank and setting.variant != PEFT:
        stepper.shrink(rank)
    memory = PeakMemory(stepper.device)  # from here on: what the start's rank took is no part of it
    for _ in range(2):
        stepper.step()
    return memory.mb()


def table_of(result: dict[str, Any]) -> Table:
    """Medians, ratios and peaks for a terminal."""
    title = (
        f"step on {result['device']}, {result['threads']} threads, {result['image_size']} px, batch {result['batch']}, "
        f"{result.get('precision', 'fp32')}{', compiled' if 'compiled' in result else ''}: "
        f"floor {result['floor_ms']:.0f} ms"
    )
    on_gpu = result["device"] != "cpu"
    launches = ("GPU kernels per step", "GPU busy") if on_gpu else ("operators per step",)
    several = len({row["backbone"] for row in result["rows"]}) > 1
    first = ("backbone", "variant") if several else ("variant",)
    table = Table(*first, "rank", "ms", "ratio to floor", "by MACs", "peak MB", "trainable", *launches, title=title)
    for column, name in zip(table.columns, first, strict=False):
        column.min_width = max(len(str(row[name])) for row in result["rows"])
    for column in table.columns[len(first) :]:
        column.justify = "right"
    for row in result["rows"]:
        count = (
            _shown(row["kernels"] if on_gpu else row["operators"], ","),
            *((_shown(row["busy"], ".0%"),) if on_gpu else ()),
        )
        table.add_row(
            *((row["backbone"],) if several else ()),
            row["variant"],
            str(row["rank"] or "-"),
            f"{row['ms']:.0f}",
            f"{row['ratio']:.2f}",
            _shown(row["macs_ratio"], ".2f"),
            _shown(row["peak_mb"], ".0f"),
            f"{row['trainable_params']:,}",
            *count,
        )
    return table


def _shown(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)
