"""A campaign of kills: small searches, one SIGKILL in each, and what was lost.

A search recovers when it ends with the trials, states, ranks and metrics of the undisturbed one. Its trial in progress
may train one epoch again, the one that was cut off; nothing may be left behind.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from rich.table import Table

from faar_ray.bench.faults.search_harness import SPACE, SearchFailed, SearchHarness, SearchRecord, Target, inject_fault
from faar_ray.bench.faults.watch import MOMENTS, Moment, Trigger, Watch, draw_trigger
from faar_ray.bench.local_cluster import LocalCluster, local_cluster
from faar_ray.bench.output import Notify, notifier, print_result, working_folder

TARGETS: dict[int, tuple[Target, ...]] = {
    1: ("driver", "trial", "node", "raylet"),
    2: ("driver", "trial", "worker", "node", "raylet"),
}
ON_CLUSTER = ("node", "raylet")
LIMIT_S = 400.0


@dataclass
class FaultResult:
    """One kill and its consequences."""

    target: Target
    moment: Moment
    trial: str = ""
    epoch: int = 0
    hit: bool = False
    """Whether the moment came while the target was there."""
    recovered: bool = False
    equal: bool = False
    retrained: int = 0
    back_s: float = 0.0
    """Seconds until the next checkpoint of the trial that was killed."""
    leaked: list[str] = field(default_factory=list)
    fault: str = ""

    def passed(self, exactly: bool) -> bool:
        """Whether nothing was lost."""
        return self.hit and self.recovered and self.retrained <= 1 and not self.leaked and (self.equal or not exactly)


@dataclass(frozen=True)
class Baseline:
    """The undisturbed search, which the others are compared with."""

    record: SearchRecord
    epoch_s: float
    shrinks: dict[str, list[int]]
    """By trial, the epochs whose end changed a rank."""


def measure_baseline(folder: Path, workers: int, notify: Notify = lambda text: None) -> Baseline:
    """Run the search once, undisturbed."""
    notify("the undisturbed search")
    harness = SearchHarness(folder, workers)
    watch = Watch(harness.run("baseline"))
    try:
        harness.finish(harness.start("baseline"), "baseline")
    finally:
        watch.close()
        harness.end_all()
    record = harness.record("baseline")
    steps = [b.at - a.at for a, b in zip(watch.written, watch.written[1:], strict=False) if a.trial == b.trial]
    shrinks: dict[str, list[int]] = {name: [] for name in record.rows}
    for row in record.trace.select(["trial_id", "epoch", "rank_before", "rank"]).to_pylist():
        if row["rank"] < row["rank_before"] and row["epoch"] not in shrinks[row["trial_id"]]:
            shrinks[row["trial_id"]].append(row["epoch"])
    return Baseline(record, statistics.median(steps), shrinks)


def inject_one_fault(
    harness: SearchHarness,
    name: str,
    target: Target,
    trigger: Trigger,
    baseline: Baseline,
    cluster: LocalCluster | None,
) -> FaultResult:
    """One search with one kill; it ends by itself, or is resumed where its driver was killed."""
    kill = FaultResult(target, trigger.moment, trigger.trial)
    run, address = harness.run(name), [] if cluster is None else ["--address", cluster.address]
    watch = Watch(run)
    driver = harness.start(name, *address)
    try:
        if trigger.wait(run, lambda: driver.poll() is None, LIMIT_S):
            _inject(kill, driver.pid, run, watch, cluster)
        at = time.monotonic()
        if kill.hit and target == "driver":
            driver.wait(30)
            driver = harness.start(name, "--resume", *address)
        harness.finish(driver, name, LIMIT_S)
        _compare(kill, harness.record(name), watch, at, baseline)
        kill.leaked = harness.leaks(name, cluster)
    except SearchFailed as fault:
        kill.fault = str(fault)
    finally:
        watch.close()
        harness.end_all()
    return kill


def _inject(kill: FaultResult, pid: int, run: Path, watch: Watch, cluster: LocalCluster | None) -> None:
    driver = psutil.Process(pid)
    for _ in range(400):  # between two calls a trial's process has another title
        kill.hit = inject_fault(kill.target, driver, cluster)
        if kill.hit:
            break
        time.sleep(0.005)
    kill.trial = _in_progress(run) or kill.trial
    kill.epoch = watch.last_epoch(kill.trial)


def _in_progress(run: Path) -> str:
    """The trial that wrote last."""
    newest = sorted(run.glob("trials/*/config.yaml"), key=lambda path: path.stat().st_mtime_ns)
    return newest[-1].parent.name if newest else ""


def _compare(kill: FaultResult, record: SearchRecord, watch: Watch, at: float, baseline: Baseline) -> None:
    kill.recovered, kill.equal = record.same_trials(baseline.record), record.equal(baseline.record)
    if after := watch.since(max(at, _taken_up(watch.run / "trials" / kill.trial)), kill.trial):
        kill.back_s = after[0].at - at
        kill.retrained = kill.epoch + 2 - after[0].epoch  # the one that was cut off, and what was on disk already
    twice = len(watch.written) - len({(note.trial, note.epoch) for note in watch.written})
    kill.retrained = max(0, kill.retrained, twice)


def _taken_up(folder: Path) -> float:
    """When a trial was last started or taken up again, on the monotonic clock; an orphan may write until then."""
    return time.monotonic() - (time.time() - (folder / "config.yaml").stat().st_mtime)


def draws(kills: int, seed: int, workers: int) -> Iterator[tuple[random.Random, Target, Moment]]:
    """Which target at which kind of moment: every pair equally often, in random order."""
    draw = random.Random(seed)
    pairs = [(target, moment) for moment in MOMENTS for target in TARGETS[workers]]
    for start in range(0, kills, len(pairs)):
        for target, moment in draw.sample(pairs, len(pairs))[: kills - start]:
            yield draw, target, moment


def run(args: argparse.Namespace) -> int:
    """`bench faults`: run the campaign and print it; 1 if anything was lost."""
    started = time.monotonic()
    with working_folder(args) as folder:
        kills = campaign(folder, args.kills, args.seed, args.workers, notifier())

    passed = all(kill.passed(exactly=args.workers == 1) for kill in kills)
    seconds = round(time.monotonic() - started)
    result = {"seed": args.seed, "workers": args.workers, "seconds": seconds, "passed": passed, "rows": rows(kills)}
    print_result(args, result, table_of(result))
    return 0 if passed else 1


def campaign(folder: Path, kills: int, seed: int, workers: int, notify: Notify) -> list[FaultResult]:
    """Run the baseline, then one search with one fault after the other.

    Args:
        folder: empty; keeps every run and log.
        kills: how many.
        seed: of targets and moments.
        workers: of a trial.
        notify: called after each kill.
    """
    baseline = measure_baseline(folder, workers, notify)
    done: list[FaultResult] = []
    with ExitStack() as stack:
        cluster: LocalCluster | None = None
        for number, (draw, target, moment) in enumerate(draws(kills, seed, workers)):
            trigger = draw_trigger(draw, moment, baseline.shrinks, baseline.epoch_s, SPACE["base"]["optim"]["epochs"])
            if target in ON_CLUSTER and cluster is None:
                cluster = stack.enter_context(local_cluster(2 * workers))
            harness = SearchHarness(folder, workers)
            where = cluster if target in ON_CLUSTER else None
            kill = inject_one_fault(harness, f"k{number:03d}", target, trigger, baseline, where)
            if cluster is not None:
                cluster.replace_dead()
            done.append(kill)
            notify(f"{number + 1:3d}/{kills} {in_words(kill)}")
    return done


def in_words(kill: FaultResult) -> str:
    """One line of the log."""
    where = f"{kill.target}, {kill.moment} ({kill.trial} after epoch {kill.epoch})"
    if kill.fault or not kill.hit:
        return f"{where}: {kill.fault or 'the moment did not come'}"
    what = f"back after {kill.back_s:.1f} s, {kill.retrained} epochs retrained, equal {kill.equal}"
    return f"{where}: recovered {kill.recovered}, {what}, leaked {', '.join(kill.leaked) or 'nothing'}"


def rows(kills: list[FaultResult]) -> list[dict[str, Any]]:
    """One row for each target and moment, as `--json` prints them."""
    out: list[dict[str, Any]] = []
    for target, moment in sorted({(kill.target, kill.moment) for kill in kills}):
        group = [kill for kill in kills if (kill.target, kill.moment) == (target, moment)]
        back = [kill.back_s for kill in group if kill.back_s]
        out.append(
            {
                "target": target,
                "moment": moment,
                "kills": sum(kill.hit for kill in group),
                "recovered": sum(kill.recovered for kill in group),
                "retrained": max(kill.retrained for kill in group),
                "median_s": round(statistics.median(back), 1) if back else None,
                "worst_s": round(max(back), 1) if back else None,
                "leaked": sorted({what for kill in group for what in kill.leaked}),
                "equal": sum(kill.equal for kill in group),
                "faults": [kill.fault or "the moment did not come" for kill in group if kill.fault or not kill.hit],
            }
        )
    return out


def table_of(result: dict[str, Any]) -> Table:
    """The campaign for a terminal."""
    title = f"seed {result['seed']}, {result['workers']} worker(s) a trial, {result['seconds']} s"
    names = ("target", "moment", "kills", "recovered", "epochs retrained", "median s", "worst s", "leaked", "equal")
    table = Table(*names, title=title)
    for row in result["rows"]:
        seconds = ["-" if row[key] is None else f"{row[key]:.1f}" for key in ("median_s", "worst_s")]
        counts = [str(row[key]) for key in ("kills", "recovered", "retrained")]
        leaked = "; ".join([*row["leaked"], *row["faults"]]) or "nothing"
        table.add_row(row["target"], row["moment"], *counts, *seconds, leaked, str(row["equal"]))
    return table
