"""The pictures of a trial's traces, drawn when it ends."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from faar_ray.storage.run_location import TrialPaths
from faar_ray.tracking.files.rank_trace import read_rank_trace
from faar_ray.tracking.files.sine_trace import read_sine_trace

log = logging.getLogger(__name__)


def draw_pictures(trial: TrialPaths, title: str) -> bool:
    """Draw what lacks; True if anything was drawn. A picture that cannot be drawn is a warning and no error."""
    ranks = _draw(trial.trace, trial.rank_picture, read_rank_trace, _plot_ranks, title)
    sines = _draw(trial.sines, trial.sine_picture, read_sine_trace, _plot_sines, title)
    return ranks or sines


def _draw(
    trace: Path,
    picture: Path,
    read: Callable[[Path], pa.Table],
    plot: Callable[[pa.Table, Path, str], None],
    title: str,
) -> bool:
    if picture.exists() or not trace.is_file():
        return False
    try:
        if (table := read(trace)).num_rows == 0:
            return False
        plot(table, picture, title)
    except Exception as error:
        log.warning("%s: could not be drawn (%s: %s)", picture, type(error).__name__, error)
        return False
    return True


def _plot_ranks(table: pa.Table, out: Path, title: str) -> None:
    from faar_ray.tracking.plots.rank_plot import plot_rank_trace  # matplotlib takes a second to import

    plot_rank_trace(table, out, title)


def _plot_sines(table: pa.Table, out: Path, title: str) -> None:
    from faar_ray.tracking.plots.sine_plot import plot_sine_trace

    plot_sine_trace(table, out, title)
