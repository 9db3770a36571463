"""`python -m faar_ray.train CONFIG.yaml`: one trial, the same loop that a search runs."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from faar_ray.command_line import hide_passwords, run_command, run_process
from faar_ray.config.null_values import value_words
from faar_ray.config.overrides import dotted_path
from faar_ray.config.presets import RECIPES, Difference, differences
from faar_ray.config.trial import OptimConfig
from faar_ray.config.trial_file import TrialFile, read_trial, trial_document
from faar_ray.config.validation_messages import locate
from faar_ray.errors import ConfigError
from faar_ray.models import build_model, parameter_terms, parameters_by_part
from faar_ray.models.weight_packages import check_package
from faar_ray.records import EpochRecord, json_metrics
from faar_ray.tasks import primary, tasks_of
from faar_ray.tools import shell_command, tool_command, where_to_look
from faar_ray.train.session import Session

EXAMPLE = "example: python -m faar_ray.train faar.yaml pdrs.rho_shared=0.8 optim.epochs=6"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    if argv is None:
        hide_passwords()
    args = _parser().parse_intermixed_args(argv)
    again = [tool_command("python"), "-m", "faar_ray.train", str(args.config), *args.overrides, "--resume"]
    args.resume_command = shell_command(again)
    return run_command(lambda: _run(args), args.resume_command)


def _run(args: argparse.Namespace) -> None:
    if args.against and not args.dry_run:
        raise ConfigError("--against: is read with --dry-run; to train by a recipe write recipe=" + args.against)
    file = read_trial(args.config, args.overrides)
    try:
        if args.dry_run:
            dry_run(file, as_json=args.json, against=args.against)
        else:
            name = file.name or args.config.stem
            train(file, name, resume=args.resume, as_json=args.json, resume_command=args.resume_command)
    except ConfigError as error:
        raise locate(error, trial_document(args.config, args.overrides), dotted_path) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m faar_ray.train", description="Train one trial; also with fixed ranks.", epilog=EXAMPLE
    )
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml", help="a trial config, every key optional")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys that win over the file's")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="count parameters, list what differs from the recipe, and stop",
    )
    parser.add_argument(
        "--against", choices=[*RECIPES], metavar="RECIPE", help=f"recipe to compare with instead: {', '.join(RECIPES)}"
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    return parser


def dry_run(file: TrialFile, *, as_json: bool, against: str | None = None) -> None:
    """Print what would be trained, by part, and each key that differs from the recipe; loads no weights.

    Args:
        file: the trial.
        as_json: one line of JSON.
        against: a recipe to compare with in place of the config's own.
    """
    config = file.config
    check_package(config.backbone)
    model = build_model(config.without_weights())
    parts = parameters_by_part(model)
    counted: dict[str, Any] = {
        "method": config.method,
        "backbone": config.backbone.name,
        "tasks": list(config.data.tasks),
        "trainable_params": sum(parts.values()),
        "total_params": sum(p.numel() for p in model.parameters()),
        "by_part": parts,
        "terms": parameter_terms(model),
    }
    recipe = against or config.recipe
    differing = differences(recipe, config.dotted())
    if recipe in RECIPES:
        counted["recipe"] = {"name": recipe, "differences": [asdict(difference) for difference in differing]}
    if as_json:
        print(json.dumps(counted))
        return
    console = Console()
    _tell_parts(counted, console)
    if recipe in RECIPES:
        _tell_recipe(recipe, differing, config.optim, console)


def _tell_parts(counted: Mapping[str, Any], console: Console) -> None:
    table = Table("part", "trainable parameters", title=f"{counted['method']} on {counted['backbone']}")
    table.columns[1].justify = "right"
    for part, count in counted["by_part"].items():
        table.add_row(part, f"{count:,}")
    table.add_section()
    for term, count in counted["terms"].items():
        table.add_row(f"[dim]{term}[/]", f"[dim]{count:,}[/]")
    table.add_section()
    table.add_row("all", f"{counted['trainable_params']:,}")
    console.print(table)
    tasks = ", ".join(counted["tasks"])
    console.print(f"of {counted['total_params']:,} in all; tasks {tasks}; nothing was trained", soft_wrap=True)


def _tell_recipe(recipe: str, differing: Sequence[Difference], optim: OptimConfig, console: Console) -> None:
    """A row for each key that differs, and the learning rates that the batch comes to."""
    table = Table(
        "key", "recipe", "here", "source of the recipe's value", title=f"where it differs from recipe {recipe}"
    )
    for one in differing:
        table.add_row(one.key, value_words(one.key, one.recipe), value_words(one.key, one.config), one.source)
    if differing:
        console.print(table)
    else:
        console.print(f"as recipe {recipe} in every key", soft_wrap=True)
    peak, last = optim.effective(optim.lr), optim.effective(optim.min_lr)
    console.print(f"learning rate {peak:.4g} at batch {optim.batch_size}, {last:.4g} in the end", soft_wrap=True)


def train(file: TrialFile, name: str, *, resume: bool, as_json: bool, resume_command: str = "") -> None:
    """Train to the end, a line per epoch, then a table."""
    console = Console(file=sys.stderr if as_json else sys.stdout)
    notify = partial(console.print, style="yellow", soft_wrap=True)
    with redirect_stdout(sys.stderr):  # what libraries print
        session = Session(file, name, resume=resume, notify=notify, resume_command=resume_command)
        metrics: dict[str, float] = {}
        for record in session.epochs():
            metrics = record.metrics
            _tell_epoch(file, record, console)
    _tell_end(session, metrics, console)
    if as_json:
        outcome: dict[str, Any] = {"name": name, "path": str(session.place), "trial_id": session.trial_id}
        outcome |= {"metrics": json_metrics(metrics), "tracking_uri": session.tracking_uri, "run_id": session.run_id}
        print(json.dumps(outcome, allow_nan=False))


def _tell_epoch(file: TrialFile, record: EpochRecord, console: Console) -> None:
    metrics = record.metrics
    scores = [f"{name} {_score(value)}" for name, value in primary(metrics, tasks_of(file.data)).items()]
    ranks = [f"rank {metrics['rank/mean']:.1f}"] if "rank/mean" in metrics else []
    console.print(
        f"epoch {record.epoch + 1}/{file.optim.epochs}  loss {metrics['train/loss']:.3f}  "
        + "  ".join([*scores, *ranks, f"{metrics['time/epoch_s']:.1f} s"]),
        highlight=False,
    )


def _tell_end(session: Session, metrics: dict[str, float], console: Console) -> None:
    table = Table("task", "metric", "val", title=f"{session.place.path.name}/{session.trial_id}, last epoch")
    table.columns[2].justify = "right"
    for name, task in tasks_of(session.config.data).items():
        table.add_row(name, task.metric, _score(metrics[f"val/{name}/{task.metric}"], task.metric_unit))
    if "delta_m" in metrics:
        table.add_row("all", "delta_m", _score(metrics["delta_m"], "%", sign="+"))
    measured = session.config.data.evaluated_as
    table.caption = f"val: {measured}; {metrics['trainable_params']:,.0f} trainable parameters"
    console.print(table)
    console.print(f"written: {session.place.display_path('trials', session.trial_id)}", soft_wrap=True, highlight=False)
    look = where_to_look(session.tracking_uri, session.experiment_id, session.run_id)
    console.print(f"look:    {look}", soft_wrap=True, highlight=False)


def _score(value: float, unit: str = "", *, sign: str = "") -> str:
    """A metric for people."""
    return "no labels" if math.isnan(value) else f"{value:{sign}.2f} {unit}".rstrip()


if __name__ == "__main__":
    run_process(main)
