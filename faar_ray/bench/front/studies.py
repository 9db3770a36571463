"""The studies: which search spaces each trains, and how its results are compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

SPACES = Path(__file__).parent / "spaces"
"""Search spaces as `faar_ray.tune` reads them, in the package."""


@dataclass(frozen=True)
class Box:
    """Between which hypervolumes are measured; set before anything was trained."""

    quality: tuple[float, float]
    """delta_m of the reference point and of the ideal one."""
    size: tuple[float, float]
    """Adapter parameters of the reference point and of the ideal one."""


@dataclass(frozen=True)
class Study:
    """What `bench front NAME` does."""

    name: str
    question: str
    stages: tuple[str, ...]
    """Search spaces, in order; a run of the same name each."""
    box: Box
    rates: str = ""
    """The space whose trials find the learning rates of the others; it comes first."""
    analysis: str = "sizes"
    """Module of this folder with `analyse`, and with `train` where stages are not simply run one after the other."""

    @property
    def spaces(self) -> tuple[str, ...]:
        """All search spaces, in order."""
        return (*([self.rates] if self.rates else []), *self.stages)

    @property
    def folder(self) -> str:
        """Name of its folder below runs/."""
        return f"front_{self.name}"


SCENES = Box(quality=(-15.0, 1.5), size=(400_000, 34_000))
NYUD = Box(quality=(-10.0, 8.0), size=(616_000, 51_600))
STUDIES = {
    study.name: study
    for study in (
        Study(
            "embedded",
            "Do spectral ranks beat fixed ranks and FAAR at equal size, and what does the whole front cost?",
            ("front_embedded_baselines", "front_embedded_spectral"),
            SCENES,
            rates="front_embedded_rates",
        ),
        Study(
            "photographs",
            "Does it hold on photographs (NYUv2), with EfficientNet-Lite0?",
            ("front_photographs_baselines", "front_photographs_spectral"),
            NYUD,
            rates="front_photographs_rates",
        ),
        Study(
            "long",
            "Does it hold when trainings are four times as long, so that PDRS has time?",
            ("front_long_baselines", "front_long_spectral"),
            SCENES,
            rates="front_embedded_rates",
        ),
        Study(
            "pdrs",
            "What do a rotated basis, masks in fewer steps and normalised losses give FAAR?",
            ("front_pdrs",),
            SCENES,
            rates="front_embedded_rates",
            analysis="variants",
        ),
        Study(
            "searches",
            "Do fronts find in a quarter of the epochs what OptunaSearch and ASHA of plain Ray Tune find?",
            ("front_searches",),
            SCENES,
            analysis="searches",
        ),
    )
}
Result = dict[str, Any]
