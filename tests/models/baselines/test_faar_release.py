"""FAAR's released code: its counts by part, and forward and backward passes against plain functions of the equations.

Axes: B batch, C channels, H W space, K columns of the half plane.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from faar_ray.errors import ConfigError
from faar_ray.export.adapter_file import write_adapter
from faar_ray.export.read import load_model, read_adapter_file
from faar_ray.models import adapter_list, build_model, magnitude_penalty, merge
from faar_ray.models.multitask import parameter_terms
from faar_ray.models.unused import unused_parameters
from tests.models.baselines.counts import LIGHT, on_swin_tiny, trainable
from tests.models.baselines.plain_swin import (
    Weights,
    linear,
    maps_on_shared_input,
    prediction,
    reduced,
    weights_of,
)
from tests.models.baselines.small import SCALE, TASKS, config, image, micro
from tests.models.trials import run

METHOD = "faar_release"


def magnitudes(w: Weights, linear_at: str, at: str) -> tuple[Tensor, Tensor]:
    """m and ||W||."""
    length = w[f"{linear_at}.weight"].square().sum(1).sqrt()
    return length * (w[f"{at}.theta_O"].exp() / length) ** 0.1, length


def difference(w: Weights, linear_at: str, at: str) -> Tensor:
    """W' - W with v = W / ||W|| + s B A and W' = m v / ||v||, row by row."""
    W, m_and_length = w[f"{linear_at}.weight"], magnitudes(w, linear_at, at)
    m, length = (x[:, None] for x in m_and_length)
    v = W / length + SCALE * torch.einsum("ro,ri->oi", w[f"{at}.B_RO"], w[f"{at}.A_RI"])
    return m * v / v.square().sum(1, keepdim=True).sqrt() - W


def layer(w: Weights, at: str, x: Tensor) -> Tensor:
    frozen = linear(w, at, x)
    return frozen + x @ difference(w, at, f"{at}.adapter").T if f"{at}.adapter.A_RI" in w else frozen


def change(w: Weights, at: str, name: str, task: str, x: Tensor) -> Tensor:
    where = f"{at}.attn.{name}" if name == "proj" else f"{at}.mlp.{name}"
    return x @ difference(w, where, f"{at}.task_linears.{name}.adapters.{task}").T


def waves(size: int, columns: int) -> Tensor:
    """e^(-2 pi i k n / size), (columns, size)."""
    k, n = torch.arange(columns, dtype=torch.float64), torch.arange(size, dtype=torch.float64)
    return torch.exp(-2j * math.pi * k[:, None] * n[None] / size)


def spectrum(x: Tensor) -> Tensor:
    """Half of the orthonormal transform by its sum, (B, C, H, W) -> (B, C, H, K)."""
    height, width = x.shape[-2:]
    rows, columns = waves(height, height), waves(width, width // 2 + 1)
    f: Tensor = torch.einsum("bcyx,hy,kx->bchk", x.to(rows.dtype), rows, columns) / (height * width) ** 0.5
    return f


def back(f: Tensor, width: int) -> Tensor:
    """The real map of half a transform: columns that stand for two frequencies count twice."""
    height = f.shape[-2]
    twice = torch.tensor([1.0 if k in (0, width / 2) else 2.0 for k in range(f.shape[-1])], dtype=torch.float64)
    rows, columns = waves(height, height).conj(), waves(width, f.shape[-1]).conj()
    x: Tensor = torch.einsum("bchk,k,hy,kx->bcyx", f, twice.to(f.dtype), rows, columns).real / (height * width) ** 0.5
    return x


def radii(height: int, columns: int) -> Tensor:
    """As if row 0 were -1 and the last row 1."""
    return torch.tensor(
        [
            [min(1.0, math.hypot(-1 + 2 * y / (height - 1), x / (columns - 1))) for x in range(columns)]
            for y in range(height)
        ],
        dtype=torch.float64,
    )


def spectral(w: Weights, level: int, branches: dict[str, Tensor]) -> dict[str, Tensor]:
    """One branch of all tasks: the filter, then the consensus with the other tasks' unfiltered maps."""
    out, at = {}, f"decoder.spectral.levels.{level}"
    for task, x in branches.items():
        height, width = x.shape[-2:]
        r = radii(height, width // 2 + 1)
        ring = sum((r > k / 16).long() for k in range(1, 16))
        of = {name: w[f"{at}.filters.{task}.{name}"] for name in ("deviation_NC", "scale_1C", "shift_1C", "gain_11")}
        W = 1 + of["deviation_NC"][ring].permute(2, 0, 1)
        y = back(spectrum(x) * W, width) * of["scale_1C"][..., None, None] + of["shift_1C"][..., None, None]
        f = spectrum(x + of["gain_11"] * y)

        average = sum(spectrum(other) for name, other in branches.items() if name != task) / (len(branches) - 1)
        a = {
            name: w[f"{at}.consensus.{task}.{name}"] for name in ("alpha_low", "alpha_high", "gamma_low", "gamma_high")
        }
        by_low, by_high = (cap / (1 + (-a[f"alpha_{b}"]).exp()) for cap, b in ((0.5, "low"), (0.3, "high")))
        size = f.abs() + by_low * (a["gamma_low"] * average.abs() - f.abs())
        low = (r <= 0.5).double()
        ramp = ((r - 0.8) / (0.2 + 1e-6)).clamp(0, 1) * (1 - low)
        mixed = (1 - low) * f + low * f / (f.abs() + 1e-6) * size
        out[task] = back(mixed + by_high * ramp * (a["gamma_high"] * average - f), width)
    return out


def plain_release(w: Weights, x: Tensor) -> dict[str, Tensor]:
    maps = maps_on_shared_input(w, x, TASKS, layer, change)
    branches = {task: reduced(w, task, of_task) for task, of_task in maps.items()}
    levels = [spectral(w, i, {task: of_task[i] for task, of_task in branches.items()}) for i in range(4)]
    return {task: prediction(w, task, [of_level[task] for of_level in levels], 64) for task in TASKS}


def test_outputs_and_gradients_are_those_of_the_equations() -> None:
    model = micro(METHOD)
    dead = set(unused_parameters(model))
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad and name not in dead}
    ours, plain = model(image()), plain_release(weights_of(model), image())
    for task, ours_of_task in ours.items():
        assert plain[task].std() > 1e-2
        # the ramp of the high band is in single precision
        assert (ours_of_task - plain[task]).abs().max() <= 1e-7 * plain[task].abs().max()

    results = [
        torch.autograd.grad(torch.stack([y.square().mean() for y in outputs.values()]).sum(), list(trained.values()))
        for outputs in (ours, plain)
    ]
    for name, of_ours, of_plain in zip(trained, *results, strict=True):
        assert of_plain.any(), name
        torch.testing.assert_close(of_ours, of_plain, rtol=1e-6, atol=1e-9, msg=name)


def test_the_penalty_is_that_of_shared_layers_and_of_a_reduction_once_per_task() -> None:
    model = micro(METHOD)
    w, total = weights_of(model), torch.zeros((), dtype=torch.float64)
    for name in w:
        if name.endswith(".adapter.theta_O"):
            at = name.removesuffix(".adapter.theta_O")
            m, length = magnitudes(w, at, f"{at}.adapter")
            total = total + (len(TASKS) if "reduction" in name else 1) * (m / length - 1).square().mean()
    assert total > 0.1
    torch.testing.assert_close(magnitude_penalty(model), total)


@torch.no_grad()
def test_where_its_parts_start() -> None:
    """Magnitudes of freshly drawn rows scale every layer, and the decoder begins at about 1.6 x."""
    frozen = build_model(config("decoder_only")).eval()(image().float())
    keys = {"decoder.kind": "hrnet", "adapter.magnitude_start": "weight"}
    start = build_model(config(METHOD, **keys)).eval()(image().float())
    moved = build_model(config(METHOD, **{"decoder.kind": "hrnet"})).eval()
    for task, expected in frozen.items():
        torch.testing.assert_close(start[task], expected, rtol=1e-3, atol=1e-4)
        assert (moved(image().float())[task] - expected).abs().max() > 1e-2 * expected.abs().max()
    spectra = build_model(config(METHOD, **{"decoder.xt_cons": False})).decoder.spectral
    assert spectra is not None
    x = {task: [torch.randn(2, c, s, s) for c, s in zip((4, 8, 16, 32), (8, 4, 2, 2), strict=True)] for task in TASKS}
    for task, of_task in spectra(x).items():
        assert {y.shape[-2:] for y in of_task} == {(8, 8)}
        gain = (of_task[0] * x[task][0]).sum() / x[task][0].square().sum()
        assert gain == pytest.approx(1.6, abs=0.05)


@pytest.mark.parametrize(("rank", "count", "dead"), [(32, 6_694_906, 122_880), (5, 2_812_090, 19_200)])
def test_counts_are_those_of_the_released_code_part_by_part(rank: int, count: int, dead: int) -> None:
    model = on_swin_tiny(METHOD, **{"ranks.init_rank": rank})
    assert trainable(model) == count
    terms = parameter_terms(model)
    assert terms["LoRA factors"] + terms["dead factors"] == (70_656 + 69_120 + 4_032) * rank
    assert terms["dead factors"] == dead
    assert terms["magnitudes"] == 74_304 + 1_344
    assert terms["decoder spectral"] == 19_520
    assert {term: terms[term] for term in LIGHT} == LIGHT
    assert sum(n for term, n in terms.items() if term.startswith("decoder")) == 1_946_624 + 19_520


@torch.no_grad()
def test_the_adapter_file_gives_the_model_back_and_merging_is_refused(tmp_path: Path) -> None:
    of = config(METHOD)
    model = build_model(of).eval()
    for i, adapter in enumerate(adapter_list(model)):
        torch.nn.init.normal_(adapter.B_RO, std=0.1)
        adapter.keep(torch.tensor([2, 0, 1][: 1 + i % 3]))
    write_adapter(tmp_path / "a.safetensors", model, of)
    again = load_model(read_adapter_file(tmp_path / "a.safetensors"), tmp_path)
    torch.testing.assert_close(again(image().float()), model(image().float()))
    with pytest.raises(ConfigError, match="no single weight does the work of both"):
        merge(model)


@torch.no_grad()
def test_its_adapters_and_decoder_merge_on_tasks_own_path() -> None:
    model = micro(METHOD, **{"placement.task_path": "own"})
    torch.testing.assert_close(merge(model)(image()), model(image()))


def test_on_a_vit_the_shared_path_is_refused_and_all_else_taken() -> None:
    keys = {"backbone.name": "vit_tiny_patch16_224", "backbone.pyramid": "stages", "placement.reductions": "frozen"}
    with pytest.raises(ConfigError, match=r"placement\.task_path: must be own on vit_tiny"):
        build_model(config(METHOD, **keys))
    model = build_model(config(METHOD, **keys, **{"placement.task_path": "own"}))
    assert all(y.isfinite().all() for y in model(image().float()).values())


@pytest.mark.slow
def test_a_trial_resumes_to_the_bit_and_its_ranks_shrink(tmp_path: Path) -> None:
    dotted = {"method": METHOD, "optim.epochs": 2, "pdrs.rho_shared": 0.2, "optim.accumulate": 2}
    records = run(tmp_path / "whole", dotted)
    assert {row.layer for row in records[-1].ranks} == {"qkv", "proj", "fc1", "fc2", "reduction"}
    assert any(row.rank < row.rank_before for row in records[0].ranks)
    assert any(row.extra["dropped"] for row in records[-1].ranks)
    run(tmp_path / "cut", dotted, epochs=1)
    torch.rand(5)
    assert run(tmp_path / "cut", dotted) == records
