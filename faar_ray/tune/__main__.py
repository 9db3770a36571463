"""`python -m faar_ray.tune SPACE.yaml`: search, and answer which configuration and at what cost."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from faar_ray.command_line import hide_passwords, run_command, run_process
from faar_ray.errors import ConfigError
from faar_ray.tools import shell_command, tool_command

if TYPE_CHECKING:
    from faar_ray.tune.space.space import SearchSpace

EXAMPLE = """examples:
  python -m faar_ray.tune search_spaces/rho.yaml
  python -m faar_ray.tune search_spaces/rho.yaml budget.trials=20 pdrs.beta=0.9 --name rho_long
  python -m faar_ray.tune search_spaces/rho.yaml --resume
  python -m faar_ray.tune search_spaces/rho.yaml --dry-run
  python -m faar_ray.tune search_spaces/rho.yaml --dry-run resources.cluster=clusters/aws.yaml
  python -m faar_ray.tune search_spaces/rho.yaml --address auto storage.path=s3://BUCKET/runs

exit codes: 0 ok; 1 unexpected, or a full disk (goes on by --resume); 2 usage or config;
            3 too many failed trials; 4 no feasible finished trial; 130 interrupted"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(
        prog="python -m faar_ray.tune",
        description="Search the space of a YAML file; every result is on disk and in MLflow.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    out.add_argument("space", metavar="SPACE.yaml", type=Path, nargs="?", help="the search space")
    out.add_argument("overrides", metavar="key=value", nargs="*", help="replaces a key of the file")
    out.add_argument(
        "--dry-run", action="store_true", help="show what would run, there with --address, and start nothing"
    )
    out.add_argument("--resume", action="store_true", help="go on with a run that was interrupted or killed")
    out.add_argument("--name", help="name of the run and its folder (default: the file's `name`)")
    out.add_argument("--address", help="a Ray cluster, e.g. auto (default: this machine alone)")
    out.add_argument(
        "--json",
        action="store_true",
        help="end with one JSON line on stdout; what happens goes to stderr, a JSON line each",
    )
    loudness = out.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", action="store_true", help="only the answer")
    loudness.add_argument("-v", "--verbose", action="store_true", help="every epoch as a line")
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit code."""
    if argv is None:
        hide_passwords()
    raw = list(sys.argv[1:] if argv is None else argv)
    options = parser().parse_intermixed_args(raw)
    again = raw if "--resume" in raw else [*raw, "--resume"]
    options.resume_command = shell_command([tool_command("python"), "-m", "faar_ray.tune", *again])
    return run_command(lambda: _run(options), options.resume_command)


def missing_space(resume: bool) -> str:
    """What to type where no file was named, with the runs that are here."""
    runs = sorted(Path("runs").glob("*/space.yaml"), key=lambda file: file.stat().st_mtime, reverse=True)
    lines = [f"SPACE.yaml is missing: python -m faar_ray.tune SPACE.yaml{' --resume' if resume else ''}"]
    if resume and runs:
        lines.append("runs in ./runs, the latest first:")
        lines += [f"  python -m faar_ray.tune {shlex.quote(str(file))} --resume" for file in runs[:5]]
    return "\n".join(lines)


def _run(options: argparse.Namespace) -> int:
    warnings.filterwarnings("ignore")
    from faar_ray.config.validation_messages import locate
    from faar_ray.tune.space.overridden_path import space_path
    from faar_ray.tune.space.space import read_document, space_of

    if options.space is None or "=" in str(options.space):
        raise ConfigError(missing_space(options.resume))
    named = [] if options.name is None else [f"name={json.dumps(options.name)}"]
    document = read_document(options.space, [*options.overrides, *named])
    space = space_of(document)
    from faar_ray.tune.propose.warm_start import OlderRunFault

    try:
        return _start(space, options)
    except OlderRunFault as fault:
        raise fault.at(document) from None
    except ConfigError as fault:
        raise locate(fault, document, space_path) from None


def _start(space: SearchSpace, options: argparse.Namespace) -> int:
    from faar_ray.tracking.place import tracking_place
    from faar_ray.train.preflight import preflight
    from faar_ray.train.weights import check_same_weights, weights_of
    from faar_ray.tune.propose.related_draws import check_relations
    from faar_ray.tune.run.remote_run import check_remote
    from faar_ray.tune.run.resolved_search import resolve
    from faar_ray.tune.run.run_folder import (
        check_resumable,
        read_run,
        recorded_tracking,
        with_checkpoint,
        with_first_checkpoint,
    )

    first_line = ""
    if not options.resume:
        tracking, first_line = tracking_place(space.tracking)
        space = space.model_copy(update={"tracking": tracking})
    base = space.trial_config({})
    preflight(base, space.resources.workers)
    checked = {base.data}
    for index, control in enumerate(space.controls):
        config = space.trial_config(control)
        try:
            preflight(config, space.resources.workers, data=config.data not in checked)
        except ConfigError as fault:
            raise ConfigError([f"controls.{index}.{text}" for text in fault.faults]) from None
        checked.add(config.data)

    check_relations(space)
    if space.front is not None or "ranks.budget" in space.parameters:
        from faar_ray.tune.run.front_sizes import check_budgets, check_sizes

        check_sizes(space)
        check_budgets(space)
    console = Console(file=sys.stderr if options.json else sys.stdout, highlight=False)
    search = resolve(space, options.address, dry_run=options.dry_run)
    if options.dry_run:
        from faar_ray.tune.show.dry_run import show_search

        if first_line:
            console.print(Text(f"# {first_line}"), soft_wrap=True)
        show_search(console, search)
        return 0

    place = search.location
    look = check_remote(place, resume=options.resume) if place.uri else place
    if options.resume:  # where nobody says otherwise, a run stays where it is
        space = space.model_copy(update={"tracking": tracking_place(space.tracking, recorded_tracking(look.path))[0]})
        search = replace(search, space=search.space.model_copy(update={"tracking": space.tracking}))
    space, moved = with_first_checkpoint(look.path, space) if options.resume else (space, {})
    if options.resume or not place.uri:
        check_resumable(look.path, space, resume=options.resume)
    weights = weights_of((space.trial_config(one) for one in ({}, *space.controls)), moved)
    if options.resume:
        check_same_weights(read_run(look.path).get("weights", {}), weights, moved)
    from faar_ray.tune.command import search_and_answer

    search = replace(search, space=with_checkpoint(search.space, space), weights=weights, moved=moved)
    return search_and_answer(search, options, console, first_line)


if __name__ == "__main__":
    run_process(main)
