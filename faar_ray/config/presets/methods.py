"""What each `method` stands for: defaults of a trial's sections, as data; what the user writes wins over them."""

from __future__ import annotations

from typing import Any

FIXED_RANK: dict[str, Any] = {"ranks": {"kind": "fixed"}}
WITHOUT_ADAPTERS: dict[str, Any] = {"adapter": {"kind": "none"}, "ranks": {"kind": "fixed"}}
TS_PD: dict[str, Any] = {"kind": "ts_pd", "cw_sp": True, "xt_cons": True}
SINE_HEADS: dict[str, Any] = {"kind": "hrnet", "hidden": "sine"}
SINEWICH_1X1: dict[str, Any] = {"adapter": {"kind": "sine_awb"}, **FIXED_RANK, "decoder": SINE_HEADS}
NEAREST: dict[str, Any] = {
    "layers": ("fc1", "fc2"),
    "phi": ("fc1",),
    "core": "depthwise",
    "conv_size": 3,
    "task_tokens": "lifted",
    "clock_hidden": 192,
}
SINEWICH: dict[str, Any] = {**SINEWICH_1X1, "sinewich": NEAREST}
MTLORA: dict[str, Any] = {
    "adapter": {"kind": "lora", "scale": 4.0, "dropout": 0.05},
    "ranks": {"kind": "fixed", "task_init_rank": 4},
    "placement": {"task_path": "shared", "reductions": "trained", "dead_parameters": True},
}
TADFORMER: dict[str, Any] = {
    "adapter": {"kind": "lora", "scale": 4.0, "dropout": 0.05},
    **FIXED_RANK,
    "placement": {"task_path": "prompted", "dead_parameters": True},
}
DITASK: dict[str, Any] = {
    "adapter": {"kind": "spectrum", "dropout": 0.05},
    **FIXED_RANK,
    "placement": {"reductions": "trained", "dead_parameters": True},
    "spectrum": {"cells": 64, "task_cells": 4, "warp": "values", "init": "identity"},
}
PRESETS: dict[str, dict[str, Any]] = {
    # the seed's statement
    "faar": {"adapter": {"kind": "dora"}, "ranks": {"kind": "pdrs"}, "decoder": TS_PD},
    # what the authors' released code does, which is another method in most of its parts
    "faar_release": {
        "adapter": {
            "kind": "dora",
            "norm": "attached",
            "scale": 4.0,
            "direction": "normalised",
            "magnitude": "anchored",
            "magnitude_start": "drawn",
            "magnitude_penalty": 1e-4,
            "dropout": 0.05,
            "task_dropout": True,
        },
        "placement": {
            "task_path": "shared",
            "task_change": "whole",
            "reductions": "adapted",
            "dead_parameters": True,
        },
        "ranks": {"kind": "pdrs", "init_rank": 32},
        "pdrs": {
            "beta": 0.98,
            "rho_shared": 0.2,
            "update": "all",
            "bias_correction": False,
            "score_clamp": 100.0,
            "scored_gradients": "clipped",
            "dropped": "counted",
            "floor": 2,
            "margin": 1,
            "floor_holds_margin": True,
        },
        "decoder": {
            **TS_PD,
            "spectra": "upsampled",
            "filter": "rings",
            "filter_gain": 0.6,
            "plane": "unshifted",
            "consensus": "amplitude",
            "donors": "unfiltered",
        },
        "optim": {"min_lr": 3.2e-3},
    },
    # rows of the seed's component table; what a row adds, it adds to fixed-rank LoRA with the HRNet head
    "lora": {"adapter": {"kind": "lora"}, **FIXED_RANK},
    "dora": {"adapter": {"kind": "dora"}, **FIXED_RANK},
    "pdrs_lora": {"adapter": {"kind": "lora"}, "ranks": {"kind": "pdrs"}},
    "pdrs_dora": {"adapter": {"kind": "dora"}, "ranks": {"kind": "pdrs"}},
    "cw_sp": {"adapter": {"kind": "lora"}, **FIXED_RANK, "decoder": {**TS_PD, "xt_cons": False}},
    "ts_pd": {"adapter": {"kind": "lora"}, **FIXED_RANK, "decoder": TS_PD},
    # an ensemble of task LoRAs, which shares only what `backbone.trainable` trains
    "lora_per_task": {
        "adapter": {"kind": "lora"},
        **FIXED_RANK,
        "placement": {"task_blocks": "all", "task_layers": ("qkv", "proj", "fc1", "fc2")},
    },
    # MTLoRA, and MTLoRA+, whose merging reductions are frozen and adapted; their counts hold a dead adapter
    "mtlora": MTLORA,
    "mtlora_plus": {**MTLORA, "placement": {**MTLORA["placement"], "reductions": "adapted"}},
    # TADFormer as its paper states it, and as its released code does it; their counts hold dead norms
    "tadformer": TADFORMER,
    "tadformer_release": {**TADFORMER, "tad": {"filter": "static", "skip": "scrambled"}},
    # Free Sinewich, as near to the counts of its paper as these keys come (docs/methods.md), and rows of its ablation
    "free_sinewich": SINEWICH,
    "sinewich_without_lcn": {**SINEWICH, "sinewich": {**NEAREST, "clock": "free"}},
    "sinewich_independent": {**SINEWICH, "sinewich": {**NEAREST, "base": "independent"}},
    "sinewich_linear": {**SINEWICH, "sinewich": {**NEAREST, "modulation": "linear"}},
    "sinewich_without_low_pass": {**SINEWICH, "sinewich": {**NEAREST, "blur": "none"}},
    # a form that every backbone takes and that costs far less: bases of all task layers, no taps, tokens outside
    "sinewich_1x1": SINEWICH_1X1,
    # the hybrid, of 1x1 too: PDRS decides the ranks of shared LoRA and of bases, TS-PD decodes over a modulated base
    "faar_sinewich": {
        "adapter": {"kind": "sine_awb"},
        "ranks": {"kind": "pdrs"},
        "decoder": {**TS_PD, "hidden": "sine"},
    },
    # DiTASK as its paper states it, and as its released code does it; their counts hold dead numbers
    "ditask": DITASK,
    "ditask_release": {
        **DITASK,
        "spectrum": {**DITASK["spectrum"], "warp": "index", "init": "uniform", "dead_qkv": True},
    },
    # rank policies of single-task papers, on the adapters that all others have
    "adalora": {"adapter": {"kind": "lora"}, "ranks": {"kind": "adalora"}},
    "dylora": {"adapter": {"kind": "lora"}, "ranks": {"kind": "dylora"}},
    "full_ft": {**WITHOUT_ADAPTERS, "backbone": {"trainable": "all"}},
    "decoder_only": {**WITHOUT_ADAPTERS, "backbone": {"trainable": "none"}},
    "single_task": {**WITHOUT_ADAPTERS, "backbone": {"trainable": "all"}, "decoder": {"xt_cons": False}},
}
