"""`bench front STUDY`: train what a study needs, in runs that can be resumed, and compare."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path

from faar_ray.bench.front import stages
from faar_ray.bench.front.rates import best_rates
from faar_ray.bench.front.studies import STUDIES, Result, Study
from faar_ray.bench.output import Notify, notifier
from faar_ray.storage.atomic import atomic_write


def run(args: argparse.Namespace) -> None:
    """Train unless `--tables`, then compare.

    Raises:
        StageFailed: a search that did not come to its end.
        DataError: `--tables` where nothing was trained.
    """
    study, out = STUDIES[args.study], args.out.absolute()
    notify, folder = notifier(), out / "runs" / study.folder
    analysis = importlib.import_module(f"faar_ray.bench.front.{study.analysis}")
    if not args.tables:
        getattr(analysis, "train", train)(study, out, folder, args, notify)

    result: Result = {"study": study.name, "question": study.question, **analysis.analyse(study, out, folder)}
    write_text(folder / "result.json", json.dumps(result, indent=1))
    write_text(folder / "result.md", "\n".join(result["markdown"]) + "\n")
    print(json.dumps(result) if args.json else "\n".join(result["markdown"]))
    notify(f"table, picture, numbers: {folder}/result.md, front.png, result.json")


def train(study: Study, out: Path, folder: Path, args: argparse.Namespace, notify: Notify) -> None:
    """Run the search spaces of a study, one after the other."""
    for name in study.spaces:
        space = prepared(study, name, out, seeds=args.seeds, quick=args.quick)
        notify(f"{name}: {space['budget']['trials']} trainings")
        stages.run_stage(stages.write_stage(space, folder), out / "runs", args.overrides, resume=args.resume)


def prepared(study: Study, name: str, out: Path, *, seeds: int | None, quick: bool) -> stages.Space:
    """A stage's search space as it is trained."""
    space = stages.read_stage(name)
    if name != study.rates:
        space = stages.with_seeds(space, seeds) if seeds else space
        if study.rates:
            tried = best_rates(stages.results_of(out / "runs" / study.rates), stages.full_rank(space))
            space = stages.with_learning_rates(space, tried)
    return stages.miniature(space) if quick else space


def write_text(path: Path, text: str) -> None:
    """Write a file, atomically."""
    with atomic_write(path) as scratch:
        scratch.write_text(text, encoding="utf-8")
