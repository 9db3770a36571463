"""The keys of spectral ranks: the rotation of adapters to singular components, and the cut to a budget."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from faar_ray.config.moments.moment import MattersFrom, first_decision, read_by_policy
from faar_ray.config.section import Section

FirstCut = MattersFrom(read_by_policy("spectral", first_decision))


def _budget(value: float) -> float:
    if 0 < value <= 1 or (isinstance(value, int) and value > 1):
        return value
    raise ValueError(f"must be a share, 0 < budget <= 1, or a whole number of parameters above 1, got {value}")


Budget = Annotated[int | float, AfterValidator(_budget)]


class SpectralConfig(Section):
    """Rotation of adapters to singular components, and the cut of `ranks.kind: spectral`."""

    rotation: Annotated[Literal["fisher", "plain"], FirstCut] = Field(
        "fisher",
        description="Singular components of the change weighted by the gradients of training batches, or of the change "
        "itself.",
    )
    cut_epoch: Annotated[Annotated[int, Field(ge=0)] | None, FirstCut] = Field(
        None, description="Epoch (0-based) whose end cuts; the later ones train what is left. null: the last."
    )
    score_batches: Annotated[int, Field(ge=1), FirstCut] = Field(
        30, description="Training batches whose gradients weight and score the components; nothing is trained on them."
    )
    floor: Annotated[int, Field(ge=1), FirstCut] = Field(1, description="Components every adapter keeps at least.")

    def cut_after(self, epochs: int) -> int:
        """The epoch whose end cuts, of so many."""
        return epochs - 1 if self.cut_epoch is None else self.cut_epoch


def spectral_fault(config: Any) -> str:
    """What keeps spectral ranks from this schedule or these adapters."""
    if config.ranks.kind != "spectral" and not (config.ranks.kind == "pdrs" and config.pdrs.basis == "spectral"):
        return ""
    if config.adapter.entry.task_bases and (fault := config.sinewich.rotation_fault()):
        return str(fault)
    cut, epochs = config.spectral.cut_epoch, config.optim.epochs
    if config.ranks.kind == "spectral" and cut is not None and cut >= epochs:
        return f"spectral.cut_epoch: must be below optim.epochs = {epochs}, or nothing is ever cut, got {cut}"
    return ""
