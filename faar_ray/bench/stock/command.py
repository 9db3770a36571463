"""`bench stock` on the command line."""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

EXAMPLE = "example: python -m faar_ray.bench stock search_spaces/rho.yaml search.startup_trials=10 budget.trials=24"
NAMES = {"faar_ray": "faar_ray", "stock": "Ray Tune: OptunaSearch + ASHA", "difference": "difference"}


def add_parser(commands: Any, positive: Any) -> None:
    """The subcommand `stock`."""
    stock = commands.add_parser(
        "stock",
        help="our search against plain Ray Tune's",
        description="Searches one space twice for each seed, with this package and with plain Ray Tune, its "
        "OptunaSearch and its ASHA, which train the same trials, and compares the hypervolume of what "
        "finished over spent epochs. Replicates and controls, which only one of them has, are left out.",
        epilog=EXAMPLE,
    )
    stock.add_argument("space", type=Path, help="search-space YAML with several objectives")
    stock.add_argument("overrides", nargs="*", metavar="key=value", help="as for faar_ray.tune")
    stock.add_argument("--seeds", type=positive, default=5, help="of the searches (default %(default)s)")
    stock.add_argument("--out", type=Path, help="empty folder to keep runs, figures and plot in (default: not kept)")
    stock.add_argument("--json", action="store_true", help="one JSON object instead of a table")


def run(args: argparse.Namespace) -> int:
    """Run it; returns the exit code.

    Raises:
        ConfigError: a space that cannot be searched in both ways, or a folder that holds something.
    """
    from faar_ray.bench.stock.compare import compared, curves
    from faar_ray.bench.stock.plot import plot_curves
    from faar_ray.bench.stock.run_both import comparable, run_both
    from faar_ray.errors import ConfigError
    from faar_ray.tune.space.space import read_space

    console = Console(stderr=True, highlight=False)
    space = comparable(read_space(args.space, args.overrides))
    if args.out is not None and args.out.exists() and any(args.out.iterdir()):
        raise ConfigError(f"--out: must be an empty folder, got {args.out}")
    with tempfile.TemporaryDirectory(prefix="stock-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch) if args.out is None else args.out.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        runs = run_both(space, folder, args.seeds, functools.partial(console.print, soft_wrap=True))
        signs = [-1.0 if goal.goal == "maximize" else 1.0 for goal in space.objectives]
        found = compared(runs, signs)
        (folder / "stock.json").write_text(json.dumps(found, indent=1))
        plot_curves(curves(runs, signs), found["epochs"], folder / "stock.png")
    if args.json:
        print(json.dumps(found))
    else:
        Console().print(table_of(found), *sentences(found), sep="\n")
        if args.out is not None:
            console.print(f"plot: {args.out / 'stock.png'}", soft_wrap=True)
    return 0


def table_of(found: dict[str, Any]) -> Table:
    """Both ways after quarters of the budget."""
    title = f"hypervolume of the front of finished trials, {found['seeds']} seeds, mean and 95% interval"
    table = Table("epochs spent", *NAMES.values(), title=title)
    for row in found["rows"]:
        table.add_row(str(row["epochs"]), *(percent(row[name]) for name in NAMES))
    return table


def percent(pair: tuple[float, float]) -> str:
    """A mean and its interval."""
    return f"{100 * pair[0]:.1f} ± {100 * pair[1]:.1f} %"


def sentences(found: dict[str, Any]) -> list[str]:
    """What the table does not say."""
    of = {name: [row for row in found["searches"] if row["search"] == name] for name in ("faar_ray", "stock")}
    ended = {
        name: f"{sum(row['finished'] for row in rows)} of {sum(row['trials'] for row in rows)}"
        for name, rows in of.items()
    }
    told = sum(row["told_complete_but_stopped"] for row in of["stock"])
    unfinished = found["counting_unfinished"]
    return [
        f"trials that trained to the end: faar_ray {ended['faar_ray']}, stock {ended['stock']}; of those that it "
        f"stopped early, stock told Optuna {told} as complete",
        f"counting stopped trials by their last epoch too: faar_ray {percent(unfinished['faar_ray'])}, stock "
        f"{percent(unfinished['stock'])}",
    ]
