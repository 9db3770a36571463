"""`python -m faar_ray.export TRIAL (--adapter | --merge TASK | --rank-pattern) --out PATH`."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

from faar_ray.command_line import hide_passwords, refuse_repeats, run_command, run_process
from faar_ray.config.ranks.pattern import pattern_yaml
from faar_ray.errors import ConfigError
from faar_ray.export.merged_file import write_merged
from faar_ray.export.rank_pattern import rank_pattern
from faar_ray.export.read import CHECKPOINT_HELP, load_model, read_adapter_file
from faar_ray.export.trials import adapter_of
from faar_ray.storage.atomic import atomic_write, config_error_on_oserror, must_be_new
from faar_ray.tracking.place import default_tracking_uri

EXAMPLE = "example: python -m faar_ray.export rho/t003-s0 --merge semseg --out semseg.safetensors"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    if argv is None:
        hide_passwords()
    args = _parser().parse_args(argv)
    return run_command(lambda: print(export(args)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m faar_ray.export", description="Take a trained trial elsewhere.", epilog=EXAMPLE
    )
    refuse_repeats(parser)
    parser.add_argument(
        "trial", metavar="TRIAL", help="a trial's folder or URI, NAME/TRIAL_ID under ./runs, or an MLflow run"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--adapter", action="store_true", help="factors, magnitudes and heads (safetensors)")
    what.add_argument("--merge", metavar="TASK", help="a whole model of this task, adapters folded in (safetensors)")
    what.add_argument("--ranks", action="store_true", help="final ranks as `ranks.pattern` takes them (YAML)")
    what.add_argument(
        "--rank-pattern", action="store_true", help="final ranks as HF PEFT's LoraConfig takes them (YAML)"
    )
    parser.add_argument("--task", help="with --rank-pattern: ranks that this task sees; default: the shared adapters'")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help=f"with --merge: {CHECKPOINT_HELP}")
    parser.add_argument("--tracking-uri", default=default_tracking_uri(), help="where MLflow run ids are looked up")
    return parser


def export(args: argparse.Namespace) -> str:
    """Write the requested file; returns one sentence that describes it.

    Raises:
        ConfigError: the file exists, no such trial, a task that it has not, or a path that cannot be merged.
        DataError: its adapter file is damaged.
    """
    with config_error_on_oserror(args.out):
        return _export(args)


def _export(args: argparse.Namespace) -> str:
    must_be_new(args.out)
    if args.checkpoint and not args.merge:
        raise ConfigError("--checkpoint: only --merge needs the backbone's weights")
    source = adapter_of(args.trial, tracking_uri=args.tracking_uri)
    file = read_adapter_file(source)
    if args.adapter:
        with atomic_write(args.out) as scratch:
            shutil.copyfile(source, scratch)
        return f"{args.out}: adapters of {args.trial}, {len(file.ranks)} of them"
    if args.ranks:
        if not file.ranks:
            raise ConfigError(f"method {file.config.method} has no adapters, so there are no ranks")
        with atomic_write(args.out) as scratch:
            scratch.write_text(pattern_yaml(file.ranks, args.trial))
        return f"{args.out}: ranks of {len(file.ranks)} adapters, for a config or the base of a search space"
    if args.rank_pattern:
        pattern = rank_pattern(file.ranks, file.config, args.task)
        with atomic_write(args.out) as scratch:
            scratch.write_text(yaml.safe_dump(pattern, sort_keys=False))
        return f"{args.out}: ranks of {len(pattern['rank_pattern'])} linears, for peft.LoraConfig"
    kept = write_merged(args.out, load_model(file, source, args.checkpoint), file.config, args.merge)
    also = [task for task in kept if task != args.merge]
    why = f", and {', '.join(also)}, which XT-Cons makes it look at" if also else ""
    return f"{args.out}: {args.merge}{why}, without adapters"


if __name__ == "__main__":
    run_process(main)
