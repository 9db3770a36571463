"""A dry run's text about `front`: the trunk of the base, its points, and the epochs of both."""

from __future__ import annotations

from faar_ray.config.trial import TrialConfig
from faar_ray.report.statistics.groups import size_name
from faar_ray.tune.space.front import Point, own_epochs, points_of
from faar_ray.tune.space.space import SearchSpace


def base_points(space: SearchSpace) -> tuple[int, list[Point]]:
    """Full size and points of a trial of the base; builds its model. (0, []) without `front`."""
    if space.front is None:
        return 0, []
    from faar_ray.tune.run.front_sizes import size_range  # seconds to import

    config = space.trial_config({})
    full = size_range(config).full
    return full, points_of(space.front, full, config)


def front_words(config: TrialConfig, full: int, points: list[Point]) -> str:
    """The trunk, each point, and the epochs of all.

    Args:
        config: of the trunk.
        full: its adapter parameters.
        points: of it.
    """
    epochs = config.optim.epochs
    names = {point: size_name(point.size) for point in points}
    width = max(map(len, ("the trunk", *names.values())))
    lines = [
        "# the front of a trial of the base",
        f"{'the trunk':<{width}}  {full:,} adapter parameters, {epochs} epochs",
    ]
    lines += [f"{name:<{width}}  {_words(point, epochs)}" for point, name in names.items()]

    own = own_epochs(points, epochs)
    alone = epochs * (1 + len(points))
    return "\n".join(
        [*lines, f"epochs: {epochs + own}, of them {own} of its points; {alone} if each size trained alone"]
    )


def _words(point: Point, epochs: int) -> str:
    rest = epochs - point.inherited
    if not rest:
        return "cut after the last epoch, not trained after it"
    return f"cut after epoch {point.inherited} of {epochs}, then {rest} epoch{'s' if rest > 1 else ''}"
