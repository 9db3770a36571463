"""Names beside points that are close together."""

from __future__ import annotations

import math
from itertools import combinations

from matplotlib.text import Annotation, Text

from faar_ray.report.plots.costs_plot import Costed, _drawn


def test_names_of_crowded_points_are_all_there_and_cover_no_other_name_and_no_point() -> None:
    """Most methods have one size, and quality differs little: as in the comparison of methods."""
    points = [
        Costed(f"method_{i}_of_many", "ab"[i % 2], -5 + 0.31 * (i * 7 % 26), math.inf, 3e5 + 100 * i, 1.5 + 0.02 * i)
        for i in range(26)
    ]
    figure, left_out = _drawn(points, ["a", "b"], "delta_m", "step", 5.4)
    assert left_out == []
    for ax, costs in zip(figure.axes, ([p.parameters for p in points], [p.step for p in points]), strict=True):
        texts = [text for text in ax.texts if isinstance(text, Annotation) and text.get_text()]
        assert sorted(text.get_text() for text in texts) == sorted(point.name for point in points)
        boxes = [Text.get_window_extent(text) for text in texts]
        assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
        places = ax.transData.transform([(x, p.quality) for x, p in zip(costs, points, strict=True)])
        assert not any(box.contains(*place) for box in boxes for place in places)
        inside = ax.get_window_extent()
        assert all(inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1) for box in boxes)
