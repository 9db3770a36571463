"""TADFormer: the published counts by part, and forward and backward passes against plain functions of the equations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from faar_ray.adapters.tad.filtered import FilteredLoRA
from faar_ray.config.trial_file import read_trial
from faar_ray.errors import ConfigError
from faar_ray.export.adapter_file import write_adapter
from faar_ray.export.rank_pattern import rank_pattern
from faar_ray.export.read import load_model, read_adapter_file
from faar_ray.models import adapter_list, build_model, merge
from faar_ray.models.multitask import parameter_terms
from faar_ray.models.swin.tadformer.blocks import run_prompted
from faar_ray.models.swin.token_layout import Layout, as_grid, reorder
from faar_ray.models.unused import unused_parameters
from faar_ray.ranks import shrink
from faar_ray.train.optimizer import build_optimizer
from tests.models.baselines.counts import LIGHT, NYUD, PASCAL, on_swin_tiny, trainable
from tests.models.baselines.plain_swin import (
    MICRO,
    Weights,
    by_head,
    head,
    linear,
    neighbours,
    norm,
    patches,
    position_bias,
    weights_of,
    window_of,
    windows,
)
from tests.models.baselines.small import SCALE, TASKS, adapted, config, image, micro
from tests.models.trials import run

METHODS = ["tadformer", "tadformer_release"]


def mlp(w: Weights, at: str, x: Tensor) -> Tensor:
    return adapted(w, f"{at}.mlp.fc2", F.gelu(adapted(w, f"{at}.mlp.fc1", norm(w, f"{at}.norm2", x))))


def task_change(w: Weights, at: str, t: int, x: Tensor) -> Tensor:
    """s B (theta * (A x)) of tokens of a square, (N, n, I) -> (N, n, O): tap by tap."""
    at = f"{at}.adapter"
    low = x @ w[f"{at}.A_RI"].T
    samples, r, side = len(x), low.shape[-1], round(low.shape[1] ** 0.5)
    bias: Tensor | float = 0.0
    if f"{at}.generator_RPR" in w:
        raw = low.mean(1) @ w[f"{at}.generator_RPR"].flatten(0, 1).T + w[f"{at}.offset_RP"].flatten()
        taps = raw.view(samples, r, 9)
        taps = taps - taps.sum(-1, keepdim=True) / 9
        taps = taps / ((taps**2).sum(-1, keepdim=True) / 8).sqrt().add(1e-10) * w[f"{at}.sigma_RP"] + w[f"{at}.mu_RP"]
    else:
        taps, bias = w[f"{at}.filter_TRP"][t].expand(samples, r, 9), w[f"{at}.bias_TR"][t]
    padded = F.pad(low.unflatten(1, (side, side)), (0, 0, 1, 1, 1, 1))
    out = sum(
        padded[:, i : i + side, j : j + side] * taps[:, None, None, :, 3 * i + j] for i in range(3) for j in range(3)
    )
    return SCALE * (out + bias).flatten(1, 2) @ w[f"{at}.B_RO"]


def plain_block(
    w: Weights, at: str, x: Tensor, p: Tensor, heads: int, window: tuple[int, int], last: bool, release: bool
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    """Shared tokens and prompts before the MLP, and of a last block each task's tokens and skip, window by window."""
    tasks, side = p.shape[1], round(x.shape[1] ** 0.5)
    normed, shared, prompts = norm(w, f"{at}.norm1", x), torch.zeros_like(x), []
    streams, skips = ([torch.zeros_like(x) for _ in TASKS] for _ in range(2))
    bias = position_bias(w, f"{at}.attn", window[0])
    for places, apart in windows(side, *window):
        tokens = torch.cat([norm(w, f"{at}.norm1", p), normed[:, places]], 1)
        q, k, v = (by_head(part, heads) for part in adapted(w, f"{at}.attn.qkv", tokens).chunk(3, -1))
        raw = q @ k.mT
        scores = raw / q.shape[-1] ** 0.5
        scores = torch.cat(
            [
                scores[:, :, :tasks],
                torch.cat([scores[:, :, tasks:, :tasks], scores[:, :, tasks:, tasks:] + bias - 100.0 * apart], -1),
            ],
            2,
        )
        y = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        out = adapted(w, f"{at}.attn.proj", y)
        prompts.append(out[:, :tasks])
        shared[:, places] = out[:, tasks:]
        for t in range(tasks) if last else ():
            map_ = F.gelu(raw[:, :, t, tasks:])  # (B, h, n)
            patch = by_head(y[:, tasks:], heads)
            focus = (map_[..., None] * patch).transpose(1, 2).flatten(2)
            u = norm(w, f"{at}.prompt_norm", focus + y[:, tasks:])
            own = linear(w, f"{at}.attn.proj", y[:, tasks:]) + task_change(w, f"{at}.attn.proj", t, u)
            streams[t][:, places] = own
            skips[t][:, places] = focus.mT.reshape(focus.shape) if release else focus
    mean = sum(prompts[1:], prompts[0]) / len(prompts)
    return x + shared, mean, [x + own for own in streams], skips


def plain_tadformer(w: Weights, image: Tensor, release: bool) -> dict[str, Tensor]:
    x, side = patches(w, image)
    p = w["prompts.tokens_TC"].expand(len(x), -1, -1)
    maps: dict[str, list[Tensor]] = {task: [] for task in TASKS}
    for stage, (depth, heads) in enumerate(zip(MICRO["depths"], MICRO["heads"], strict=True)):
        for block in range(depth):
            at, last = f"layers.{stage}.blocks.{block}", block == depth - 1
            window = window_of(side, MICRO["window"], block)
            x, mean, streams, skips = plain_block(w, at, x, p, heads, window, last, release)
            normed = norm(w, f"{at}.norm2", x)
            hidden = F.gelu(adapted(w, f"{at}.mlp.fc1", normed))
            for t, task in enumerate(TASKS) if last else ():
                own = streams[t]
                of_fc1 = linear(w, f"{at}.mlp.fc1", normed)
                of_fc1 = of_fc1 + task_change(w, f"{at}.mlp.fc1", t, norm(w, f"{at}.norm2", own))
                own = own + linear(w, f"{at}.mlp.fc2", hidden)
                own = own + task_change(w, f"{at}.mlp.fc2", t, F.gelu(of_fc1))
                g = 1 / (1 + (-w["prompts.gates_S"][stage]).exp())
                own = g * skips[t] + (1 - g) * own
                if stage < 3:
                    own = linear(w, f"layers.{stage + 1}.downsample.reduction", neighbours(w, stage, own))
                maps[task].append(own)
            x, p = x + adapted(w, f"{at}.mlp.fc2", hidden), p + mlp(w, at, mean)
        if stage < 3:
            x, side = linear(w, f"layers.{stage + 1}.downsample.reduction", neighbours(w, stage, x)), side // 2
            p = p @ w[f"prompts.lifts.{stage}.weight"].T
    return {task: head(w, task, of_task, 64) for task, of_task in maps.items()}


@pytest.mark.parametrize("method", METHODS)
def test_outputs_and_gradients_are_those_of_the_equations(method: str) -> None:
    model = micro(method)
    assert any(model.backbone.layers[0].blocks[1].block.shift_size)
    dead = set(unused_parameters(model))
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad and name not in dead}
    ours, plain = model(image()), plain_tadformer(weights_of(model), image(), method != "tadformer")
    for task, prediction in ours.items():
        assert plain[task].std() > 1e-2
        assert (prediction - plain[task]).abs().max() <= 1e-10 * plain[task].abs().max()

    results = [
        torch.autograd.grad(torch.stack([y.square().mean() for y in outputs.values()]).sum(), list(trained.values()))
        for outputs in (ours, plain)
    ]
    for name, of_ours, of_plain in zip(trained, *results, strict=True):
        assert of_plain.any(), name
        torch.testing.assert_close(of_ours, of_plain, rtol=1e-7, atol=1e-10, msg=name)


@pytest.mark.parametrize("side", [16, 14])
@torch.no_grad()
def test_without_prompts_a_block_is_timm_s_own_also_where_windows_are_padded(side: int) -> None:
    backbone = micro("decoder_only", **{"data.image_size": 4 * side}).backbone
    x = torch.randn(2, side, side, 24, dtype=torch.float64)
    plain = Layout(side, side)
    for block in backbone.layers[0].blocks:
        layout = plain.windows(block)
        tokens = reorder(x.flatten(1, 2), plain, layout)
        ours, prompts = run_prompted(block, tokens, x.new_zeros(2, 0, 24), layout)
        torch.testing.assert_close(as_grid(ours, layout), block(x))
        assert prompts.shape == (2, 0, 24)


def test_images_whose_maps_windows_do_not_divide_are_taken() -> None:
    predictions = micro("tadformer", **{"data.image_size": 56})(image()[..., :56, :56])
    assert all(y.shape[-2:] == (56, 56) and y.isfinite().all() for y in predictions.values())


@torch.no_grad()
def test_it_does_not_start_at_the_frozen_backbone() -> None:
    """Prompts take part in the attention, and half of a task's stream is its skip."""
    start, frozen = (build_model(config(method)).eval()(image().float()) for method in ("tadformer", "decoder_only"))
    for task, prediction in frozen.items():
        assert (start[task] - prediction).abs().max() > 1e-2 * prediction.abs().max()


@pytest.mark.parametrize(
    ("method", "counts", "filters"),
    [
        ("tadformer", {64: 7_379_262, 32: 4_776_126, 16: 3_557_502}, {64: 463_104, 32: 120_960, 16: 32_832}),
        ("tadformer_release", {64: 6_946_878, 32: 4_670_526, 16: 3_532_350}, {64: 30_720, 32: 15_360, 16: 7_680}),
    ],
)
def test_counts_are_the_published_ones_part_by_part(
    method: str, counts: dict[int, int], filters: dict[int, int]
) -> None:
    for rank, count in counts.items():
        model = on_swin_tiny(method, **{"ranks.init_rank": rank})
        assert trainable(model) == count
        terms = parameter_terms(model)
        assert terms["LoRA factors"] == 70_656 * rank
        assert terms["task filters"] == filters[rank]
        of_prompts = ("prompt lifts", "task prompts", "prompt norms", "gates")
        assert [terms[term] for term in of_prompts] == [387_072, 384, 8_832, 4]
        assert {term: terms[term] for term in LIGHT} == LIGHT
        assert sum(n for term, n in terms.items() if term.startswith("decoder")) == 1_946_624
        sizes = {name: p.numel() for name, p in model.named_parameters()}
        assert sum(sizes[name] for name in unused_parameters(model)) == 5_952


def test_on_nyud_and_with_trained_reductions_counts_are_as_computed() -> None:
    assert trainable(on_swin_tiny("tadformer", NYUD)) == 6_914_130
    assert trainable(on_swin_tiny("tadformer", NYUD, **{"placement.reductions": "trained"})) == 8_462_418
    assert trainable(on_swin_tiny("tadformer", PASCAL, **{"placement.dead_parameters": False})) == 7_379_262 - 5_952


@pytest.mark.parametrize("method", METHODS)
def test_a_mask_is_a_slice_and_a_shrink_keeps_what_it_keeps(method: str) -> None:
    """Filters are masked, ordered and cut with their components."""
    model = micro(method)
    for adapter in adapter_list(model):
        adapter.mask_prefix(2)
    sliced = model(image())
    torch.stack([y.square().mean() for y in sliced.values()]).sum().backward()
    for adapter in adapter_list(model):
        assert (adapter.importance() > 0).all()
        assert all(not p.grad.movedim(adapter.RANK_AXES[name][0], 0)[2:].any() for name, p in named(adapter))
    for adapter in adapter_list(model):
        adapter.set_mask(torch.tensor([1.0, 1, 0, 0, 0, 0]))
    torch.testing.assert_close(model(image()), sliced)

    for adapter in adapter_list(model):
        adapter.clear_mask()
    whole = model(image())
    optimizer = build_optimizer(model, config(method).optim)
    for adapter in adapter_list(model):
        shrink(adapter, torch.tensor([3, 5, 1, 0, 2, 4]), optimizer)
    torch.testing.assert_close(model(image()), whole)
    for adapter in adapter_list(model):
        shrink(adapter, torch.tensor([3, 2]), optimizer)  # components 0 and 1 of the first order
    torch.testing.assert_close(model(image()), sliced)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert {id(p) for a in adapter_list(model) for p in a.parameters()} <= held


def named(adapter: Any) -> list[tuple[str, Any]]:
    return [(name, p) for name, p in adapter.named_parameters() if p.grad is not None]


def test_prompts_train_at_the_adapters_rate_and_every_parameter_is_in_the_optimizer_once() -> None:
    model = micro("tadformer")
    optim = config("tadformer", **{"optim.backbone_lr": 1e-5, "optim.lr": 1e-3}).optim
    groups = build_optimizer(model, optim).param_groups
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert model.prompts is not None
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert {rates[id(p)] for p in model.prompts.parameters()} == {1e-3}


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_the_adapter_file_gives_the_model_back_and_merging_is_refused(method: str, tmp_path: Path) -> None:
    model = build_model(config(method)).eval()
    for i, adapter in enumerate(adapter_list(model)):
        torch.nn.init.normal_(adapter.B_RO, std=0.1)
        adapter.keep(torch.tensor([2, 0, 1][: 1 + i % 3]))
    write_adapter(tmp_path / "a.safetensors", model, config(method))
    file = read_adapter_file(tmp_path / "a.safetensors")
    torch.testing.assert_close(load_model(file, tmp_path)(image().float()), model(image().float()))
    with pytest.raises(ConfigError, match="prompted cannot be merged: filters of tasks are made from their input"):
        merge(model)
    with pytest.raises(ConfigError, match="no prompts of tasks and no filters"):
        rank_pattern(file.ranks, file.config)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto", "test_efficientnet"])
def test_backbones_without_windows_refuse_with_the_reason(name: str) -> None:
    of = config("tadformer", **{"backbone.name": name, "backbone.pyramid": "stages"})
    with pytest.raises(ConfigError, match="prompts of tasks attend in the windows of a Swin, which it has not"):
        build_model(of)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("adapter: {kind: dora}", "must be own or shared where adapter.kind is dora: tasks reuse the two factors"),
        ("ranks: {kind: spectral}", "must be own or shared where adapters are rotated"),
        (
            "placement: {task_layers: [proj, fc2]}",
            "task_layers: must hold proj, fc1 and fc2 where",
        ),
        ("placement: {layers: [qkv, fc1, fc2]}", "placement.layers: must hold proj, fc1 and fc2"),
        ("placement: {task_layers: [qkv, proj, fc1, fc2]}", "must not hold qkv where task_path is prompted"),
        ("placement: {task_blocks: all}", "must be own where placement.task_blocks is all"),
        ("tad: {filter: dynamc}", "did you mean 'dynamic'?"),
    ],
)
def test_what_does_not_fit_is_told_with_the_reason(tmp_path: Path, line: str, fault: str) -> None:
    file = tmp_path / "trial.yaml"
    file.write_text(f"method: tadformer\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        read_trial(file)
    assert fault in str(caught.value)


def test_every_linear_has_one_shared_adapter_and_task_layers_have_filters() -> None:
    adapters = adapter_list(micro("tadformer"))
    assert len(adapters) == 8 * 4
    assert all(adapter.site.shared for adapter in adapters)
    filtered = {(a.site.block, a.site.layer) for a in adapters if isinstance(a, FilteredLoRA)}
    assert filtered == {(1, "proj"), (1, "fc1"), (1, "fc2")}


def test_with_shrinking_ranks_a_trial_resumes_to_the_bit_and_its_filters_shrink(tmp_path: Path) -> None:
    dotted = {"method": "tadformer", "ranks.kind": "pdrs", "optim.epochs": 2}
    records = run(tmp_path / "whole", dotted)
    rows = records[-1].ranks
    assert {row.layer for row in rows} == {"qkv", "proj", "fc1", "fc2"}
    assert any(row.rank < row.rank_before for row in rows if (row.block, row.layer) == (1, "fc1"))
    assert all(max(row.importance) > 0 for row in rows)
    first = next(row for row in rows if (row.stage, row.block, row.layer) == (0, 1, "fc1"))
    assert first.params == first.rank * (24 + 96) + 9 * first.rank**2 + 27 * first.rank

    run(tmp_path / "cut", dotted, epochs=1)
    torch.rand(5)
    assert run(tmp_path / "cut", dotted) == records
