"""`python -m faar_ray.tune SPACE.yaml`: search, and answer which configuration and at what cost."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from faar_ray.errors import FaarRayError
from faar_ray.tools import tool

EXAMPLE = """examples:
  python -m faar_ray.tune search_spaces/rho.yaml
  python -m faar_ray.tune search_spaces/rho.yaml budget.trials=20 pdrs.beta=0.9 --name rho_long
  python -m faar_ray.tune search_spaces/rho.yaml --resume
  python -m faar_ray.tune search_spaces/rho.yaml --dry-run

exit codes: 0 ok; 1 unexpected; 2 usage or config; 3 too many failed trials;
            4 no feasible finished trial; 130 interrupted"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(
        prog="python -m faar_ray.tune",
        description="Search the space of a YAML file; every result is on disk and in MLflow.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    out.add_argument("space", metavar="SPACE.yaml", type=Path, help="the search space")
    out.add_argument("overrides", metavar="key=value", nargs="*", help="replaces a key of the file")
    out.add_argument("--dry-run", action="store_true", help="show what would run and start nothing")
    out.add_argument("--resume", action="store_true", help="go on with a run that was interrupted or killed")
    out.add_argument("--name", help="name of the run and its folder (default: the file's `name`)")
    out.add_argument("--address", help="a Ray cluster, e.g. auto (default: this machine alone)")
    out.add_argument("--json", action="store_true", help="end with one JSON line on stdout; all else goes to stderr")
    loudness = out.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", action="store_true", help="only the answer")
    loudness.add_argument("-v", "--verbose", action="store_true", help="every epoch as a line")
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit code."""
    raw = list(sys.argv[1:] if argv is None else argv)
    options = parser().parse_intermixed_args(raw)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _run(options)
    except FaarRayError as fault:
        print(fault, file=sys.stderr)
        return fault.exit_code
    except KeyboardInterrupt:
        command = shlex.join(
            [tool("python"), "-m", "faar_ray.tune", *raw, *([] if "--resume" in raw else ["--resume"])]
        )
        print(f"\ninterrupted; this goes on from here:\n  {command}", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    warnings.filterwarnings("ignore")
    from faar_ray.tune.space import read_space

    named = [] if options.name is None else [f"name={json.dumps(options.name)}"]
    space = read_space(options.space, [*options.overrides, *named])
    from faar_ray.train.capacity import capacity, this_machine
    from faar_ray.train.preflight import preflight
    from faar_ray.tune.run_folder import check_name, folder_of

    for over in ({}, *space.controls):
        preflight(space.trial_config(over), space.resources.workers)
    room = capacity(space.resources, [this_machine()]) if options.address is None else None
    console = Console(stderr=options.json, highlight=False)
    if options.dry_run:
        from faar_ray.tune.dry_run import show_plan

        show_plan(console, space, room)
        return 0
    check_name(folder_of(space, space.name), space, resume=options.resume)
    from faar_ray.tune.command import search_and_answer

    return search_and_answer(space, options, console)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
