"""The `decoder` section."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from faar_ray.config.section import Section
from faar_ray.config.validation_messages import rule


class DecoderConfig(Section):
    """The head of each task."""

    kind: Literal["hrnet", "ts_pd"] = Field(
        "hrnet",
        description="`hrnet`: 1x1 reductions, upsampling, one hidden 1x1 layer; `ts_pd`: the same with spectral "
        "filters (cw_sp) and cross-task consensus (xt_cons) on the reduced maps, starting as hrnet.",
    )
    hidden: Literal["own", "sine"] = Field(
        "own",
        description="Hidden layer of the heads: each its own, or one base of all heads, modulated per task as "
        "`sinewich` says (Free Sinewich's decoder).",
    )
    cw_sp: bool = Field(True, description="`ts_pd` only: a learned spectral filter per task and resolution.")
    xt_cons: bool = Field(True, description="`ts_pd` only: pull a task's spectrum towards the mean of the others'.")
    spectra: Literal["native", "upsampled"] = Field(
        "native",
        description="`ts_pd` only: filter the reduced maps at their own sizes, or all upsampled to the finest one (the "
        "released code).",
    )
    filter: Literal["grid", "radial", "rings"] = Field(
        "grid",
        description="`cw_sp`: a matrix over frequencies shared by channels (the paper's); `radial`: a gain per channel "
        "and 16 rings of frequencies, which starts at 0, with a residual of 0.6; `rings`: x + a (scale W x + shift), W "
        "per channel and 16 rings around 1, all but a drawn (the released code).",
    )
    filter_gain: Annotated[float, Field(ge=0)] = Field(
        0.6, description="`rings` only: where the trained a starts; at 0.6 maps start about 1.6 times as large."
    )
    plane: Literal["frequencies", "unshifted"] = Field(
        "frequencies",
        description="What tells `rings` and bands of frequencies apart: a cell's frequency, or how far its row lies "
        "from the middle row in memory, so that slow rows count as fast (the released code, by a slip it seems).",
    )
    consensus: Literal["difference", "amplitude"] = Field(
        "difference",
        description="`xt_cons`: what a task is pulled by, alpha (F_avg - F) in both bands, from alpha 0; or amplitudes "
        "towards gamma |F_avg| in the low band, and gamma F_avg - F on a ramp from radius 0.8 in the high one, by "
        "0.5 and 0.3 sigmoid(alpha) (the released code).",
    )
    donors: Literal["filtered", "unfiltered"] = Field(
        "filtered",
        description="`xt_cons`: whose spectra F_avg averages: the other tasks' maps behind `cw_sp` or before it.",
    )
    cutoff: Annotated[float, Field(gt=0, le=1), rule("satisfy 0 < cutoff <= 1")] = Field(
        0.5, description="`xt_cons`: radius that parts low from high frequencies, as a share of Nyquist's."
    )
    primary: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] | None = Field(
        None, description="`xt_cons`: tasks that are pulled; null: each in turn."
    )
    width: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Channels of the finest reduced map; null: 18 at embedding dimension 96, in proportion."
    )
    expansion: Annotated[int, Field(ge=1)] = Field(4, description="Hidden channels over concatenated channels.")
