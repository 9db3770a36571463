"""A run's folder as a search leaves it, with plausible numbers, through the real writers."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faar_ray.config.trial import TrialConfig, config_id
from faar_ray.records import RankRecord, Role, State, TrialResult
from faar_ray.report.results import write_results
from faar_ray.tracking.files.rank_trace import write_rank_trace
from faar_ray.tracking.mlflow.writer import Tracker

TASKS = ("semseg", "human_parts", "normals")
EPOCHS = 6
SPACE = """version: 1
name: rho
base:
  data: {name: scenes, tasks: [semseg, human_parts, normals]}
  ranks: {init_rank: 16}
  pdrs: {beta: 0.95, start_epoch: 1, free_epochs: 3}
parameters:
  pdrs.rho_shared: {min: 0.3, max: 0.99, scale: log1m, prior: 0.95}
objectives:
  - {name: delta_m, goal: maximize}
  - {name: trainable_params, goal: minimize}
"""
SEARCHED = {0.95: (0, 1), 0.312: (0,), 0.803: (0, 1), 0.987: (0, 1), 0.564: (0,)}
PRUNED = {0.35: 3, 0.42: 2}
CONTROLS: tuple[tuple[dict[str, Any], float, int], ...] = (
    ({"method": "dora", "ranks.init_rank": 16}, -0.9, 426_000),
    ({"method": "dora", "ranks.init_rank": 4}, -3.9, 117_000),
    ({"method": "lora", "ranks.init_rank": 16}, -1.9, 184_000),
)
SEED_EFFECT = {0: 0.6, 1: -0.9}


def rank_records(rho: float, epochs: int, seed: int) -> Iterator[RankRecord]:
    """A plausible trace: deeper and task-specific layers keep more; shrinks after epochs 1 and 2."""
    dice, now = random.Random(f"{rho} {seed}"), dict[tuple[int, int, str, str], int]()
    for epoch in range(epochs):
        for stage, block, layer, task in sites():
            before = now.get((stage, block, layer, task), 16)
            share = rho ** (1.2 - 0.2 * stage) * (
                0.62 + 0.08 * stage + 0.1 * (task != "shared") + dice.uniform(-0.1, 0.1)
            )
            rank = max(1, min(before, round(before * min(share, 1)))) if epoch in (1, 2) else before
            scores = sorted((dice.random() ** 3 for _ in range(before)), reverse=True)
            kept = math.fsum(scores[:rank]) / math.fsum(scores)
            applied = rho if epoch in (1, 2) else 1.0
            now[stage, block, layer, task] = rank
            params = rank * 48 * 2**stage
            yield RankRecord(
                epoch, stage, block, layer, task, before, rank, "adapter", applied, kept, tuple(scores), 0, params
            )


def sites() -> Iterator[tuple[int, int, str, str]]:
    """(stage, block, layer, task) of a 2-2-2-2 backbone."""
    for stage in range(4):
        for block in range(2):
            for layer in ("qkv", "proj", "fc1", "fc2"):
                if (stage, block) != (3, 1) or layer == "qkv":
                    yield stage, block, layer, "shared"
                if block == 1 and layer != "qkv":
                    yield from ((stage, block, layer, task) for task in TASKS)


def quality(rho: float) -> tuple[float, int]:
    """delta_m and adapter parameters at a coverage rho, near the measured ones."""
    return -2.8 - 6.5 * (1 - rho) ** 1.15, round(40_000 + 380_000 * rho**3.2)


def make_run(folder: Path, uri: str) -> Path:
    """A finished search: 8 complete trials, 2 pruned, 1 failed, 3 controls, 3 references; gives `folder/rho`."""
    run, tracker = folder / "rho", Tracker(uri, "rho")
    (run / "rank_trace").mkdir(parents=True)
    (run / "space.yaml").write_text(SPACE)
    parent = tracker.start_search("rho", SPACE, {}, seed=0)
    results = [*_references(tracker), *_trials(run, tracker), *_controls(tracker)]
    write_results(run / "results.parquet", results)
    facts = {
        "name": "rho",
        "tracking_uri": tracker.uri,
        "parent_run_id": parent,
        "objectives": [{"name": "delta_m", "goal": "maximize"}, {"name": "trainable_params", "goal": "minimize"}],
    }
    (run / "run.json").write_text(json.dumps(facts))
    tracker.end_search("FINISHED")
    return run


def _trials(run: Path, tracker: Tracker) -> Iterator[TrialResult]:
    for number, (rho, seeds) in enumerate(SEARCHED.items()):
        for seed in seeds:
            yield _one(run, tracker, f"t{number:03d}-s{seed}", rho, seed, "COMPLETE", EPOCHS, "")
    for number, (rho, epochs) in enumerate(PRUNED.items(), start=len(SEARCHED)):
        reason = f"asha: delta_m among the lowest third after epoch {epochs - 1}"
        yield _one(run, tracker, f"t{number:03d}-s0", rho, 0, "PRUNED", epochs, reason)
    reason = "semseg: loss is not finite at step 31 (lr too high?)"
    yield _one(run, tracker, "t007-s0", 0.71, 0, "FAIL", 1, reason)


def _one(
    run: Path, tracker: Tracker, trial: str, rho: float, seed: int, state: State, epochs: int, reason: str
) -> TrialResult:
    config = TrialConfig.resolve({"seed": seed}, **{"pdrs.rho_shared": rho})
    params = {"pdrs.rho_shared": rho}
    run_id = tracker.start_trial(trial, config, params, "trial")
    records = list(rank_records(rho, epochs, seed))
    trace = run / "rank_trace" / f"{trial}.parquet"
    write_rank_trace(trace, trial, records)
    final, adapters = quality(rho)
    dice = random.Random(trial)
    metrics: dict[str, float] = {}
    for epoch in range(epochs):
        size = adapters + (430_000 - adapters) * max(0.0, 1 - epoch / 2)
        lag = 26 * math.exp(-1.05 * epoch) + (0 if epoch == EPOCHS - 1 else 0.5)
        metrics = {
            "delta_m": final - lag + SEED_EFFECT[seed] + dice.gauss(0, 0.2),
            "params/adapters": size,
            "trainable_params": size + 96_000,
            "rank/mean": 16 * size / 430_000,
        }
        tracker.log_epochs(run_id, {epoch: metrics})
    test = {"test/delta_m": metrics["delta_m"] - 0.4 + dice.gauss(0, 0.2)} if state == "COMPLETE" else {}
    tracker.end_trial(run_id, state, metrics=test, reason=reason)
    return TrialResult(
        trial, config_id(config), seed, "trial", state, params, {**metrics, **test}, 33.0 * epochs / EPOCHS, epochs,
        run_id, reason,
    )  # fmt: skip


def _controls(tracker: Tracker) -> Iterator[TrialResult]:
    for number, (params, final, adapters) in enumerate(CONTROLS):
        config = TrialConfig.resolve({}, **params)
        run_id = tracker.start_trial(f"c{number:02d}-s0", config, params, "control")
        for epoch in range(EPOCHS):
            tracker.log_epochs(run_id, {epoch: {"delta_m": final + SEED_EFFECT[0] - 24 * math.exp(-1.1 * epoch)}})
        tracker.end_trial(run_id, "COMPLETE")
        yield _ended(f"c{number:02d}-s0", config, "control", params, run_id, {
            "delta_m": final + SEED_EFFECT[0], "params/adapters": adapters, "trainable_params": adapters + 96_000,
            "test/delta_m": final + 0.1,
        })  # fmt: skip


def _references(tracker: Tracker) -> Iterator[TrialResult]:
    for task, metric, value in zip(TASKS, ("miou", "miou", "mean_angle"), (61.2, 48.9, 17.3), strict=True):
        config = TrialConfig.resolve({"method": "single_task"}, **{"data.tasks": [task]})
        run_id = tracker.start_trial(f"ref-{task}", config, {}, "reference")
        tracker.end_trial(run_id, "COMPLETE", metrics={f"val/{task}/{metric}": value})
        yield _ended(f"ref-{task}", config, "reference", {}, run_id, {f"val/{task}/{metric}": value})


def _ended(
    trial: str, config: TrialConfig, role: Role, params: dict[str, Any], run_id: str, metrics: dict[str, float]
) -> TrialResult:
    return TrialResult(trial, config_id(config), 0, role, "COMPLETE", params, metrics, 28.0, EPOCHS, run_id)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search with its MLflow database; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("search")
    return make_run(folder / "runs", f"sqlite:///{folder}/mlflow.db")
