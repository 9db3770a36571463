"""`python -m faar_ray.data pack|check|show DATASET`, `init FOLDER`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from faar_ray.command_line import run_command, run_process
from faar_ray.data.commands import check, init, pack, show

COMMANDS = (pack, check, show, init)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    args = _parser().parse_args(argv)
    return run_command(lambda: args.run(args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m faar_ray.data",
        description="Make, check and look at data sets.",
        epilog="example: python -m faar_ray.data show scenes --out out/scenes.png",
    )
    names = "|".join(command.__name__.rpartition(".")[2] for command in COMMANDS)
    commands = parser.add_subparsers(dest="command", required=True, metavar=names)
    for command in COMMANDS:
        command.add_to(commands)
    return parser


if __name__ == "__main__":
    run_process(main)
