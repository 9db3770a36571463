"""`python -m faar_ray.report NAME_OR_PATH [--out DIR]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from faar_ray.errors import FaarRayError
from faar_ray.report.source import find_run, read_search

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
    given = parser.parse_args(arguments)
    try:
        place = find_run(given.run)
        folder = place.path
        search = read_search(folder)  # before matplotlib and MLflow are imported: errors come at once
        from faar_ray.report.build import build_report

        out = build_report(folder, given.out)
        if place.uri and given.out is None:
            place.remote_copy().push("report")
        print(place.display_path("report", "index.html") if place.uri and given.out is None else out / "index.html")
        _log(search.tracking_uri, search.parent_run_id, out)
    except FaarRayError as fault:
        print(fault, file=sys.stderr)
        return fault.exit_code
    except OSError as fault:
        print(f"{fault.filename or given.out}: cannot be written ({fault.strerror})", file=sys.stderr)
        return 2
    return 0


def _log(uri: str, parent: str, out: Path) -> None:
    from faar_ray.report.history import log_report

    fault = log_report(uri, parent, out)
    if fault:
        print(f"not logged to MLflow: {fault}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
