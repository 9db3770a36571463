"""Names beside the points of a plot, which cover no other name and no point and stay inside the axes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from faar_ray.tracking.plots.drawing import FAINT, INK

Side = Literal["left", "center", "right"]
Offset = tuple[float, float, Side]
"""From a point to its name, in points right and up, and the name's side that is there."""
HALO = withStroke(linewidth=1.6, foreground="white")
"""Around names, so that they stay legible over lines."""
ROOM = 7.0
"""Points around every point that stay free."""
LED_FROM = 14.0
"""Distance, in points, from which a line leads from a name to its point."""


@dataclass(frozen=True)
class Named:
    """A point in data coordinates and what to write beside it; "" only keeps its place free."""

    name: str
    x: float
    y: float
    colour: str = INK


def rings(radii: Sequence[float] = (10, 19, 30, 43, 58, 76, 98), angles: int = 16) -> Iterator[Offset]:
    """Offsets all around a point, near ones first, to the right before to the left."""
    turns = sorted((2 * math.pi * i / angles for i in range(angles)), key=lambda turn: -math.cos(turn))
    for radius in radii:
        for turn in turns:
            right = math.cos(turn)
            side: Side = "left" if right > 0.2 else "right" if right < -0.2 else "center"
            yield (radius * right, radius * math.sin(turn), side)


def place_names(
    figure: Figure, ax: Axes, points: Sequence[Named], offsets: Sequence[Offset], *, led: bool = False
) -> list[str]:
    """Write each name at the first of the offsets where it is free; gives the names that found no place.

    Args:
        figure: finished but for the names, which are placed by final positions: its layout is fixed here.
        ax: of the points.
        points: those that come first get the best places.
        offsets: to try, best first.
        led: whether a line leads from a name that is far to its point.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    inside = ax.get_window_extent()
    pixels = ax.transData.transform([(point.x, point.y) for point in points])
    room = ROOM * figure.dpi / 72
    taken = [Bbox.from_bounds(x - room, y - room, 2 * room, 2 * room) for x, y in pixels]
    lines: list[Path] = []
    left_out = []

    for point, pixel in zip(points, pixels, strict=True):
        if not point.name:
            continue
        text = ax.annotate(
            point.name, (point.x, point.y), (0, 0), textcoords="offset points", fontsize=7.5, va="center",
            color=point.colour, path_effects=[HALO],
        )  # fmt: skip
        for offset in offsets:
            box = _moved(text, offset)
            far = led and math.hypot(*offset[:2]) >= LED_FROM
            line = Path([tuple(pixel), _nearest(box, *pixel)]) if far else None
            if _is_free(box, line, inside, taken, lines):
                taken.append(box)
                if line is not None:
                    lines.append(line)
                    _lead(ax, point, text, line)
                break
        else:
            text.remove()
            left_out.append(point.name)
    return left_out


def _moved(text: Annotation, offset: Offset) -> Bbox:
    """Where a text then is, in pixels."""
    dx, dy, side = offset
    text.xyann = (dx, dy)
    text.set_horizontalalignment(side)
    return text.get_window_extent()


def _lead(ax: Axes, point: Named, text: Annotation, line: Path) -> None:
    """A line from a point's edge to its name."""
    x, y = ax.transData.inverted().transform(line.vertices)[1]
    arrow = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 4}
    ax.annotate("", (point.x, point.y), (x, y), arrowprops=arrow, zorder=text.zorder - 1)


def _nearest(box: Bbox, x: float, y: float) -> tuple[float, float]:
    """Of a box, the point that is nearest to another."""
    return min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1)


def _is_free(box: Bbox, line: Path | None, inside: Bbox, taken: Sequence[Bbox], lines: Sequence[Path]) -> bool:
    if not (inside.x0 < box.x0 and box.x1 < inside.x1 and inside.y0 < box.y0 and box.y1 < inside.y1):
        return False
    if any(box.overlaps(other) for other in taken) or any(other.intersects_bbox(box) for other in lines):
        return False
    return line is None or not any(line.intersects_path(other, filled=False) for other in lines)
