"""Free Sinewich near its paper: counts beside the published ones, the forward pass in plain functions, its tokens."""

from __future__ import annotations

import math
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from faar_ray.adapters import cached_kernels
from faar_ray.config.presets.methods import NEAREST
from faar_ray.config.trial import TrialConfig
from faar_ray.errors import ConfigError
from faar_ray.export.adapter_file import write_adapter
from faar_ray.export.read import load_model, read_adapter_file
from faar_ray.models import adapter_list, build_model, merge, parameter_terms, sine_layers
from faar_ray.models.unused import unused_parameters
from faar_ray.train.optimizer import build_optimizer
from tests.models.baselines.counts import LIGHT, on_swin_tiny, trainable
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
from tests.models.baselines.small import TASKS, adapted, config, image, micro
from tests.models.trials import run, trained

ROWS: list[tuple[str, dict[str, Any], float]] = [
    ("rank 64", {"method": "free_sinewich", "ranks.init_rank": 64}, 6.53),
    ("rank 32", {"method": "free_sinewich", "ranks.init_rank": 32}, 4.04),
    ("rank 64, a base per task", {"method": "sinewich_independent", "ranks.init_rank": 64}, 10.22),
    ("rank 64, heads of their own", {"method": "free_sinewich", "ranks.init_rank": 64, "decoder.hidden": "own"}, 7.41),
    ("rank 64, without LCN", {"method": "sinewich_without_lcn", "ranks.init_rank": 64}, 6.51),
]
"""Of the paper's tables, on Swin-T with PASCAL's four tasks, in millions."""
WIDTH = 96 + 192 + 384 + 768
SIDES = {"qkv": 4, "proj": 2, "fc1": 5, "fc2": 5}
"""(inputs + outputs) / C of each linear."""
Form = dict[str, Any]


def count(form: Form, rank: int, *, bases: int = 1, hidden: int = 1) -> int:
    """Trainable parameters on Swin-T by the sum of their terms."""
    layers: tuple[str, ...] = form["layers"]
    taps: int = form["conv_size"] ** 2
    before_last = 16 * (1 * 96 + 1 * 192 + 5 * 384 + 1 * 768)
    in_last = WIDTH * sum(side for layer, side in SIDES.items() if layer not in layers or layer in form["phi"])
    core = rank * taps * (rank if form["core"] == "dense" else 1)
    base = rank * WIDTH * sum(SIDES[layer] for layer in layers) + 4 * len(layers) * core
    inside, units = form["task_tokens"] != "outside", form["clock_hidden"]
    token = 96 if inside else 16
    clock = 4 * token + (token if units is None else units * token + units) + 2
    lifts = 2 * (96**2 + 192**2 + 384**2) if form["task_tokens"] == "lifted" else 0
    decoder = 4 * (183_168 + 1_080 + 2_160) + 34_592 + 291_600 * hidden
    return rank * (before_last + in_last) + bases * base + clock + lifts + decoder + sum(LIGHT.values())


def four(form: Form) -> list[float]:
    """Distances from the four published totals, per cent."""
    ours = [count(form, 64), count(form, 32), count(form, 64, bases=4, hidden=4), count(form, 64, hidden=4)]
    return [100 * (n / (1e6 * published) - 1) for n, (_, _, published) in zip(ours, ROWS[:4], strict=True)]


def every_form() -> list[Form]:
    """All that the keys of bases, cores, tokens and the clock can say (of the clock's width, none or the preset's)."""
    chosen = [c for n in range(1, 5) for c in combinations(SIDES, n)]
    with_phi = [(layers, phi) for layers in chosen for n in range(len(layers) + 1) for phi in combinations(layers, n)]
    ways = product(with_phi, ("dense", "depthwise"), (1, 3), ("outside", "prepended", "lifted"), (None, 192))
    keys = ("core", "conv_size", "task_tokens", "clock_hidden")
    return [{"layers": layers, "phi": phi, **dict(zip(keys, rest, strict=True))} for (layers, phi), *rest in ways]


def largest(form: Form) -> float:
    return max(map(abs, four(form)))


DOCUMENT = Path(__file__).parents[3] / "docs" / "methods.md"


def test_counts_are_the_sums_of_their_terms_and_the_documents_rows() -> None:
    older: Form = {"layers": ("proj", "fc1", "fc2"), "phi": ("proj", "fc1", "fc2"), "core": "dense", "conv_size": 1}
    older |= {"task_tokens": "outside", "clock_hidden": None}
    assert trainable(on_swin_tiny("sinewich_1x1", **{"ranks.init_rank": 64})) == count(older, 64) == 6_800_220
    ours = [trainable(on_swin_tiny(**keys)) for _, keys, _ in ROWS]
    of_a_task = count(NEAREST, 64, bases=4, hidden=4)
    assert ours[:4] == [count(NEAREST, 64), count(NEAREST, 32), of_a_task, count(NEAREST, 64, hidden=4)]
    for n, (name, _, published) in zip(ours, ROWS, strict=True):
        distance = 100 * (n / (1e6 * published) - 1)
        assert f"| {name} | {n:,} | {published:.2f}M | {distance:+.2f}% |" in DOCUMENT.read_text()


def test_no_form_comes_nearer_to_the_four_published_counts_than_the_preset() -> None:
    best = min(map(largest, every_form()))
    assert largest(NEAREST) == best == pytest.approx(0.49, abs=0.005)
    twin = {**NEAREST, "phi": ("fc2",)}  # the other linear of an MLP has as many numbers
    ties = [form for form in every_form() if largest(form) == best]
    assert len(ties) == 2
    assert NEAREST in ties
    assert twin in ties

    one_for_all = [form for form in every_form() if form["phi"] in ((), form["layers"])]
    not_lifted = [form for form in every_form() if form["task_tokens"] != "lifted"]
    assert min(map(largest, one_for_all)) == min(map(largest, not_lifted)) == pytest.approx(3.6, abs=0.01)
    assert largest({**NEAREST, "core": "dense", "conv_size": 1}) == pytest.approx(0.61, abs=0.005)


def test_the_clock_and_its_tokens_have_about_twenty_thousand_parameters() -> None:
    terms = parameter_terms(on_swin_tiny("free_sinewich", **{"ranks.init_rank": 64}))
    assert terms["clock"] + terms["task prompts"] == (192 * 96 + 192 + 2) + 4 * 96 == 19_010
    assert terms["prompt lifts"] == 387_072
    assert terms["base cores W"] == 8 * 9 * 64


# the forward pass in plain functions


def frequencies(w: Weights) -> list[Tensor]:
    hidden = [(w["clock.hidden_HD"] @ p).clamp_min(0) for p in w["prompts.tokens_TC"]]
    return [w["clock.scale"] * ((w["clock.query_D"] * h).sum().tanh() + w["clock.offset"]) for h in hidden]


def blurred(x: Tensor) -> Tensor:
    """K 7, sigma 1 along both axes, edges mirrored."""
    raw = [math.exp(-(i**2) / 2) for i in range(-3, 4)]
    for axis in (-1, -2):
        size, out = x.shape[axis], torch.zeros_like(x)
        for i, weight in zip(range(-3, 4), raw, strict=True):
            cells = [(c + i) % (2 * size) for c in range(size)]
            out = out + weight / sum(raw) * x.index_select(
                axis, torch.tensor([min(c, 2 * size - 1 - c) for c in cells])
            )
        x = out
    return x


def task_linear(w: Weights, at: str, layer: str, omega: Tensor, x: Tensor) -> Tensor:
    """phi(x) + M_t * x of tokens row by row, (B, L, I) -> (B, L, O); without a base phi alone."""
    part = "attn" if layer == "proj" else "mlp"
    phi = adapted(w, f"{at}.{part}.{layer}", x)
    base = f"{at}.task_linears.{layer}.bases.shared"
    if f"{base}.core" not in w:
        return phi
    A, B, core = w[f"{base}.A_RI"], w[f"{base}.B_RO"], w[f"{base}.core"]
    taps, side = core.shape[1], round(x.shape[1] ** 0.5)
    reach = round(taps**0.5) // 2
    padded = F.pad(x.unflatten(1, (side, side)), (0, 0, reach, reach, reach, reach))
    out = torch.zeros_like(phi)
    for tap in range(taps):
        M = sum(core[r, tap] * torch.outer(B[r], A[r]) for r in range(len(A)))
        K = blurred(torch.sin(omega * M)) / math.sqrt(taps * A.shape[1])
        i, j = divmod(tap, 2 * reach + 1)
        out = out + padded[:, i : i + side, j : j + side].flatten(1, 2) @ K.T
    return phi + out


def mlp(w: Weights, at: str, x: Tensor) -> Tensor:
    return adapted(w, f"{at}.mlp.fc2", F.gelu(adapted(w, f"{at}.mlp.fc1", norm(w, f"{at}.norm2", x))))


def attended(w: Weights, at: str, x: Tensor, p: Tensor, heads: int, window: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What the output projection sees, token by token, and the mean over windows of the tokens of tasks behind it."""
    T, mixed, of_tokens = p.shape[1], torch.zeros_like(x), []
    normed, bias = norm(w, f"{at}.norm1", x), position_bias(w, f"{at}.attn", window[0])
    for places, apart in windows(round(x.shape[1] ** 0.5), *window):
        z = torch.cat([norm(w, f"{at}.norm1", p), normed[:, places]], 1)
        q, k, v = (by_head(part, heads) for part in adapted(w, f"{at}.attn.qkv", z).chunk(3, -1))
        scores = q @ k.mT / q.shape[-1] ** 0.5 + F.pad(bias - 100.0 * apart, (T, 0, T, 0))
        y = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        of_tokens.append(adapted(w, f"{at}.attn.proj", y[:, :T]))
        mixed[:, places] = y[:, T:]
    return mixed, sum(of_tokens[1:], of_tokens[0]) / len(of_tokens)


def plain_sinewich(w: Weights, image: Tensor) -> dict[str, Tensor]:
    x, side = patches(w, image)
    omega, p = dict(zip(TASKS, frequencies(w), strict=True)), w["prompts.tokens_TC"].expand(len(x), -1, -1)
    maps: dict[str, list[Tensor]] = {task: [] for task in TASKS}
    for stage, (depth, heads) in enumerate(zip(MICRO["depths"], MICRO["heads"], strict=True)):
        down = f"layers.{stage + 1}.downsample.reduction"
        for block in range(depth):
            at = f"layers.{stage}.blocks.{block}"
            y, mean = attended(w, at, x, p, heads, window_of(side, MICRO["window"], block))
            for task in TASKS if block == depth - 1 else ():
                own = x + task_linear(w, at, "proj", omega[task], y)
                hidden = F.gelu(task_linear(w, at, "fc1", omega[task], norm(w, f"{at}.norm2", own)))
                own = own + task_linear(w, at, "fc2", omega[task], hidden)
                maps[task].append(own if stage == 3 else linear(w, down, neighbours(w, stage, own)))
            x, p = x + adapted(w, f"{at}.attn.proj", y), p + mean
            x, p = x + mlp(w, at, x), p + mlp(w, at, p)
        if stage < 3:
            x, side = linear(w, down, neighbours(w, stage, x)), side // 2
            lift = f"prompts.lifts.{stage}"
            four_times = norm(w, f"layers.{stage + 1}.downsample.norm", torch.cat([p] * 4, -1))
            p = linear(w, lift, p) if f"{lift}.weight" in w else linear(w, down, four_times)

    base = 5 * math.sqrt(w["decoder.hidden.bases.shared.weight_OI"].shape[1]) / 150 * w[HIDDEN]
    gain = math.sqrt(base.shape[1])
    hidden_of = {f"decoder.heads.{t}.hidden.weight": blurred(torch.sin(omega[t] * base)) / gain for t in TASKS}
    whole = {**w, **{name: weight[..., None, None] for name, weight in hidden_of.items()}}
    return {task: head(whole, task, of_task, 64) for task, of_task in maps.items()}


HIDDEN = "decoder.hidden.bases.shared.weight_OI"
FORMS: list[dict[str, Any]] = [
    {},
    {
        "sinewich.task_tokens": "prepended",
        "sinewich.conv_size": 1,
        "sinewich.layers": ["proj", "fc2"],
        "sinewich.phi": "frozen",
    },
]


@pytest.mark.parametrize("dotted", FORMS, ids=["preset", "prepended"])
def test_outputs_and_gradients_are_those_of_the_equations(dotted: dict[str, Any]) -> None:
    model = micro("free_sinewich", **dotted)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert list(unused_parameters(model)) == []
    ours, plain = model(image()), plain_sinewich(weights_of(model), image())
    for task, prediction in ours.items():
        assert plain[task].std() > 1e-2
        assert (prediction - plain[task]).abs().max() <= 1e-10 * plain[task].abs().max()
    assert (ours["semseg"][:, :3] - ours["normals"]).abs().max() > 1e-3

    results = [
        torch.autograd.grad(torch.stack([y.square().mean() for y in outputs.values()]).sum(), list(trained.values()))
        for outputs in (ours, plain)
    ]
    for name, of_ours, of_plain in zip(trained, *results, strict=True):
        assert of_plain.any(), name
        torch.testing.assert_close(of_ours, of_plain, rtol=1e-6, atol=1e-9, msg=name)


@torch.no_grad()
def test_tokens_in_the_attention_move_the_start_away_from_the_frozen_backbone_and_tokens_outside_do_not() -> None:
    start = {m: build_model(config(m)).eval().features(image().float()) for m in METHODS}
    frozen = start["decoder_only"][-1]
    torch.testing.assert_close(start["sinewich_1x1"][-1], frozen.expand(3, *frozen.shape[1:]))
    assert (start["free_sinewich"][-1] - frozen).abs().max() > 1e-2 * frozen.abs().max()


METHODS = ("free_sinewich", "sinewich_1x1", "decoder_only")


@torch.no_grad()
def test_on_a_vit_tokens_stand_before_all_others_in_every_block() -> None:
    keys = {"backbone.name": "vit_tiny_patch16_224", "sinewich.task_tokens": "prepended", "sinewich.conv_size": 1}
    model = build_model(config("free_sinewich", **keys)).double().eval()
    x = torch.cat([model.prompts.tokens_TC.expand(2, -1, -1), model.backbone.tokens(image())], 1)
    maps = []
    for quarter in model.backbone.layers:
        for block in quarter.blocks:
            x = getattr(block, "block", block)(x)  # kernels are 0 as long as B is
        maps.append(x[:, 3 + 1 :].unflatten(1, (4, 4)))
    for ours, plain in zip(model.features(image()), maps, strict=True):
        resized = F.interpolate(plain.movedim(-1, 1), size=ours.shape[2:4], mode="bilinear", antialias=True)
        torch.testing.assert_close(ours[0], resized.movedim(1, -1))
        assert torch.equal(ours[0], ours[2])


VIT = {"backbone.name": "vit_tiny_patch16_224", "sinewich.task_tokens": "prepended", "sinewich.conv_size": 1}


@pytest.mark.parametrize("dotted", [{}, {"sinewich.clock": "free"}, VIT], ids=["preset", "free clock", "vit"])
@torch.no_grad()
def test_frequencies_do_not_depend_on_the_image_so_models_merge_and_keep_their_tokens(dotted: dict[str, Any]) -> None:
    model = micro("free_sinewich", **dotted)
    expected = model(image())
    merged = merge(model, "normals")
    assert merged.clock is None
    assert list(merged(image())) == ["normals"]
    torch.testing.assert_close(merged(image())["normals"], expected["normals"], rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_the_adapter_file_gives_the_model_back(tmp_path: Path) -> None:
    of = config("free_sinewich")
    model = build_model(of).eval()
    for adapter in adapter_list(model):
        torch.nn.init.normal_(adapter.B_RO, std=0.1)
    torch.nn.init.normal_(model.prompts.tokens_TC)
    write_adapter(tmp_path / "a.safetensors", model, of)
    file = read_adapter_file(tmp_path / "a.safetensors")
    torch.testing.assert_close(load_model(file, tmp_path)(image().float()), model(image().float()))


def test_a_step_in_parts_gives_tokens_their_gradient_once_and_whole() -> None:
    """It comes from the attention of every part and, at the end, from the clock; DDP takes no second one."""
    model = micro("free_sinewich")
    tokens: Any = model.prompts.tokens_TC
    calls: list[Tensor] = []
    torch.stack([y.square().mean() for y in model(image()).values()]).sum().backward()
    whole = tokens.grad.clone()
    model.zero_grad()
    tokens.register_post_accumulate_grad_hook(calls.append)
    with cached_kernels(sine_layers(model)):
        for part in image().split(1):
            torch.stack([y.square().mean() / 2 for y in model(part).values()]).sum().backward()
    torch.testing.assert_close(tokens.grad, whole)
    assert len(calls) == 1


def test_tokens_that_the_clock_reads_are_not_decayed_and_lifts_are() -> None:
    model = micro("free_sinewich")
    groups = build_optimizer(model, config("free_sinewich", **{"optim.weight_decay": 0.1}).optim).param_groups
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert {decay[id(p)] for p in (model.prompts.tokens_TC, *model.clock.parameters())} == {0.0}
    assert {decay[id(p)] for p in model.prompts.lifts.parameters()} == {0.1}


@pytest.mark.slow
def test_it_trains_in_parts_and_resumes_to_the_same_numbers(tmp_path: Path) -> None:
    dotted = {"method": "free_sinewich", "ranks.kind": "pdrs", "data.tasks": ["semseg", "normals"]}
    records = run(tmp_path / "whole", dotted)
    assert any(row.rank < row.rank_before for row in records[-1].ranks if row.layer == "fc2_awb")
    run(tmp_path / "cut", dotted, epochs=1)
    torch.rand(5)
    assert run(tmp_path / "cut", dotted) == records
    ours, theirs = trained(tmp_path / "cut"), trained(tmp_path / "whole")
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    assert any(name.startswith("prompts.") for name in ours)


@pytest.mark.parametrize(
    ("dotted", "words"),
    [
        ({"sinewich.phi": ["proj"]}, "sinewich.phi: must be among sinewich.layers = "),
        (
            {"sinewich.conv_size": 1, "sinewich.layers": ["qkv", "fc1"]},
            "must not hold qkv where sinewich.task_tokens is lifted",
        ),
        (
            {"sinewich.conv_size": 1, "ranks.kind": "spectral"},
            "sinewich.core: must be dense where adapters are rotated",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(dotted: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TrialConfig.resolve({"method": "free_sinewich"}, **dotted)


@pytest.mark.parametrize(
    ("name", "tokens", "words"),
    [
        (
            "vit_tiny_patch16_224",
            "lifted",
            "must be outside or prepended on vit_tiny_patch16_224, whose blocks all have",
        ),
        ("convnext_atto", "prepended", "must be outside on convnext_atto, whose blocks have no attention"),
        ("test_efficientnet", "lifted", "must be outside on test_efficientnet, whose blocks have no attention"),
    ],
)
def test_backbones_refuse_tokens_that_they_have_no_place_for(name: str, tokens: str, words: str) -> None:
    keys = {"backbone.name": name, "backbone.pyramid": "stages", "sinewich.conv_size": 1}
    with pytest.raises(ConfigError, match=f"sinewich.task_tokens: {words}"):
        build_model(config("free_sinewich", **keys, **{"sinewich.task_tokens": tokens}))
