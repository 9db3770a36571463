"""The `optim` section: optimizer, schedule, precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from faar_ray.config.moments.moment import MattersFrom, after_warmup, number_of_epochs
from faar_ray.config.section import Positive, Section
from faar_ray.config.validation_messages import rule


class OptimConfig(Section):
    """AdamW with linear warm-up and cosine decay, both per step."""

    epochs: Annotated[int, Field(ge=1), MattersFrom(number_of_epochs)] = Field(
        6, description="Passes over the training images."
    )
    batch_size: Annotated[int, Field(ge=1)] = Field(16, description="Images a step, over all workers.")
    lr: Positive = Field(5e-4, description="Learning rate of adapters, where the cosine begins.")
    decoder_lr: Positive | None = Field(None, description="Learning rate of the decoder; null: as lr.")
    backbone_lr: Positive | None = Field(None, description="Learning rate of the backbone's own weights; null: as lr.")
    lr_batch: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Images a step that the learning rates (lr, decoder_lr, backbone_lr, warmup_lr, min_lr) are for: "
        "all are multiplied by batch_size / lr_batch. null: they are taken as they are.",
    )
    warmup_steps: Annotated[int, Field(ge=0)] | None = Field(
        20, description="Steps of linear warm-up; null: as warmup_epochs, without which there is none."
    )
    warmup_epochs: Annotated[float, Field(ge=0)] | None = Field(
        None, description="Linear warm-up in epochs, in place of warmup_steps, which is null then."
    )
    warmup_lr: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="Learning rate of the first step, from which warm-up rises by equal steps to lr just after its "
        "last step (as timm's scheduler does); null: warm-up begins at lr / steps and ends at lr.",
    )
    min_lr: Annotated[float, Field(ge=0), MattersFrom(after_warmup)] = Field(
        0.0, description="Where the cosine ends; above lr the learning rate rises (FAAR's released code)."
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.05, description="0 on 1-D tensors and position tables.")
    decay_position_tables: bool = Field(
        False, description="Whether weight decay is on position tables too (in MTLoRA's code it is)."
    )
    clip: Positive = Field(5.0, description="Largest gradient norm.")
    accumulate: Annotated[int, Field(ge=1)] = Field(
        1, description="Parts that a step's batch is computed in, one after another: less memory, the same step."
    )
    loss_norm: Literal["none", "running_mean"] = Field(
        "none",
        description="`running_mean`: each task's loss is divided by the running mean of its loss in the steps before, "
        "so that tasks pull by their weights and not by the scale of their losses. `train/loss` and "
        "`train/loss/<task>` report the losses as they are.",
    )
    loss_norm_beta: Annotated[float, Field(ge=0, lt=1), rule("satisfy 0 <= loss_norm_beta < 1")] = Field(
        0.98, description="EMA factor of loss_norm's running means."
    )
    precision: Literal["fp32", "bf16", "fp16", "fp64"] = Field(
        "fp32", description="`bf16`, `fp16`: autocast (fp16 with loss scaling); `fp64` is for checks of exactness."
    )
    compile: bool = Field(
        False,
        description="Train through torch.compile (masks in place of slices; compiled anew after a shrink); on a CPU it "
        "needs a C++ compiler.",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_warmup(cls, raw: Any) -> Any:
        """`warmup_epochs` alone leaves no default of `warmup_steps`."""
        if isinstance(raw, Mapping) and raw.get("warmup_epochs") is not None:
            return {"warmup_steps": None, **raw}
        return raw

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        if self.warmup_epochs is not None and self.warmup_steps is not None:
            raise ValueError(
                f"warmup_steps: must be null where warmup_epochs is {self.warmup_epochs:g}, got {self.warmup_steps}: "
                "one of them says how long the warm-up is"
            )
        return self

    def effective(self, rate: float) -> float:
        """A learning rate at `batch_size`, where it is given for `lr_batch` images."""
        return rate if self.lr_batch is None else rate * self.batch_size / self.lr_batch

    def warmup(self, steps: int) -> int:
        """Steps of warm-up of `steps` optimizer steps in all."""
        if self.warmup_epochs is not None:
            return round(self.warmup_epochs * steps / self.epochs)
        return self.warmup_steps or 0
