"""Colours by configuration, the same in every plot."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import colormaps
from matplotlib.colors import to_hex

from faar_ray.report.statistics.table import Row
from faar_ray.tracking.plots.drawing import WARM

SEARCHED = "#2a6f97"
CONTROL = WARM
KNEE = "#7a4a9e"
CONTROLS = (WARM, "#a63a6f", "#8a6d00", "#5b6470")


def colors(rows: Sequence[Row]) -> dict[str, str]:
    """A colour per configuration: searched ones darken with their cost, controls are warm colours."""
    searched = sorted((r for r in rows if r.role == "trial"), key=lambda r: r.cost or 0.0)
    steps = [0.75 - 0.72 * i / max(1, len(searched) - 1) for i in range(len(searched))]
    palette = {r.config_id: to_hex(colormaps["viridis"](x)) for r, x in zip(searched, steps, strict=True)}
    others = (r for r in rows if r.role != "trial")
    return palette | {r.config_id: CONTROLS[i % len(CONTROLS)] for i, r in enumerate(others)}
