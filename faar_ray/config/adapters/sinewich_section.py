"""The `sinewich` section: task weights from one sine-modulated base (Free Sinewich)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from faar_ray.config.section import Positive, Section
from faar_ray.config.trial_sections import LayerName, Rank


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"must be odd, so that the filter has a middle, got {value}")
    return value


class SinewichConfig(Section):
    """Free Sinewich: one base M per layer, turned into task weights by sin(omega_t M)."""

    rank: Rank | None = Field(None, description="Rank of a base M = A W B^T; null: as ranks.init_rank.")
    layers: Annotated[tuple[LayerName, ...], Field(min_length=1, strict=False)] = Field(
        ("proj", "fc1", "fc2"),
        description="Linears with a base, in the last block of each stage (as MTLoRA places task adapters).",
    )
    phi: Literal["adapted", "frozen"] | Annotated[tuple[LayerName, ...], Field(min_length=1, strict=False)] = Field(
        "adapted",
        description="phi in phi(f) + M_t * f: the linear with its shared LoRA, which then stands in last blocks too, "
        "or without LoRA; or a list: those of `layers` whose LoRA stands there too.",
    )
    core: Literal["dense", "depthwise"] = Field(
        "dense",
        description="W in M = A W B^T at each tap of the kernel: R x R numbers, or its diagonal alone, R (a component "
        "has a small filter of its own, as in a depthwise convolution).",
    )
    conv_size: Literal[1, 3] = Field(
        1,
        description="Kernel of W over the token grid. After the sine a kernel is no longer low-rank: 3 on proj, fc1, "
        "fc2 costs about 300 G MACs forward where the whole step without adapters takes 97 G (Swin-T, 448 px, batch 2, "
        "4 tasks).",
    )
    base: Literal["shared", "independent"] = Field(
        "shared", description="One base for all tasks (the method), or one per task (the paper's ablation)."
    )
    modulation: Literal["sine", "linear", "none"] = Field(
        "sine",
        description="M_t = sin(omega_t M); `linear`: omega_t M, which leaves all tasks one direction; `none`: M.",
    )
    clock: Literal["lcn", "free", "fixed"] = Field(
        "lcn",
        description="Who makes omega_t: the Clock Net s (tanh(W_q ReLU(p_t)) + c), one free number per task times s, "
        "or constants; all start at the Clock Net's first values.",
    )
    scale: Positive = Field(
        150.0,
        description="s at the start; learned (unpublished). On the embedded data tasks' weights part at 150 "
        "(mean cosine 0.85 after training) and hardly at 50 (0.98).",
    )
    offset: float = Field(
        1.5, description="c at the start; learned (unpublished). With |c| < 1 a frequency can cross 0: the task is off."
    )
    tokens: Annotated[int, Field(ge=2)] = Field(
        16, description="Length of a task's token p_t where task_tokens is outside (unpublished)."
    )
    task_tokens: Literal["outside", "prepended", "lifted"] = Field(
        "outside",
        description="Where the tasks' tokens p_t are: `outside` the backbone, read by the clock alone, or before the "
        "patch tokens of the first stage too (as long as these), from where they take part in the attention of all "
        "blocks; between the stages of a Swin as four copies of themselves (`prepended`) or through linears of their "
        "own (`lifted`). The clock always reads them as they are learned: frequencies do not depend on the image.",
    )
    clock_hidden: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Units H of a hidden layer of the Clock Net, s (tanh(W_q ReLU(V p_t)) + c); null: none, p_t."
    )
    blur: Literal["matrix", "kernel", "none"] = Field(
        "matrix",
        description="Gaussian low-pass over rows and columns of the matrix M_t (what the paper says), over the 3x3 of "
        "conv_size 3, or none.",
    )
    blur_size: Annotated[int, Field(ge=1), AfterValidator(_odd)] = Field(
        7, description="Taps K of the low-pass, odd; 1 is the identity."
    )
    sigma: Annotated[float, Field(ge=0.01)] = Field(1.0, description="Standard deviation of the low-pass, in taps.")
    rescale: bool = Field(
        False, description="Give back the norm that the low-pass takes from white noise (x0.28 at K 7, sigma 1)."
    )
    gain: Literal["one", "sqrt_fan_in"] = Field(
        "sqrt_fan_in",
        description="g in M_t / g: 1, or the root of a kernel's inputs, so that saturated sines stay the size of "
        "weights.",
    )
    gradient_cosine_every: Annotated[int, Field(ge=0)] = Field(
        3,
        description="Epochs between measurements of the cosine of the tasks' gradients, and after the last; 0: never.",
    )

    def phi_is_adapted(self, layer: str) -> bool:
        """Whether a linear with a base keeps its shared LoRA beside it."""
        return self.phi == "adapted" or (self.phi != "frozen" and layer in self.phi)

    def rotation_fault(self) -> str:
        """What keeps bases from being rotated to singular components."""
        if self.conv_size > 1:
            return (
                "sinewich.conv_size: must be 1 where adapters are rotated to singular components: the taps of a larger "
                f"kernel have no singular components in common, got {self.conv_size}"
            )
        if self.core == "depthwise":
            return (
                "sinewich.core: must be dense where adapters are rotated to singular components: a sum of components "
                "is none that a diagonal core knows, got 'depthwise'"
            )
        return ""


def sinewich_fault(config: Any) -> str:
    """What keeps Sinewich's kernels, cores or tokens from a trial's other keys."""
    sine: SinewichConfig = config.sinewich
    if sine.blur == "kernel" and sine.conv_size == 1:
        return "sinewich.blur: must be matrix or none where sinewich.conv_size is 1: a 1x1 kernel has nothing to blur"
    if not config.adapter.entry.task_bases:
        return ""
    if sine.conv_size == 3 and "qkv" in sine.layers:
        return "sinewich.layers: must not hold qkv where sinewich.conv_size is 3: attention windows are no image"
    if sine.task_tokens != "outside" and "qkv" in sine.layers:
        return (
            f"sinewich.layers: must not hold qkv where sinewich.task_tokens is {sine.task_tokens}: tokens take part in "
            "one attention for all tasks"
        )
    adapted = sine.phi if isinstance(sine.phi, tuple) else ()
    if strangers := [layer for layer in adapted if layer not in sine.layers]:
        return f"sinewich.phi: must be among sinewich.layers = {list(sine.layers)}, got {', '.join(strangers)}"
    return ""
