"""The sections of a trial's config, each frozen, strict and valid by itself; every key has a default and a meaning."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from faar_ray.config.moments.moment import MattersFrom, of_policy
from faar_ray.config.ranks.by_stage import NumberedByStage, OfStages, at_stage
from faar_ray.config.ranks.spectral_section import Budget, FirstCut
from faar_ray.config.registries import ADAPTERS, RANK_POLICIES, AdapterEntry, PolicyEntry, name_in
from faar_ray.config.section import Positive, Section
from faar_ray.config.validation_messages import rule

LayerName = Literal["qkv", "proj", "fc1", "fc2"]
Rank = Annotated[int, Field(ge=1)]


def _placed(value: str) -> str:
    if not re.fullmatch(r"\d+/\d+/\w+/\w+", value):
        raise ValueError(f"must be a place, stage/block/layer/task as in 0/0/qkv/shared, got {value!r}")
    return value


RankOfStages = Annotated[dict[str, Rank], NumberedByStage, OfStages]
Place = Annotated[str, AfterValidator(_placed)]
RankOfPlaces = Annotated[dict[Place, Rank], rule("map places (stage/block/layer/task) to ranks from 1")]


class BackboneConfig(Section):
    """The frozen network that is adapted."""

    name: str = Field(
        "swin_micro",
        description="`swin_micro` (in the package), or timm's: any Swin (v1), plain ViT, ConvNeXt, EfficientNet or "
        "MobileNet.",
    )
    pretrained: bool = Field(True, description="Load pretrained weights: the package's own, or timm's hub.")
    checkpoint: str | None = Field(
        None,
        description="What to load instead: a local .safetensors or .pth file, or `package:NAME`, the weights in an "
        "installed Python package.",
    )
    statistics: Literal["auto", "imagenet", "inception", "clip", "unit"] = Field(
        "auto",
        description="Mean and deviation of the images that the backbone sees: `auto` = those of timm's weights of its "
        "name; `inception` = 0.5 and 0.5, `unit` = 0 and 1.",
    )
    trainable: Literal["none", "light", "all"] = Field(
        "light",
        description="What of the backbone trains besides adapters: `light` = patch embedding (or stem), norms, "
        "relative-position tables (MTLoRA's recipe). Statistics of a backbone's batch norms never change.",
    )
    pyramid: Literal["merged", "stages"] = Field(
        "merged",
        description="Maps that decoders see: after each stage's patch merging (MTLoRA's recipe, strides 8, 16, 32, 32) "
        "or before it (strides 4, 8, 16, 32; for small images, and the only one of EfficientNet and MobileNet).",
    )
    drop_path: Annotated[float, Field(ge=0, lt=1), rule("satisfy 0 <= drop_path < 1")] = Field(
        0.0, description="Stochastic depth rate."
    )


class AdapterConfig(Section):
    """How a frozen weight is changed."""

    kind: Annotated[str, *name_in(ADAPTERS)] = Field(
        "dora",
        description="Parametrisation of the change; `sine_awb`: shared LoRA, and in the last block of each stage task "
        "weights from one base per linear (`sinewich`) in place of task adapters; `spectrum`: singular values warped "
        "by flows (section `spectrum`; DiTASK), where `adapter.dropout` is on the whole input: W' d(x).",
    )
    scale: Positive = Field(4.0, description="s in W + s B A (the released code multiplies by 4).")
    norm: Literal["detached", "attached"] = Field(
        "detached", description="DoRA: whether gradients flow through the row norm."
    )
    direction: Literal["weight", "normalised"] = Field(
        "weight",
        description="DoRA: what s B A is added to, W, or W with rows of length 1, of which the same change turns a "
        "short row less (the released code).",
    )
    magnitude: Literal["free", "anchored"] = Field(
        "free",
        description="DoRA: what trains of the magnitude, m itself, or theta in m = ||W|| exp(0.1 (theta - log ||W||)) "
        "(the released code).",
    )
    magnitude_start: Literal["weight", "drawn"] = Field(
        "weight",
        description="DoRA: where m, or exp(theta), starts: at ||W||, so that the adapted weight is the frozen one, or "
        "at the norms of freshly drawn rows: the released code sets it before it loads the weights.",
    )
    magnitude_penalty: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="DoRA: weight in the loss of mean((m / ||W|| - 1)^2) of every shared adapter, that of a merging "
        "reduction once per task (the released code: 1e-4).",
    )
    dropout: Annotated[float, Field(ge=0, lt=1), rule("satisfy 0 <= dropout < 1")] = Field(
        0.0,
        description="Share of the inputs of the change that are zeroed in training: W x + (W' - W) d(x). A task's own "
        "stream in last blocks is not dropped (MTLoRA's and TADFormer's layers), unless `task_dropout`.",
    )
    task_dropout: bool = Field(
        False,
        description="Drop the input of every task's adapter too, by a mask of its own (FAAR's released code).",
    )

    @property
    def entry(self) -> AdapterEntry:
        """What the adapter can do."""
        return ADAPTERS[self.kind]

    @property
    def adapts(self) -> bool:
        """Whether there are adapters at all."""
        return self.entry.build is not None

    @property
    def has_ranks(self) -> bool:
        """Whether there are adapters with components that a rank policy may drop."""
        return self.adapts and self.entry.has_ranks


class PlacementConfig(Section):
    """Which linears carry adapters."""

    layers: Annotated[tuple[LayerName, ...], Field(min_length=1, strict=False)] = Field(
        ("qkv", "proj", "fc1", "fc2"),
        description="Linears with a shared adapter, in every block that has them; in EfficientNet and MobileNet `fc1` "
        "is the pointwise expansion and `fc2` the pointwise projection.",
    )
    task_layers: Annotated[tuple[LayerName, ...], Field(strict=False)] = Field(
        ("proj", "fc1", "fc2"),
        description="Linears with one adapter per task, in the blocks of `task_blocks`; not read where adapter.kind is "
        "sine_awb (see sinewich.layers).",
    )
    task_blocks: Literal["last", "all"] = Field(
        "last",
        description="Blocks with task-specific adapters: the last of each stage, or `all`: then every task has a "
        "stream of its own from the image on, no adapter of task_layers is shared, and the cost grows with the tasks.",
    )
    task_path: Literal["own", "shared", "prompted"] = Field(
        "own",
        description="What the frozen weight of a task-specific layer sees: the task's own stream (W_t x_t, which can "
        "be merged), or the shared one (MTLoRA's: W x_shared + s B_t A_t x_t; cheaper, cannot be merged); `prompted`: "
        "no task adapters, tasks reuse the shared ones with filters, parted by prompts (TADFormer; section `tad`).",
    )
    task_change: Literal["low_rank", "whole"] = Field(
        "low_rank",
        description="Where task_path is shared, what of a task's weight sees the task's own stream: the low-rank "
        "product (with DoRA y_t = c (W x + s B_t A_t x_t), c = m / ||W'||), or the whole change, "
        "W x + (W'_t - W) x_t (FAAR's released code). The same for LoRA.",
    )
    reductions: Literal["frozen", "trained", "adapted"] = Field(
        "frozen",
        description="The linears between stages that merge 2x2 tokens (Swin, ConvNeXt), which all streams pass: "
        "`trained` = their weights train (MTLoRA), `adapted` = each has a shared adapter (MTLoRA+; layer `reduction` "
        "of the rank trace, of the stage that it ends).",
    )
    dead_parameters: bool = Field(
        False,
        description="Hold and count what reaches no output, too, as published counts do (of MTLoRA shared adapters of "
        "the last block); nothing moves it, and no rank policy sees it.",
    )


class RanksConfig(Section):
    """Who decides the ranks."""

    kind: Annotated[str, *name_in(RANK_POLICIES), MattersFrom(of_policy)] = Field(
        "pdrs",
        description="`fixed` keeps the initial ranks throughout; `pdrs` shrinks to a coverage (`pdrs`); `spectral` "
        "trains at the initial ranks, then rotates every adapter to its singular components and cuts to `budget` "
        "(`spectral`); `adalora` zeroes singular values to a budget that shrinks step by step (`adalora`); `dylora` "
        "trains all ranks at once (`dylora`).",
    )
    init_rank: Rank | RankOfStages = Field(
        64, description="Rank at the start, at most a layer's smaller side. Also per stage: {0: 2, 1: 2, 2: 3, 3: 16}."
    )
    task_init_rank: Rank | RankOfStages | None = Field(
        None, description="Rank at the start of task adapters, also per stage; null: as init_rank."
    )
    pattern: RankOfPlaces | None = Field(
        None,
        description="Ranks at the start of single adapters, by place: {0/0/qkv/shared: 9, 0/1/fc1/semseg: 4} (stage/"
        "block/layer/task); the others have init_rank. `export --ranks` writes those that a trial found.",
    )
    budget: Annotated[Budget | None, FirstCut] = Field(
        None,
        description="`spectral` only: adapter parameters (`params/adapters`, magnitudes included) that the cut leaves, "
        "as a number or as a share of those at the start; one pool over all layers and tasks. null: all are kept, "
        "rotated.",
    )

    @property
    def entry(self) -> PolicyEntry:
        """What the policy can do."""
        return RANK_POLICIES[self.kind]

    def initial(self, *, shared: bool, stage: int = 0, place: str = "") -> int:
        """Rank at the start of a shared or of a task adapter, in a stage, or of the one at a place."""
        if self.pattern and place in self.pattern:
            return self.pattern[place]
        ranks = self.init_rank if shared or self.task_init_rank is None else self.task_init_rank
        return at_stage(ranks, stage)
