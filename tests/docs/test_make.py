"""The documents' tables of lists of methods, and of steps."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from faar_ray.config.presets.methods import PRESETS
from faar_ray.objectives.metrics import Objective
from faar_ray.records import TrialResult
from faar_ray.report.progress import Progress
from faar_ray.report.source import Search

ROOT = Path(__file__).parents[2]
PARTS = {"params/adapters": 200e3, "params/decoder": 49_459.0, "params/norms": 4_272.0, "params/other": 2_836.0}
SPACE = {
    "base": {"data": {"name": "nyud", "root": "NYUD_MT", "tasks": ["semseg", "depth"], "image_size": [96, 128],
                      "absent_classes": "zero", "depth_floor": 1e-9}},
    "search": {"sampler": "points", "seeds": 2},
}  # fmt: skip


@cache
def make() -> Any:
    spec = importlib.util.spec_from_file_location("make", ROOT / "docs" / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make"] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def search_of(**rows: dict[str, float]) -> Search:
    """A list of a row per method on two seeds, with a single-task model of depth."""
    results = [TrialResult("ref", "ref", 0, "reference", "COMPLETE", {}, {"test/depth/rmse": 0.8, **PARTS,
               "trainable_params": 3e6}, 60.0, 5)]  # fmt: skip
    for method, metrics in rows.items():
        for seed in (0, 1):
            measured = {
                "delta_m": -1.0 + seed,
                "test/delta_m": -2.0 + seed,
                "test/depth/rmse": 0.9,
                "test/semseg/miou": 31.0,
                "trainable_params": 256_567.0,
                "memory/peak_mb": 512.0,
                **metrics,
            }
            name = f"{method}-s{seed}"
            results.append(TrialResult(name, method, seed, "trial", "COMPLETE", {"method": method}, measured, 90.0, 5))
    goals = (Objective(name="delta_m", goal="maximize"),)
    return Search(Path(), "list", "", "", goals, yaml.safe_dump(SPACE), results, {}, Progress("finished", 4, {}, 0, ""))


def test_a_list_has_quality_with_intervals_parts_and_costs_and_its_head_names_the_conventions() -> None:
    search = search_of(
        decoder_only={**PARTS, "time/step_ms": 20.0}, lora={**PARTS, "time/step_ms": 30.0, "delta_m": 5.0}
    )
    head, _, columns, _, reference, *rows = list(make().list_lines(search, {}))
    assert "0 equals single-task models" in head
    assert "96 x 128 pixels" in head
    assert "data.protocol: search" in head
    assert "all classes, absent ones as 0" in head
    assert "predictions raised to 1e-09" in head
    assert columns == (
        "| configuration | delta_m, val | delta_m, test | semseg, test: miou (%) | depth, test: rmse (m) | trainable "
        "| adapters | norms | decoder | rest of the backbone | step | peak MiB | minutes |"
    )
    assert reference == "| single-task models | 0 | 0 |  | 0.800 | 3M | 200k | 4.27k | 49.5k | 2.84k |  |  | 1.0 |"
    assert rows[0] == (
        "| lora | 5.0 ± 0.0 | -1.5 ± 6.4 | 31.0 | 0.900 | 257k | 200k | 4.27k | 49.5k | 2.84k | 1.50x | 512 | 1.5 |"
    )
    assert rows[1].startswith("| decoder_only | -0.5 ± 6.4 | -1.5 ± 6.4 |")
    assert "1.00x" in rows[1]


def test_records_without_parts_have_no_columns_of_them_and_steps_of_their_own_run_no_minutes() -> None:
    lines = list(make().list_lines(search_of(decoder_only={}, lora={}), {"decoder_only": 10.0, "lora": 25.0}))
    assert lines[2].endswith("| trainable | step | peak MiB |")
    assert lines[6].endswith("| 257k | 2.50x | 512 |")


def test_a_picture_has_the_rows_of_its_table(tmp_path: Path) -> None:
    search = search_of(decoder_only={"time/step_ms": 20.0}, lora={"time/step_ms": 30.0})
    make().draw_costs(search, {}, tmp_path / "list.png")
    assert (tmp_path / "list.png").stat().st_size > 10_000


def test_every_preset_has_a_family_in_the_picture() -> None:
    families = make().FAMILIES
    for method in PRESETS.keys() - {"single_task"}:
        assert next(f for f, parts in families.items() if any(part in method for part in parts)) != "others", method


def test_names_in_the_picture_tell_rows_of_one_method_apart() -> None:
    config, name = make().Config, make().names_by_method
    params = [
        {"method": "mtlora", "ranks.kind": "fixed"}, {"method": "mtlora", "ranks.kind": "pdrs"},
        {"method": "ditask", "placement.reductions": "frozen"},
    ]  # fmt: skip
    assert name([config(str(i), "trial", p, ()) for i, p in enumerate(params)]) == [
        "mtlora, kind fixed", "mtlora, kind pdrs", "ditask",
    ]  # fmt: skip


def test_steps_are_a_row_per_variant_with_and_without_ranks() -> None:
    row = {"peak_mb": 2500.4, "trainable_params": 8_344_634, "macs_ratio": 2.0}
    result = {"device": "cpu", "threads": 1, "image_size": 448, "batch": 2, "floor_ms": 1234.5, "rows": [
        {**row, "variant": "floor", "rank": 0, "ratio": 1.0}, {**row, "variant": "mtlora", "rank": 64, "ratio": 1.894},
        {**row, "variant": "mtlora", "rank": 5, "ratio": 1.65},
    ]}  # fmt: skip
    lines = list(make().step_lines(result))
    assert lines[2] == "|  | rank 64 | rank 5 | by MACs, rank 64 | peak MB, rank 64 | trainable |"
    assert lines[4:] == [
        "| `floor` | 1.00 |  | 2.00 | 2,500 | 8.34M |",
        "| `mtlora` | 1.89 | 1.65 | 2.00 | 2,500 | 8.34M |",
    ]
