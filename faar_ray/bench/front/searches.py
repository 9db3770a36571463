"""Searches against searches: fronts over learning rates, and plain Ray Tune; hypervolume over the epochs they spent."""

from __future__ import annotations

import json
import multiprocessing
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faar_ray.bench.front import stages, stock
from faar_ray.bench.front.plots import plot_searches
from faar_ray.bench.front.rows import SIZE, VAL
from faar_ray.bench.front.sizes import SCORING, gain_facts, percent
from faar_ray.bench.front.studies import Box, Result, Study
from faar_ray.bench.front.volume import volume
from faar_ray.bench.front.words import difference, estimate, table
from faar_ray.bench.output import Notify
from faar_ray.errors import DataError
from faar_ray.records import FOUND, TrialResult
from faar_ray.report.statistics.noise import mean_of
from faar_ray.report.statistics.paired import paired_difference
from faar_ray.tune.space.space import read_space

SEEDS, TRIALS = 5, 32
"""Searches of each way; trials of each search of plain Ray Tune."""
FEW_SEEDS, FEW_TRIALS = 2, 3
OURS, STOCK = "fronts", "plain Ray Tune"
SHARES = (0.25, 0.5, 0.75, 1.0)
"""Of the epochs that plain Ray Tune spends."""
Found = list[tuple[float, float, float]]
"""(epochs spent on it, delta_m, adapter parameters), in order."""


@dataclass(frozen=True)
class Trace:
    """What a search had found after each of its epochs, or trials."""

    epochs: tuple[float, ...]
    volumes: tuple[float, ...]

    @property
    def spent(self) -> float:
        """Epochs in all."""
        return self.epochs[-1]

    def at(self, epochs: float) -> float:
        """Hypervolume by then."""
        return max((v for e, v in zip(self.epochs, self.volumes, strict=True) if e <= epochs), default=0.0)

    def until(self, found: float) -> float | None:
        """Epochs after which so much was found; None where it never was."""
        return next((e for e, v in zip(self.epochs, self.volumes, strict=True) if v >= found), None)


def train(study: Study, out: Path, folder: Path, args: Namespace, notify: Notify) -> None:
    """Run both searches on each seed, one after the other; a search that has ended is not run again."""
    trials = FEW_TRIALS if args.quick else TRIALS
    for seed in range(args.seeds or (FEW_SEEDS if args.quick else SEEDS)):
        file = stages.write_stage(seeded(study, seed, quick=args.quick), folder)
        notify(f"{file.stem}: {OURS}")
        stages.run_stage(file, out / "runs", args.overrides, resume=args.resume)

        target = folder / f"stock_s{seed}.json"
        if not target.is_file():
            notify(f"{target.stem}: {trials} trials of {STOCK}")
            space = read_space(file, args.overrides)
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as alone:
                alone.submit(stock.search, space, seed, trials, target).result()


def seeded(study: Study, seed: int, *, quick: bool) -> stages.Space:
    """The space of one search: its seed is that of the proposals and of the trainings."""
    space = stages.read_stage(study.stages[0])
    base = space["base"] | {"seed": seed}
    if quick:
        base["data"] = base["data"] | stages.SMALL
        space["budget"] = {"trials": 2}
    return space | {"name": f"{space['name']}_s{seed}", "base": base, "search": space["search"] | {"seed": seed}}


def analyse(study: Study, out: Path, folder: Path) -> Result:
    """Compare the seeds that both have finished, and draw `front.png`."""
    traces: dict[str, dict[int, Trace]] = {OURS: {}, STOCK: {}}
    for file in sorted(folder.glob("stock_s*.json")):
        seed = int(file.stem.removeprefix("stock_s"))
        run = out / "runs" / f"{study.stages[0]}_s{seed}"
        if stages.has_ended(run):
            traces[OURS][seed] = trace_of(found_by_fronts(stages.results_of(run)), study.box)
            traces[STOCK][seed] = trace_of(found_by_stock(json.loads(file.read_text())["epochs"]), study.box)
    if not traces[OURS]:
        raise DataError(f"{folder}: no pair of searches has ended")

    plot_searches(traces, folder / "front.png")
    facts = {name: {str(seed): asdict(trace) for seed, trace in of.items()} for name, of in traces.items()}
    ahead = gain(traces, 0.25)
    return {
        "searches": facts,
        "quarter_minus_end": gain_facts(ahead),
        "markdown": [*searches_table(traces), "", *sentences(traces)],
    }


def found_by_fronts(results: Sequence[TrialResult]) -> Found:
    """Trunks and their points, which pay for their own epochs and for the gradients of their rotation."""
    ended = [result for result in results if result.role in FOUND and result.state == "COMPLETE"]
    ended.sort(key=lambda result: result.trial_id)  # a trunk, then its points
    return [(r.epochs + SCORING * (r.role == "point"), r.metrics[VAL], r.metrics[SIZE]) for r in ended]


def found_by_stock(epochs: Sequence[Mapping[str, Any]]) -> Found:
    """Every epoch of every trial, stopped or not: each is a model that a user could keep."""
    return [(1.0, float(epoch[VAL]), float(epoch[SIZE])) for epoch in epochs]


def trace_of(found: Found, box: Box) -> Trace:
    """The hypervolume of all points so far."""
    epochs, volumes, points = list[float](), list[float](), list[tuple[float, float]]()
    for spent, quality, size in found:
        points.append((quality, size))
        epochs.append(spent + (epochs[-1] if epochs else 0.0))
        volumes.append(volume(points, box))
    return Trace(tuple(epochs), tuple(volumes))


def gain(traces: Mapping[str, Mapping[int, Trace]], share: float, other: float = 1.0) -> Any:
    """Fronts after a share of plain Ray Tune's epochs, minus plain Ray Tune after another share; in percent."""
    stock_of = traces[STOCK]
    ours = {seed: trace.at(share * stock_of[seed].spent) for seed, trace in traces[OURS].items()}
    theirs = {seed: trace.at(other * trace.spent) for seed, trace in stock_of.items()}
    return paired_difference(percent(ours), percent(theirs))


def searches_table(traces: Mapping[str, Mapping[int, Trace]]) -> Iterator[str]:
    """Both after shares of the epochs that plain Ray Tune spends."""
    stock_of, lines = traces[STOCK], []
    for share in SHARES:
        means = [
            estimate(mean_of([100 * t.at(share * stock_of[seed].spent) for seed, t in of.items()]))
            for of in traces.values()
        ]
        lines.append([f"{share:.0%}", *means, difference(gain(traces, share, share)), difference(gain(traces, share))])
    head = (f"epochs, of {STOCK}'s", *traces, "difference", f"fronts then, minus {STOCK} at its end")
    yield from table(head, lines)


def sentences(traces: Mapping[str, Mapping[int, Trace]]) -> Iterator[str]:
    """Whether a quarter of the epochs is enough, and after how many it is."""
    ahead = gain(traces, 0.25)
    spent = {name: mean_of([trace.spent for trace in of.values()]).value for name, of in traces.items()}
    verdict = "holds" if ahead.value - ahead.ci95 >= 0 else "does not hold" if ahead.value < 0 else "is open"
    yield (
        f"Hypervolume in percent, {len(traces[OURS])} seeds, 95% intervals. {STOCK} trains {spent[STOCK]:.0f} "
        f"epochs; fronts find as much in a quarter of them: {verdict}, {difference(ahead)}. They end after "
        f"{spent[OURS]:.0f} epochs."
    )
    shares = [
        reached / traces[STOCK][seed].spent
        for seed, trace in traces[OURS].items()
        if (reached := trace.until(traces[STOCK][seed].at(traces[STOCK][seed].spent))) is not None
    ]
    if shares:
        mean = mean_of([100 * share for share in shares])
        yield f"On {len(shares)} seeds they find as much, after {estimate(mean)} % of those epochs."
