"""Rank correlation of early with final order, by epoch."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from faar_ray.report.plots.style import SEARCHED
from faar_ray.report.statistics.early_order import EarlyOrder
from faar_ray.tracking.plots.drawing import GRID, INK, MUTED, WARM, bare, save

FEWEST_POINTS = 3


def plot_early_order(order: EarlyOrder, out: Path) -> bool:
    """Draw it (PNG); False where there are too few epochs or trials for a curve."""
    if len(order.orders) < FEWEST_POINTS:
        return False
    figure = Figure(figsize=(8.6, 2.6), layout="constrained")
    ax = figure.subplots()
    bare(ax)
    epochs = [of.finished for of in order.orders]
    marker = "o" if len(epochs) <= 24 else ""

    ax.axhspan(-order.critical, order.critical, color=GRID, alpha=0.55, linewidth=0, zorder=0)
    ax.axhline(0, color=MUTED, linewidth=0.8)
    ax.text(
        order.epochs - 0.1,
        -order.critical,
        "no evidence of any order ",
        fontsize=7.5,
        color=MUTED,
        ha="right",
        va="bottom",
    )
    curves = [("over all trials", SEARCHED, [of.overall for of in order.orders])]
    if order.is_paired:
        curves.append(("within a seed", WARM, [of.within for of in order.orders]))
    for name, colour, values in curves:
        ax.plot(epochs, values, color=colour, marker=marker, markersize=4, linewidth=1.8, label=name)

    ax.set_ylim(-1.06, 1.06)
    ax.set_xlim(min(epochs) - 0.4, order.epochs)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel(f"finished epochs, of {order.epochs}", fontsize=9, color=INK)
    ax.set_ylabel("rank correlation\nwith the end", fontsize=9, color=INK)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8, labelcolor=INK)
    save(figure, out)
    return True
