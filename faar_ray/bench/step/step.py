"""`bench step`: whole training steps (forward, backward, AdamW) of several variants against the floor, interleaved.

Only ratios within one process mean something on a shared machine: each row alternates with the floor, step by step,
and its ratio is the median over these pairs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import yaml
from pydantic import ValidationError
from rich.table import Table
from torch.optim import AdamW, Optimizer
from torch.utils.flop_counter import FlopCounterMode

from faar_ray.adapters import adapters_of
from faar_ray.bench.output import print_result
from faar_ray.bench.step.variants import PEFT, VARIANTS, Setting, build, peft_is_there
from faar_ray.config.trial import TrialConfig
from faar_ray.config.validation_messages import issues_of
from faar_ray.errors import ConfigError
from faar_ray.ranks import shrink
from faar_ray.train.memory import PeakMemory
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


class Stepper:
    """A model, its optimizer and one batch: `step()` is one training step."""

    def __init__(self, setting: Setting, device: torch.device) -> None:
        self.device = InProcess(device).device
        self.model = build(setting).to(device).train()
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer: Optimizer = AdamW(trained, lr=1e-5, fused=True)
        side = setting.image_size
        self.bf16 = setting.precision == "bf16"
        self.forward = compiled(self.model) if setting.compiled else self.model
        self.image = torch.randn(setting.batch, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)

    def step(self) -> float:
        """Forward, backward, AdamW; returns milliseconds."""
        self._wait()
        started = time.perf_counter()
        self._backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._wait()
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
        with FlopCounterMode(display=False) as counter:
            self._backward()
        self.optimizer.zero_grad(set_to_none=True)
        return float(counter.get_total_flops()) / 2

    def trainable_params(self) -> int:
        """Numbers that the optimizer moves."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def run(args: argparse.Namespace) -> None:
    """`bench step`: measure what the arguments ask for, and print it.

    Raises:
        ConfigError: a device that is not there, a backbone that is no Swin, or keys that do not fit.
    """
    if not args.backbone.startswith("swin_"):
        raise ConfigError(f"--backbone: must be swin_micro or a timm Swin (swin_*), got {args.backbone!r}")
    if args.device != "cpu" and not torch.cuda.is_available():
        raise ConfigError(f"--device: must be cpu where torch sees no accelerator, got {args.device!r}")
    if args.threads:
        torch.set_num_threads(args.threads)

    variants = VARIANTS if args.method is None else {args.method: {"method": args.method, **keys_of(args.set)}}
    try:
        for keys in variants.values():
            TrialConfig.resolve({}, **keys)
    except ValidationError as error:
        issues = issues_of(error, TrialConfig, {})
        raise ConfigError("; ".join(f"{issue.name}: {issue.text}" for issue in issues)) from None

    base = Setting("", args.rank, args.backbone, args.image_size, args.batch, args.precision, args.compile)
    options = {"shrunk": args.shrunk, "pairs": args.pairs, "memory": not args.no_memory}
    result = measure_steps(base, variants, device=torch.device(args.device), **options)
    print_result(args, result, table_of(result))


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
    variants: dict[str, dict[str, Any]],
    *,
    shrunk: int,
    pairs: int,
    memory: bool,
    device: torch.device,
) -> dict[str, Any]:
    """The whole comparison as plain data, DESIGN.md's `bench step --json`."""
    floor_setting = replace(base, variant="floor", rank=0)
    floor = Stepper(floor_setting, device)
    floor_macs = None if base.compiled else floor.macs()
    floor_ms: list[float] = []
    rows = []
    for setting in _settings(base, variants):
        for rank, stepper in _at_ranks(setting, shrunk, device):
            taken = _interleaved(floor.step, stepper.step, pairs)
            floor_ms += [of_floor for of_floor, _ in taken]
            peak = _peak_mb(setting, rank, device) if memory else None
            macs = None if floor_macs is None else stepper.macs() / floor_macs
            rows.append(_row(setting.variant, rank, taken, macs, peak, stepper))
            del stepper
    peak = _peak_mb(floor_setting, 0, device) if memory else None
    middle = statistics.median(floor_ms)
    rows.insert(0, Row("floor", 0, middle, 1.0, peak, floor.trainable_params(), 1.0))
    return {
        "device": device.type if device.type == "cpu" else torch.cuda.get_device_name(device),
        "threads": torch.get_num_threads(),
        "image_size": base.image_size,
        "batch": base.batch,
        "floor_ms": middle,
        "rows": [asdict(row) for row in rows],
        **({"precision": base.precision} if base.precision != "fp32" else {}),
        **({"compiled": True} if base.compiled else {}),
    }


def _settings(base: Setting, variants: dict[str, dict[str, Any]]) -> Iterator[Setting]:
    for variant, keys in variants.items():
        yield replace(base, variant=variant, keys=keys)
    if variants.keys() == VARIANTS.keys() and peft_is_there():
        yield replace(base, variant=PEFT)


def _at_ranks(setting: Setting, shrunk: int, device: torch.device) -> Iterator[tuple[int, Stepper]]:
    """At the start's rank, then after shrinking; PEFT cannot shrink, so it starts anew."""
    stepper = Stepper(setting, device)
    yield setting.rank, stepper
    if shrunk >= setting.rank or (setting.variant != PEFT and not any(adapters_of(stepper.model))):
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
    variant: str,
    rank: int,
    taken: list[tuple[float, float]],
    macs: float | None,
    peak_mb: float | None,
    stepper: Stepper,
) -> Row:
    ms = statistics.median(of_variant for _, of_variant in taken)
    ratio = statistics.median(of_variant / of_floor for of_floor, of_variant in taken)
    return Row(variant, rank, ms, ratio, peak_mb, stepper.trainable_params(), macs)


def _peak_mb(setting: Setting, rank: int, device: torch.device) -> float:
    """Peak of a fresh process; on an accelerator, of its memory."""
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
    table = Table("variant", "rank", "ms", "ratio to floor", "by MACs", "peak MB", "trainable", title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in result["rows"]:
        peak = "-" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}"
        table.add_row(
            row["variant"],
            str(row["rank"] or "-"),
            f"{row['ms']:.0f}",
            f"{row['ratio']:.2f}",
            "-" if row["macs_ratio"] is None else f"{row['macs_ratio']:.2f}",
            peak,
            f"{row['trainable_params']:,}",
        )
    return table
