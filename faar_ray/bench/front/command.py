"""`bench front STUDY`: train what a study needs, in runs that can be resumed, and compare."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path

from faar_ray.bench.front import stages
from faar_ray.bench.front.rates import best_rates
from faar_ray.bench.front.studies import STUDIES, Result, Study
from faar_ray.bench.output import notifier
from faar_ray.errors import DataError
from faar_ray.storage.atomic import atomic_write


def run(args: argparse.Namespace) -> int:
    """Train unless `--tables`, then compare.

    Raises:
        StageFailed: a search that did not come to its end.
        DataError: `--tables` where nothing was trained.
    """
    study, out = STUDIES[args.study], args.out.absolute()
    notify, folder = notifier(), out / "runs" / study.folder
    for name in () if args.tables else study.spaces:
        space = prepared(study, name, out, seeds=args.seeds, quick=args.quick)
        notify(f"{name}: {space['budget']['trials']} trainings")
        stages.run_stage(stages.write_stage(space, folder), out / "runs", args.overrides, resume=args.resume)
    result = compared(study, out, folder)
    if args.json:
        print(json.dumps(result))
    else:
        print("\n".join(result["markdown"]))
    notify(f"table, picture, numbers: {folder}/result.md, front.png, result.json")
    return 0


def prepared(study: Study, name: str, out: Path, *, seeds: int | None, quick: bool) -> stages.Space:
    """A stage's search space as it is trained."""
    space = stages.read_stage(name)
    if name != study.rates:
        space = stages.with_seeds(space, seeds) if seeds else space
        if study.rates:
            tried = best_rates(stages.results_of(out / "runs" / study.rates), stages.full_rank(space))
            space = stages.with_learning_rates(space, tried)
    return stages.miniature(space) if quick else space


def compared(study: Study, out: Path, folder: Path) -> Result:
    """Analyse what was trained so far, and write it down.

    Raises:
        DataError: nothing was trained.
    """
    results = [result for stage in study.stages for result in stages.results_of(out / "runs" / stage)]
    if not any(result.state == "COMPLETE" and result.role == "trial" for result in results):
        raise DataError(f"{out / 'runs'}: no finished trial of {', '.join(study.stages)}")
    folder.mkdir(parents=True, exist_ok=True)
    analysis = importlib.import_module(f"faar_ray.bench.front.{study.analysis}")
    found = analysis.analyse(study, results, stages.read_stage(study.stages[0]), folder)
    result: Result = {"study": study.name, "question": study.question, **found}
    write_text(folder / "result.json", json.dumps(result, indent=1))
    write_text(folder / "result.md", "\n".join(result["markdown"]) + "\n")
    return result


def write_text(path: Path, text: str) -> None:
    """Write a file, atomically."""
    with atomic_write(path) as scratch:
        scratch.write_text(text, encoding="utf-8")
