"""`python -m faar_ray.report NAME_OR_PATH [--out DIR]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from faar_ray.command_line import run_command, run_process
from faar_ray.report.source import find_run, read_search
from faar_ray.storage.atomic import config_error_on_oserror

EXAMPLE = """example:
  python -m faar_ray.report rho                     # ./runs/rho -> ./runs/rho/report/index.html
  python -m faar_ray.report /data/runs/rho --out /tmp/rho
  python -m faar_ray.report s3://bucket/runs/rho    # -> s3://bucket/runs/rho/report/index.html
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Build a report, log it to the search's MLflow run, and say where it is; give the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m faar_ray.report",
        description="HTML report of a search: the answer, the front, curves, ranks, all trials.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="NAME_OR_PATH", help="a run's name under ./runs, its folder, or its URI")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the report (default: the run's report/)")
    args = parser.parse_args(arguments)
    return run_command(lambda: _report(args.run, args.out))


def _report(run: str, out: Path | None) -> None:
    place = find_run(run)
    search = read_search(place.path)  # before matplotlib and MLflow are imported: errors come at once
    from faar_ray.report.build import build_report
    from faar_ray.report.history import log_report

    with config_error_on_oserror(out or place.path, "--out" if out else "report"):
        folder = build_report(place.path, out)
    remote = bool(place.uri) and out is None
    if remote:
        place.remote_copy().push("report")
    print(place.display_path("report", "index.html") if remote else folder / "index.html")

    if unfinished := str(search.progress):
        print("\n".join([unfinished, *search.progress.note.splitlines()]), file=sys.stderr)
    if not search.parent_run_id:
        print("not logged to MLflow: this search has not opened it yet", file=sys.stderr)
    elif reason := log_report(search.tracking_uri, search.parent_run_id, folder):
        print(f"not logged to MLflow: {reason}", file=sys.stderr)


if __name__ == "__main__":
    run_process(main)
