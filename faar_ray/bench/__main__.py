"""`python -m faar_ray.bench step|data|train|faults|search|scale|front`: what steps, reading, searches, kills cost."""

from __future__ import annotations

import argparse
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from faar_ray.bench.front.studies import STUDIES
from faar_ray.command_line import run_command, run_process
from faar_ray.config.trial import Method
from faar_ray.tools import shell_command, tool_command

KEEP = "empty folder to keep the run in (default: it is deleted)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    raw = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(raw)
    again = raw if "--resume" in raw else [*raw, "--resume"]
    resume = shell_command([tool_command("python"), "-m", "faar_ray.bench", *again]) if "resume" in args else ""
    return run_command(lambda: pkgutil.resolve_name(args.work)(args), resume)


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _parser() -> argparse.ArgumentParser:
    example = "example: python -m faar_ray.bench step --image-size 224 --pairs 5"
    parser = argparse.ArgumentParser(prog="python -m faar_ray.bench", description="Measure.", epilog=example)
    commands = parser.add_subparsers(dest="what", required=True)
    _add_step(commands)
    _add_data(commands)
    _add_train(commands)
    _add_faults(commands)
    _add_search(commands)
    _add_scale(commands)
    _add_front(commands)
    return parser


def _command(commands: Any, name: str, work: str, about: str, description: str, example: str) -> Any:
    """A subcommand; `work` is imported when it runs, since it may import Ray."""
    epilog = f"example: python -m faar_ray.bench {name} {example}"
    parser = commands.add_parser(name, help=about, description=description, epilog=epilog)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.set_defaults(work=f"faar_ray.bench.{work}")
    return parser


def _add_step(commands: Any) -> None:
    step = _command(
        commands, "step", "step.step:run", "a training step against the floor",
        "Whole steps (forward, backward, AdamW) on random images, four PASCAL tasks, only norms of the backbone train; "
        "each row alternates with the floor (no adapters), and its ratio is the median over pairs.",
        "--image-size 224 --pairs 5",
    )  # fmt: skip
    step.add_argument("--method", choices=get_args(Method), help="one preset instead of the standard variants")
    step.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="with --method: a key of its config"
    )
    step.add_argument("--only", nargs="+", metavar="VARIANT", help="some of the standard variants")
    step.add_argument("--backbone", default="swin_tiny_patch4_window7_224", help="any that backbone.name takes")
    step.add_argument(
        "--families", action="store_true", help="a small backbone of each family, faar_own against its own floor"
    )
    step.add_argument("--image-size", type=_positive, default=448, help="side, pixels (default %(default)s)")
    step.add_argument("--batch", type=_positive, default=2, help="images (default %(default)s)")
    step.add_argument("--rank", type=_positive, default=64, help="at the start (default %(default)s)")
    step.add_argument("--shrunk", type=_positive, default=5, help="and after shrinking (default %(default)s)")
    step.add_argument("--pairs", type=_positive, default=9, help="steps of each row (default %(default)s)")
    step.add_argument("--threads", type=_positive, help="of torch (default: as torch chooses)")
    step.add_argument("--device", default="cpu", help="cpu or cuda (default %(default)s)")
    step.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="autocast (default %(default)s)")
    step.add_argument("--compile", action="store_true", help="every row under torch.compile, the floor too")
    step.add_argument("--no-memory", action="store_true", help="do not start a process per row for its peak memory")


def _add_trial(command: argparse.ArgumentParser) -> None:
    """The trial whose data are read (`loading.config_of`)."""
    command.add_argument("what_data", metavar="CONFIG|DATASET", help="a trial's YAML file, or a data set's name")
    command.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="keys of the trial")
    command.add_argument("--root", help="folder or URI of the data set (data.root)")


def _add_data(commands: Any) -> None:
    data = _command(
        commands, "data", "loading:run", "reading photographs against the training step that takes them",
        "Images/s from files, packed shards and the decoded cache, in a random order, with and without augmentation; "
        "beside them what a training step of the trial's own model takes here.",
        "nyud --root NYUD_MT",
    )  # fmt: skip
    _add_trial(data)
    data.add_argument("--images", type=_positive, default=64, help="read from the first so many (default %(default)s)")
    data.add_argument("--processes", type=_positive, default=2, help="of a loader (default %(default)s)")
    data.add_argument("--steps", type=_positive, default=3, help="training steps after a first (default %(default)s)")


def _add_train(commands: Any) -> None:
    train = _command(
        commands, "train", "training:run", "steps of a real trial from its own data",
        "Images/s with reading, the share of time that waits for batches; on a GPU the share that it is busy, its "
        "kernels per step, and the ten that take longest.",
        "scenes optim.batch_size=8",
    )  # fmt: skip
    _add_trial(train)
    train.add_argument("--steps", type=_positive, default=20, help="that are measured (default %(default)s)")


def _add_faults(commands: Any) -> None:
    faults = _command(
        commands, "faults", "faults.campaign:run", "kill -9 at random moments, and what a search loses",
        "Small real searches, each hit once by SIGKILL: the driver (then --resume), the trial's process, a worker, a "
        "raylet, or all of a node. Exit code 1 if anything is lost: a trial, more than one epoch of work, a row, a bit "
        "(one worker), or if a process or a placement group is left.",
        "--kills 20 --seed 0",
    )  # fmt: skip
    faults.add_argument("--kills", type=_positive, default=20, help="how many (default %(default)s)")
    faults.add_argument("--seed", type=int, default=0, help="of targets and moments (default %(default)s)")
    faults.add_argument("--workers", type=int, choices=(1, 2), default=1, help="of a trial (default %(default)s)")
    faults.add_argument("--out", type=Path, help=KEEP)


def _add_search(commands: Any) -> None:
    search = _command(
        commands, "search", "replay.search:run", "what a search costs beside training",
        "A REPLAY, no training: a search on a local Ray cluster. Its trials replay epochs recorded from rho.yaml, "
        "interpolated in rho, with noise of the size that two seeds showed; all else is real.",
        "--trials 1000 --nodes 4",
    )  # fmt: skip
    search.add_argument("--trials", type=_positive, default=1000, help="to replay (default %(default)s)")
    search.add_argument("--nodes", type=_positive, default=4, help="of one CPU each, in name (default %(default)s)")
    search.add_argument("--out", type=Path, help=KEEP)


def _add_scale(commands: Any) -> None:
    scale = _command(
        commands, "scale", "replay.scale:run", "what breaks first on many machines",
        "A REPLAY, no training: a search with as many trials at once as there are machines, which are CPUs in name of "
        "four Ray nodes on this machine. Trials replay recorded epochs and sleep, in processes of 0.1 GB.",
        "--machines 200 --pace 30",
    )  # fmt: skip
    scale.add_argument("--machines", type=_positive, default=200, help="one trial each (default %(default)s)")
    scale.add_argument("--rounds", type=_positive, default=3, help="trials of each machine (default %(default)s)")
    scale.add_argument("--pace", type=float, default=30.0, help="seconds of an epoch (default %(default)g)")


def _add_front(commands: Any) -> None:
    front = _command(
        commands, "front", "front.command:run", "whether one run with spectral cuts gives the whole front",
        "A study trains its search spaces by faar_ray.tune, in runs/front_... below --out, then compares: "
        + "; ".join(f"{study.name}: {study.question}" for study in STUDIES.values()),
        "embedded --resume",
    )  # fmt: skip
    front.add_argument("study", choices=[*STUDIES], help="what is compared")
    front.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="keys of all its search spaces")
    front.add_argument("--out", type=Path, default=Path(), help="folder of runs/ (default: this one)")
    front.add_argument("--resume", action="store_true", help="keep what is finished, go on with the rest")
    front.add_argument("--seeds", type=_positive, help="of every row (default: as its search space says)")
    front.add_argument("--tables", action="store_true", help="train nothing: compare what is there")
    front.add_argument("--quick", action="store_true", help="in small, to see that it runs")


if __name__ == "__main__":
    run_process(main)
