"""The section `front`: every trial is a trunk, whose cuts to smaller sizes are the points of its front.

A size is a number of adapter parameters, or a share of the trunk's (`params/adapters`). A point trains as its trunk
does up to the end of its cut epoch; there its ranks are cut, and it trains the rest of the schedule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from faar_ray.config.quoting import quote_value
from faar_ray.config.ranks.by_stage import STAGES
from faar_ray.config.section import Section
from faar_ray.config.trial import TrialConfig
from faar_ray.config.validation_messages import Issue, raise_issues, rule
from faar_ray.records import BUDGET, CUT_EPOCH

Size = int | float
AUTO_SIZES: tuple[Size, ...] = (0.15, 0.27, 0.52)
"""About ranks 2, 4 and 8 of 16: magnitudes, which every rank has, are a few hundredths of the full size."""
AUTO_FORKS = ((0.2, 4 / 6), (0.35, 5 / 6))
"""(largest share of the full size, share of the epochs before the fork): what is cut farther trains longer after it."""
MAGNITUDES = 0.05
"""Their share of the full size, at most."""
KIND = "ranks.kind"
TRUNK, POINT = "fixed", "spectral"
"""`ranks.kind` of a trunk and of its points."""


def _number(key: Any) -> Any:
    """A size that JSON wrote as text."""
    try:
        return key if not isinstance(key, str) else int(key) if key.isdecimal() else float(key)
    except ValueError:
        return key


def _numbered(raw: Any) -> Any:
    return {_number(key): value for key, value in raw.items()} if isinstance(raw, Mapping) else raw


Sizes = Annotated[tuple[Size, ...], Field(min_length=1, strict=False)]
Share = Annotated[float, Field(gt=0, le=1), rule("satisfy 0 < share of the epochs <= 1")]
Forks = Annotated[dict[Size, Share], BeforeValidator(_numbered), rule("a mapping of sizes to shares of the epochs")]


class FrontConfig(Section):
    """One training for many sizes: each trial trains without masks at `ranks.init_rank`, and is then cut."""

    sizes: Literal["auto"] | Sizes = Field(
        "auto",
        description="Sizes that every trial is cut to beside its full one: adapter parameters (magnitudes included), "
        "or shares of the full size. auto: 0.15, 0.27 and 0.52, about ranks 2, 4 and 8 of 16.",
    )
    forks: Literal["auto", "none"] | Forks = Field(
        "auto",
        description="When a size is cut. none: after the last epoch, nothing trained after the cut. auto: sizes up to "
        "0.2 of the full one after 4/6 of the epochs, up to 0.35 after 5/6, larger ones after the last. Or a mapping "
        "of sizes to shares of the epochs before the cut, {0.15: 0.5}; a size that it lacks is cut as by auto.",
    )
    reference: dict[str, float] | None = Field(
        None,
        description="Several objectives: the reference point of the hypervolume, a value per objective in its own "
        "unit; null: half the range of the first trial's points beyond the worst of them, fixed from then on.",
    )

    @field_validator("sizes")
    @classmethod
    def _sizes_are_sizes(cls, sizes: Any) -> Any:
        raise_issues(_size_faults(sizes) if sizes != "auto" else ())
        return sizes

    @field_validator("forks")
    @classmethod
    def _forks_are_of_sizes(cls, forks: Any, info: Any) -> Any:
        if "sizes" in info.data and isinstance(forks, dict):
            known = sizes_of(info.data["sizes"])
            words = f"is none of front.sizes ({', '.join(map(str, known))})"
            raise_issues(Issue((str(size),), words) for size in forks if size not in known)
        return forks

    @property
    def listed(self) -> tuple[Size, ...]:
        """The sizes, those of `auto` too."""
        return sizes_of(self.sizes)


@dataclass(frozen=True, slots=True)
class Point:
    """One size of a trunk."""

    size: Size
    """Adapter parameters, or a share of the trunk's."""
    inherited: int
    """Epochs of the trunk that it goes on from; the last of them ends with the cut."""

    @property
    def name(self) -> str:
        """What its id ends with: `100k`, `100400`, `27pct`."""
        if isinstance(self.size, float):
            return f"{self.size * 100:.6g}pct".replace(".", "_")
        return f"{self.size // 1000}k" if self.size % 1000 == 0 else str(self.size)

    def keys(self) -> dict[str, Size]:
        """What it sets on top of its trunk's searched keys, without `ranks.kind`."""
        return {BUDGET: self.size, CUT_EPOCH: self.inherited - 1}


def sizes_of(sizes: Literal["auto"] | Sequence[Size]) -> tuple[Size, ...]:
    """The sizes that the key `sizes` names."""
    return AUTO_SIZES if isinstance(sizes, str) else tuple(sizes)


def points_of(front: FrontConfig, full: float, config: TrialConfig) -> list[Point]:
    """The points of a trunk, those that fork first before the others, and of these the small ones first.

    A size that is not below the trunk's own is none of them: the trunk is that. Nor is, with `auto`, a size at which
    not every adapter would keep `spectral.floor` components.

    Args:
        front: the section.
        full: adapter parameters of the trunk.
        config: of the trunk.
    """
    epochs, least = config.optim.epochs, least_share(config) if front.sizes == "auto" else 0.0
    smaller = [size for size in front.listed if least <= share_of(size, full) < 1]
    points = [Point(size, epochs_before(share_before(front, size, full), epochs)) for size in smaller]
    return sorted(points, key=lambda point: (point.inherited, share_of(point.size, full)))


def least_share(config: TrialConfig) -> float:
    """About the share of the full size at which every adapter has `spectral.floor` components, magnitudes included."""
    ranks = [
        config.ranks.initial(shared=shared, stage=stage) for shared in (True, False) for stage in range(len(STAGES))
    ]
    return config.spectral.floor / min(ranks) + MAGNITUDES


def share_of(size: Size, full: float) -> float:
    """A size as a share of the full one."""
    return size if isinstance(size, float) else size / full if full else math.inf


def share_before(front: FrontConfig, size: Size, full: float) -> float:
    """Share of the epochs before a size is cut."""
    if isinstance(front.forks, dict) and size in front.forks:
        return front.forks[size]
    if front.forks == "none":
        return 1.0
    share = share_of(size, full)
    return next((epochs for most, epochs in AUTO_FORKS if share <= most), 1.0)


def epochs_before(share: float, epochs: int) -> int:
    """A share of the epochs as a whole number: the nearest, of two the larger, and at least 1."""
    return max(1, min(epochs, math.floor(share * epochs + 0.5 + 1e-9)))


def fork_epochs(front: FrontConfig, epochs: int) -> list[int]:
    """Numbers of epochs after which some size may fork, whatever the full size is; not the last."""
    shares = {share for _, share in AUTO_FORKS} if front.forks != "none" else set()
    shares |= set(front.forks.values()) if isinstance(front.forks, dict) else set()
    return sorted({epochs_before(share, epochs) for share in shares} - {epochs})


def own_epochs(points: Sequence[Point], epochs: int) -> int:
    """Epochs that points train beyond their trunk's."""
    return sum(epochs - point.inherited for point in points)


def _size_faults(sizes: Sequence[Size]) -> Iterator[Issue]:
    for index, size in enumerate(sizes):
        if size in sizes[:index]:
            yield Issue((index,), f"must not repeat, got {size}")
        elif size == 1:
            yield Issue((index,), "must be below the full size: the trial itself is the point of full size, got 1")
        elif size <= 0 or (isinstance(size, float) and size > 1):
            text = "must be a share of the full size (0 < share < 1) or a whole number of adapter parameters above 1"
            yield Issue((index,), f"{text}, got {quote_value(size)}")
