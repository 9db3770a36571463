"""Builds the report of a run: `index.html` and its PNGs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import nan
from pathlib import Path

from optuna import Study

from faar_ray.config.ranks.pattern import pattern_yaml
from faar_ray.errors import DataError
from faar_ray.report.history import History, MetricCurve, read_history
from faar_ray.report.page import Picture, RankSection, render
from faar_ray.report.plots.curves_plot import plot_curves
from faar_ray.report.plots.depth_plot import plot_depth
from faar_ray.report.plots.early_plot import plot_early_order
from faar_ray.report.plots.front_plot import plot_front
from faar_ray.report.plots.importance_plot import plot_importance
from faar_ray.report.plots.over_time_plot import plot_over_time
from faar_ray.report.plots.panels_plot import is_two_objective, plot_panels
from faar_ray.report.plots.rank_map import plot_rank_map
from faar_ray.report.plots.style import colors
from faar_ray.report.source import Search, ended_order, limit_of, read_journal_or_none, read_search
from faar_ray.report.statistics.early_order import early_order
from faar_ray.report.statistics.importance import importances
from faar_ray.report.statistics.over_time import over_time, over_time_caption, write_over_time
from faar_ray.report.statistics.table import Row
from faar_ray.report.words.answer import Answer, build_answer, pooled_noise
from faar_ray.report.words.early_words import early_sentences
from faar_ray.report.words.importance_words import importance_sentences
from faar_ray.report.words.rank_words import rank_sentences, recommended_ranks
from faar_ray.storage.atomic import atomic_write
from faar_ray.storage.run_location import TrialPaths
from faar_ray.tracking.files.epoch_file import read_epochs
from faar_ray.tracking.plots.rank_plot import plot_rank_trace

MOST_MAPS, MOST_DEPTHS = 6, 8
TIME, PATTERN = "over_time.png", "ranks.yaml"
KNEE = (
    "The knee is the point of the front farthest from the line between its ends, both objectives scaled to the front."
)
SURFACE = (
    "With several other objectives the front is a surface: a point that looks dominated in one panel may be on the "
    "front because of another. No knee is computed."
)
EARLY = (
    "Spearman's correlation of the order after so many epochs with the final one, over complete trials; within a seed: "
    "with each seed's mean taken off. In the grey band so few trials are no evidence of any order (95%)."
)
RANKS = (
    "Means over the blocks of a stage and over seeds. A grey cell cannot be told from the mean of all adapters (95%, "
    "Bonferroni's correction over all cells). Differences are paired over seeds, with Tukey's intervals, which hold "
    "for all pairs of a kind at once; those of tasks are over the layers that all tasks have."
)
IMPORTANCE = (
    "Share of an objective's variance over the finished trials that a random forest explains by splits on a parameter "
    "(Optuna's mean decrease of impurity). Pale: the gap between the best and the worst values of the parameter is "
    "within the seed noise. Grey text: a conditional parameter, over the trials that have it."
)


def build_report(run_folder: Path, out: Path | None = None) -> Path:
    """Write the report of a search. It works without MLflow and then names what is missing.

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
    answer = build_answer(search.results, search.objectives, search.limits)
    history = read_history(search.tracking_uri, search.parent_run_id, search.results, answer.quality.name)
    palette = colors(answer.rows)
    journal = read_journal_or_none(search.folder)
    study = None if search.listed else journal
    plots = [*_front(search, answer, study, out), *_importance(search, study, out)]
    plots += _curves(search, answer, history, palette, out)
    ranks = _rank_section(search, answer, out)
    page = render(search, answer, history, plots, list(_maps(search, answer, out)), limit_of(journal), ranks)
    with atomic_write(out / "index.html") as scratch:
        scratch.write_text(page, encoding="utf-8")
    return out


def _rank_section(search: Search, answer: Answer, out: Path) -> RankSection | None:
    """Which ranks the recommended configuration found; None where it has no adapters or no trace."""
    ranks = recommended_ranks(answer, search.traces.get)
    if ranks is None:
        return None
    sentences = tuple(rank_sentences(ranks))
    if ranks.unchanged:
        return RankSection(None, "", sentences)
    seeds = "the mean over seeds" if len(ranks.seeds) > 1 else "one seed"
    with atomic_write(out / PATTERN) as scratch:
        scratch.write_text(pattern_yaml(ranks.pattern, f"{ranks.name}, {seeds}"), encoding="utf-8")
    file = out / "ranks.png"
    plot_rank_map(ranks, file)
    caption = RANKS if ranks.overall.dof else "Means over the blocks of a stage, of one seed."
    return RankSection(file, caption, sentences, ranks.groupings)


def _front(search: Search, answer: Answer, study: Study | None, out: Path) -> Iterator[Picture]:
    """The front, and the search over time; the numbers of the latter also as JSON."""
    bars = "Bars: 95% interval by the pooled seed noise" if answer.noise.dof else "No bars: the seed noise is unknown"
    front = out / "front.png"
    if not is_two_objective(answer):
        if plot_panels(answer, front):
            yield Picture(front, "Quality against every other objective", f"{bars}. {SURFACE}")
    elif plot_front(answer, search.results, search.limits, front):
        better = "Up" if answer.quality.goal == "maximize" else "Down"
        knee = f" {KNEE}" if answer.knee else ""
        yield Picture(front, "Quality against cost", f"{bars}. {better} and to the left is better.{knee}")
    traced = over_time(search.results, search.objectives, search.limits, ended_order(study))
    if traced is not None and len(traced.steps) > 1:
        write_over_time(out / "over_time.json", traced)
        plot_over_time(
            traced, {r.trial_id: r.metrics.get(answer.quality.name, nan) for r in search.results}, out / TIME
        )
        yield Picture(out / TIME, "The search over time", over_time_caption(traced))


def _importance(search: Search, study: Study | None, out: Path) -> Iterator[Picture]:
    """Importances, or why there are none; nothing where no sampler searched (no journal)."""
    if study is None:
        return
    goals = search.study_objectives
    noise = {goal.name: pooled_noise(search.results, goal.name) for goal in goals}
    shares = importances(study, goals, noise)
    file = out / "importance.png"
    drawn = plot_importance(shares, file)
    yield Picture(
        file if drawn else None, "Importance of parameters", IMPORTANCE * drawn, tuple(importance_sentences(shares))
    )


def _curves(
    search: Search, answer: Answer, history: History, palette: Mapping[str, str], out: Path
) -> Iterator[Picture]:
    curves, depth = out / "curves.png", out / "ranks_by_depth.png"
    if plot_curves(history.curves, search.results, answer.rows, palette, answer.quality.name, curves):
        yield Picture(curves, "Learning curves", "By epoch, on val; the axis shows the second half of training.")
    yield from _early_order(search, answer, history, out)
    shown, front = along_front(answer.rows, MOST_DEPTHS), sum(row.on_front for row in answer.rows)
    if plot_depth(search.traces, shown, palette, depth):
        subset = f" {len(shown)} of the {front} configurations of the front." if front > len(shown) else ""
        yield Picture(
            depth, "Ranks by depth and task", f"Mean over the adapters of a stage, after the last epoch.{subset}"
        )


def _early_order(search: Search, answer: Answer, history: History, out: Path) -> Iterator[Picture]:
    """How well early order told the end; nothing where members of a population share their past."""
    metric = answer.quality.name
    if search.scheduler == "pbt":
        return
    order = early_order(search.results, history.curves or _local_curves(search, metric), metric)
    if order is not None:
        file = out / "early_order.png"
        drawn = plot_early_order(order, file)
        sentences = tuple(early_sentences(order))
        yield Picture(file if drawn else None, "How well early order told the end", EARLY * drawn, sentences)


def _local_curves(search: Search, metric: str) -> dict[str, MetricCurve]:
    """The metric by epoch of complete trials, from their own files, where these are here."""
    curves: dict[str, MetricCurve] = {}
    for result in search.results:
        if result.state == "COMPLETE":
            try:
                epochs = read_epochs(TrialPaths(search.folder, result.trial_id))
            except DataError:
                continue
            curves[result.trial_id] = [(epoch, of[metric]) for epoch, of in epochs.items() if metric in of]
    return curves


def _maps(search: Search, answer: Answer, out: Path) -> Iterator[Picture]:
    """Rank heat maps of one trial each, for configurations along the front, the recommended one first."""
    for row in sorted(along_front(answer.rows, MOST_MAPS), key=lambda row: not row.recommended):
        trial = next((t for t in row.trial_ids if t in search.traces and search.traces[t].num_rows), None)
        if trial is not None:
            file = out / f"rank_trace_{trial}.png"
            plot_rank_trace(search.traces[trial], file, f"{trial}: {row.name}")
            yield Picture(file, f"{trial}: {row.name}", "")


def along_front(rows: Sequence[Row], most: int) -> list[Row]:
    """The recommended configuration and those of the front; at most `most`, spread along the front."""
    pick = [row for row in rows if row.recommended]
    front = [row for row in rows if row.on_front and not row.recommended]
    others = most - len(pick)
    if len(front) > others:
        front.sort(key=lambda row: row.cost or 0.0)
        front = [front[round(i * (len(front) - 1) / max(1, others - 1))] for i in range(others)]
    chosen = {row.config_id for row in (*pick, *front)}
    return [row for row in rows if row.config_id in chosen and (row.on_front or row.recommended)]
