"""One search from the command line: run it, show the answer, print the next commands."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from contextlib import redirect_stdout

from rich.console import Console
from rich.text import Text

from faar_ray.report.words.protocol import measured_as
from faar_ray.storage.run_location import RunLocation
from faar_ray.tools import shell_command, tool_command, where_to_look
from faar_ray.tracking.files.rank_trace import read_rank_trace
from faar_ray.tracking.mlflow.sync_thread import updates
from faar_ray.tune.propose.stopping_rules import build_stopping_rule
from faar_ray.tune.run.jobs import config_of
from faar_ray.tune.run.resolved_search import ResolvedSearch
from faar_ray.tune.search import Outcome, run_search
from faar_ray.tune.show.json_lines import JsonLines
from faar_ray.tune.show.outcome import json_line, show_answer, show_list, show_ranks
from faar_ray.tune.show.progress import Progress
from faar_ray.tune.show.reporter import Reporter
from faar_ray.tune.space.space import SearchSpace


def search_and_answer(
    search: ResolvedSearch, options: argparse.Namespace, console: Console, first_line: str = ""
) -> int:
    """Run the search; gives the exit code.

    Args:
        search: what is searched, and where.
        options: of the command line.
        console: for people; what libraries print goes to stderr.
        first_line: what is said before anything starts.
    """
    space = search.space
    verbosity = -1 if options.quiet else int(options.verbose)
    shown = list(
        dict.fromkeys([*build_stopping_rule(space).goals, *(objective.name for objective in space.objectives)])
    )
    lines = options.json and not options.quiet and not console.is_terminal
    reporter: Reporter = (
        JsonLines(console.file) if lines else Progress(console, space.name, shown, space.budget.trials, verbosity)
    )
    with redirect_stdout(sys.stderr), reporter as progress:
        if first_line and not options.quiet:
            progress.note(first_line)
        outcome = run_search(search, progress, resume=options.resume, resume_command=options.resume_command)
    if not lines:
        _show(space, outcome, console)
        _show_next_commands(outcome, options, console)
    if options.json:
        configs = {result.trial_id: config_of(space, result) for result in outcome.best}
        name, where = space.name, (outcome.tracking_uri, outcome.parent_run_id)
        print(json_line(name, str(outcome.place), *where, outcome.counts, outcome.best, configs))
    if outcome.fault is not None:
        print(outcome.fault, file=sys.stderr)
        return outcome.fault.exit_code
    return 0


def _show(space: SearchSpace, outcome: Outcome, console: Console) -> None:
    measured = measured_as(space.trial_config({}).data, outcome.results)
    if outcome.results and space.search.listed and space.search.seeds > 1:
        trace = read_rank_trace(outcome.place.path / "rank_trace")
        show_list(console, outcome.answer, outcome.results, trace, measured)
    elif outcome.results:
        show_answer(console, outcome.answer, measured)
    show_ranks(console, outcome.answer, outcome.place)


def _show_next_commands(outcome: Outcome, options: argparse.Namespace, console: Console) -> None:
    """The limit that ended it, and the commands that a person types next."""
    lines = [""]
    again = shell_command([tool_command("python"), "-m", "faar_ray.tune", str(options.space), *options.overrides])
    name = f" --name {shlex.quote(options.name)}" if options.name else ""
    if outcome.limit:
        lines.append(f"The search ended early: {outcome.limit}.")
        lines.append(f"more of it   {again} {outcome.limit.partition(' ')[0]}=MORE{name} --resume")
    if outcome.unwritten:
        lines.append(f"MLflow is still unavailable and lacks {updates(outcome.unwritten)}; all data are on disk.")
        lines.append(f"complete it  {again}{name} --resume")
    lines.append(f"all runs     {where_to_look(outcome.tracking_uri, outcome.experiment_id)}")
    if (outcome.place.path / "report" / "index.html").is_file():
        lines.append(f"the report   {_near(outcome.place, 'report', 'index.html')}")
    lines.append(f"the data     {_near(outcome.place, 'results.parquet')}, {_near(outcome.place, 'rank_trace')}/")
    console.print(Text("\n".join(lines)), soft_wrap=True)


def _near(place: RunLocation, *parts: str) -> str:
    path = place.display_path(*parts)
    short = os.path.relpath(path)
    return path if place.uri or short.startswith("..") else short
