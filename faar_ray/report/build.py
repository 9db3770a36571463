"""From a run's folder to `index.html` and its PNGs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from faar_ray.report.answer import Answer, answer
from faar_ray.report.curves_plot import plot_curves
from faar_ray.report.depth_plot import plot_depth
from faar_ray.report.front_plot import plot_front
from faar_ray.report.history import History, read_history
from faar_ray.report.page import Picture, render
from faar_ray.report.source import Search, read_search
from faar_ray.report.style import colours
from faar_ray.tracking.atomic import replacing
from faar_ray.tracking.rank_plot import plot_rank_trace

MOST_MAPS = 6


def build_report(run_folder: Path, out: Path | None = None) -> Path:
    """Write the report of a search; works without MLflow, and says what is then missing.

    Args:
        run_folder: with `run.json`, `results.parquet`, and, where they exist, `space.yaml` and `rank_trace/`.
        out: folder for the report, `<run_folder>/report` unless given.

    Returns:
        The folder.

    Raises:
        DataError: naming the file that is missing or broken.
    """
    search = read_search(run_folder.resolve())
    out = out if out is not None else run_folder / "report"
    out.mkdir(parents=True, exist_ok=True)
    found = answer(search.results, search.objectives)
    history = read_history(search.tracking_uri, search.parent_run_id, search.results, found.quality.name)
    hues = colours(found.rows)
    plots = list(_plots(search, found, history, hues, out))
    page = render(search, found, history, plots, list(_maps(search, found, out)))
    with replacing(out / "index.html") as scratch:
        scratch.write_text(page, encoding="utf-8")
    return out


def _plots(search: Search, found: Answer, history: History, hues: Mapping[str, str], out: Path) -> Iterator[Picture]:
    bars = "Bars: ± 1 standard error of the seed noise" if found.noise.dof else "No bars: the seed noise is unknown"
    front, curves, depth = out / "front.png", out / "curves.png", out / "ranks_by_depth.png"
    if plot_front(found, search.results, front):
        yield Picture(front, "Quality against cost", f"{bars}. Up and to the left is better.")
    if plot_curves(history.curves, search.results, found.rows, hues, found.quality.name, curves):
        yield Picture(curves, "Learning curves", "By epoch, on val; the axis shows the second half of training.")
    shown = [row for row in found.rows if row.on_front or row.recommended]
    if plot_depth(search.traces, shown, hues, depth):
        yield Picture(depth, "Ranks by depth and task", "Mean over the adapters of a stage, after the last epoch.")


def _maps(search: Search, found: Answer, out: Path) -> Iterator[Picture]:
    """Heat map of one trial for each configuration of the front, the recommended first."""
    rows = sorted((r for r in found.rows if r.on_front or r.recommended), key=lambda row: not row.recommended)
    for row in rows[:MOST_MAPS]:
        trial = next((t for t in row.trial_ids if t in search.traces and search.traces[t].num_rows), None)
        if trial is not None:
            file = out / f"rank_trace_{trial}.png"
            plot_rank_trace(search.traces[trial], file, f"{trial}: {row.name}")
            yield Picture(file, f"{trial}: {row.name}", "")
