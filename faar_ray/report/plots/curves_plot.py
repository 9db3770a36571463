"""Learning curves: quality by epoch, a line per trial, or per configuration where there are many."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from faar_ray.records import TrialResult
from faar_ray.report.history import MetricCurve
from faar_ray.report.statistics.table import Row
from faar_ray.report.words.wording import axis_label
from faar_ray.tracking.plots.drawing import INK, MUTED, bare, save

DASHES = ("-", "--", ":", "-.")
MOST_LINES = 24
"""More trials than this are drawn as the mean of each configuration."""
OTHER = "#b4b9c1"


def plot_curves(
    curves: Mapping[str, MetricCurve],
    results: Sequence[TrialResult],
    rows: Sequence[Row],
    palette: Mapping[str, str],
    quality: str,
    out: Path,
) -> bool:
    """Draw `quality` by epoch (PNG), coloured by configuration, dashed by seed; False without curves."""
    drawn = [r for r in results if r.role != "reference" and curves.get(r.trial_id)]
    if not drawn:
        return False
    figure = Figure(figsize=(8.6, 4.4), layout="constrained")
    ax = figure.subplots()
    bare(ax)
    many = len(drawn) > MOST_LINES
    named = {row.config_id for row in _named(rows)}
    handles, names = _means(ax, drawn, curves, palette, named) if many else _each(ax, drawn, curves, palette)
    _focus(ax, [curves[r.trial_id] for r in drawn if r.state == "COMPLETE"])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("epoch", fontsize=9, color=INK)
    ax.set_ylabel(axis_label(quality), fontsize=9, color=INK)
    shown = _named([row for row in rows if any(r.config_id == row.config_id for r in drawn)])
    handles = [*(ax.plot([], [], color=palette[row.config_id], linewidth=2)[0] for row in shown), *handles]
    names = [*(row.name for row in shown), *names]
    figure.legend(handles, names, loc="outside right upper", frameon=False, fontsize=8, labelcolor=INK)
    save(figure, out)
    return True


def _each(
    ax: Axes, drawn: Sequence[TrialResult], curves: Mapping[str, MetricCurve], palette: Mapping[str, str]
) -> tuple[list[Line2D], list[str]]:
    """A line per trial, dashed by seed; gives the legend entries beside the configurations."""
    seeds = sorted({r.seed for r in drawn})
    for r in sorted(drawn, key=lambda r: r.state == "COMPLETE"):
        _line(ax, r, curves[r.trial_id], palette.get(r.config_id, OTHER), DASHES[seeds.index(r.seed) % len(DASHES)])
    handles, names = [], []
    if any(r.state == "PRUNED" for r in drawn):
        handles.append(ax.plot([], [], color=MUTED, marker="x", markersize=5, linewidth=1)[0])
        names.append("stopped early")
    if len(seeds) > 1:
        for i, seed in enumerate(seeds[: len(DASHES)]):
            handles.append(ax.plot([], [], color=MUTED, linestyle=DASHES[i], linewidth=1.3)[0])
            names.append(f"seed {seed}")
    return handles, names


def _named(rows: Sequence[Row]) -> list[Row]:
    """Configurations with a colour in the legend: all, or where these are too many those of the front and controls."""
    if len(rows) <= MOST_LINES:
        return list(rows)
    return sorted((row for row in rows if row.on_front or row.role != "trial"), key=_beside_the_answer)[:MOST_LINES]


def _beside_the_answer(row: Row) -> tuple[bool, bool]:
    return not row.recommended, row.role == "trial"


def _means(
    ax: Axes,
    drawn: Sequence[TrialResult],
    curves: Mapping[str, MetricCurve],
    palette: Mapping[str, str],
    named: Collection[str],
) -> tuple[list[Line2D], list[str]]:
    """A line per configuration, the mean over its complete trials; pale where the legend does not name it."""
    groups: dict[str, list[MetricCurve]] = {}
    for r in drawn:
        if r.state == "COMPLETE":
            groups.setdefault(r.config_id, []).append(curves[r.trial_id])
    for config_id, group in groups.items():
        epochs = [epoch for epoch, _ in group[0]]
        values = [fmean(dict(curve)[e] for curve in group if e in dict(curve)) for e in epochs]
        if config_id in named:
            ax.plot(epochs, values, color=palette.get(config_id, OTHER), linewidth=1.8, zorder=3)
        else:
            ax.plot(epochs, values, color=OTHER, linewidth=0.8, alpha=0.5)
    if groups.keys() <= set(named):
        return [ax.plot([], [], color="none")[0]], ["(means over seeds)"]
    return [ax.plot([], [], color=OTHER, linewidth=0.8)[0]], [f"{len(groups.keys() - set(named))} others"]


def _line(ax: Axes, result: TrialResult, curve: MetricCurve, colour: str, dash: str) -> None:
    epochs, values = zip(*curve, strict=True)
    stopped = result.state == "PRUNED"
    ax.plot(
        epochs,
        values,
        dash,
        color=MUTED if stopped else colour,
        linewidth=1.0 if stopped else 1.6,
        marker="" if len(curve) > 1 else "o",
        markersize=3,
    )
    if stopped:
        ax.plot(epochs[-1], values[-1], "x", color=MUTED, markersize=6)


def _focus(ax: Axes, finished: Sequence[MetricCurve]) -> None:
    """Scale the axis to the second half of training; the first epochs are far below."""
    late = [value for curve in finished for _, value in curve[len(curve) // 2 :]]
    if late and max(late) > min(late):
        span = max(late) - min(late)
        low, high = ax.get_ylim()
        ax.set_ylim(max(low, min(late) - 0.8 * span), min(high, max(late) + 0.8 * span))
