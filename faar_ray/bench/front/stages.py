"""A stage of a study: a search space of the package, adjusted, run by `faar_ray.tune` as anyone would run it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from faar_ray import interrupts
from faar_ray.bench.front.rates import KIND, Tried, with_rates
from faar_ray.bench.front.studies import SPACES, Study
from faar_ray.config.yaml_document import read_yaml
from faar_ray.errors import DataError, FaarRayError
from faar_ray.records import TrialResult
from faar_ray.report.source import read_search
from faar_ray.storage.atomic import atomic_write

SMALL = {"train_images": 60, "val_images": 40, "test_images": 40}
FEW = 3
"""Points of each kind of ranks in a miniature."""
Space = dict[str, Any]


class StageFailed(FaarRayError):
    """A search of a study that did not come to its end; it has said why."""

    def __init__(self, name: str, exit_code: int) -> None:
        super().__init__(f"{name}: faar_ray.tune ended with exit code {exit_code}; --resume goes on")
        self.exit_code = exit_code


def read_stage(name: str) -> Space:
    """A search space of the package, as plain values."""
    return deepcopy(read_yaml(SPACES / f"{name}.yaml").data)


def full_rank(space: Space) -> int:
    """The initial rank that a space's rows have where they set none."""
    return int(space["base"]["ranks"]["init_rank"])


def with_learning_rates(space: Space, tried: Tried) -> Space:
    """The space with the learning rates that were found."""
    start = space["warm_start"]
    return space | {"warm_start": start | {"points": with_rates(start["points"], tried, full_rank(space))}}


def with_seeds(space: Space, seeds: int) -> Space:
    """The space on another number of seeds."""
    trials = seeds * len(space["warm_start"]["points"])
    return space | {"search": space["search"] | {"seeds": seeds}, "budget": {"trials": trials}}


def miniature(space: Space) -> Space:
    """The same in small, to see that it runs: few images, the first rows of each kind."""
    base = space["base"] | {"data": space["base"]["data"] | SMALL}
    points = list(_first_of_each(space["warm_start"]["points"]))
    small = space | {"base": base, "warm_start": {"points": points}}
    return with_seeds(small, min(2, int(space["search"]["seeds"])))


def _first_of_each(points: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    seen: dict[Any, int] = {}
    for point in points:
        seen[point.get(KIND)] = seen.get(point.get(KIND), 0) + 1
        if seen[point.get(KIND)] <= FEW:
            yield dict(point)


def write_stage(space: Space, folder: Path) -> Path:
    """Write it where `faar_ray.tune` reads it; the same space gives the same file, so that a run can be resumed."""
    path = folder / f"{space['name']}.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as scratch:
        scratch.write_text(yaml.safe_dump(space, sort_keys=False, width=120))
    return path


def run_stage(file: Path, runs: Path, overrides: Sequence[str], *, resume: bool) -> None:
    """Train what a search space lists, unless its run has ended.

    Args:
        file: the search space.
        runs: folder of the run.
        overrides: `key=value`, as of `faar_ray.tune`.
        resume: go on with a run that is there.

    Raises:
        StageFailed: with the exit code of `faar_ray.tune`.
        KeyboardInterrupt: once it has closed its runs.
    """
    run = runs / file.stem
    if resume and has_ended(run):
        return
    again = ["--resume"] if resume and (run / "space.yaml").is_file() else []
    command = [sys.executable, "-m", "faar_ray.tune", str(file), f"storage.path={runs}", *overrides, *again]
    with ended_with_us(subprocess.Popen(command, stdout=sys.stderr, start_new_session=True)) as process:
        code = process.wait()
    if code:
        raise StageFailed(file.stem, code)


@contextmanager
def ended_with_us(process: subprocess.Popen[Any]) -> Iterator[subprocess.Popen[Any]]:
    """Pass on an interruption, and wait for the process to close what it has open."""
    try:
        yield process
    except KeyboardInterrupt:
        process.send_signal(signal.SIGTERM if interrupts.cause() == "SIGTERM" else signal.SIGINT)
        process.wait()
        raise


def has_ended(run: Path) -> bool:
    """Whether a run came to its end."""
    return (run / "results.parquet").is_file() and read_search(run).progress.how == "finished"


def results_of(run: Path) -> list[TrialResult]:
    """All trials of a run so far; none where it has not begun."""
    return list(read_search(run).results) if (run / "space.yaml").is_file() else []


def finished(study: Study, out: Path) -> list[TrialResult]:
    """All trials of a study's stages so far.

    Raises:
        DataError: none has finished.
    """
    results = [result for stage in study.stages for result in results_of(out / "runs" / stage)]
    if not any(result.state == "COMPLETE" and result.role == "trial" for result in results):
        raise DataError(f"{out / 'runs'}: no finished trial of {', '.join(study.stages)}")
    return results
