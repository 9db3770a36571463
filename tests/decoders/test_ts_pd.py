"""TS-PD: identity at the start, the formulas against a float64 reference, any size, any precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from faar_ray.config.trial import DecoderConfig
from faar_ray.decoders import (
    Consensus,
    GridFilter,
    SpectralLevel,
    SpectralPyramid,
    build_decoder,
    low_band,
)

TASKS = ("semseg", "depth", "normals")
SIZES = [(8, 8), (7, 9), (5, 12), (1, 3), (1, 1)]


def maps(size: tuple[int, int], *, channels: int = 4, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {task: torch.randn(2, channels, *size, generator=generator).to(dtype) for task in TASKS}


def level(native: tuple[int, int] = (8, 8), **options: Any) -> SpectralLevel:
    return SpectralLevel(TASKS, 4, native, DecoderConfig(kind="ts_pd", **options))


def stirred(module: torch.nn.Module) -> Any:
    torch.manual_seed(1)
    for p in module.parameters():
        torch.nn.init.normal_(p, mean=0.5, std=0.3)
    return module


@pytest.mark.parametrize("filter_", ["grid", "radial"])
@pytest.mark.parametrize("size", SIZES)
def test_it_starts_as_exactly_the_identity(filter_: str, size: tuple[int, int]) -> None:
    x = maps(size)
    for task, y in level(filter=filter_)(x).items():
        assert torch.equal(y, x[task])


@pytest.mark.parametrize("filter_", ["grid", "radial"])
def test_gradients_flow_from_the_first_step(filter_: str) -> None:
    of = level(filter=filter_)
    sum(y.pow(3).sum() for y in of(maps((8, 8))).values()).backward()
    parameters = dict(of.named_parameters())
    still = {name for name, p in parameters.items() if p.grad is None or not p.grad.any()}
    # radial: the scale acts on a filter that is still 0; it moves from the second step on
    assert still == ({name for name in parameters if name.endswith("scale_C")} if filter_ == "radial" else set())
    for task in TASKS:
        assert parameters[f"consensus.{task}.alpha_low"].grad != 0
        assert parameters[f"consensus.{task}.alpha_high"].grad != 0


@pytest.mark.parametrize("size", SIZES)
def test_grid_filter_and_consensus_equal_their_formulas_in_float64(size: tuple[int, int]) -> None:
    """Y = W (.) FFT(I), inverse, scale and shift; then Delta = M (F_avg - FFT(X_main)) with its alphas, all tasks."""
    of = stirred(level(native=size)).double()
    x = maps(size, dtype=torch.float64)
    filtered = {}
    for task, cw_sp in of.filters.items():
        deviation, shift = cw_sp(size)
        w_times_scale = 1 + deviation
        filtered[task] = torch.fft.irfft2(w_times_scale * torch.fft.rfft2(x[task]), s=size) + shift[:, None, None]
    low = low_band(size, 0.5).double()
    for task, y in of(x).items():
        others = torch.stack([torch.fft.rfft2(filtered[other]) for other in TASKS if other != task]).mean(0)
        difference = others - torch.fft.rfft2(filtered[task])
        a = of.consensus[task]
        delta = a.alpha_low * low * difference + a.alpha_high * (1 - low) * difference
        torch.testing.assert_close(y, filtered[task] + torch.fft.irfft2(delta, s=size))


def test_the_grid_is_multiplied_into_the_spectrum_of_every_channel() -> None:
    filter_ = stirred(GridFilter(4, (8, 8))).double()
    deviation, _ = filter_((8, 8))
    w = (1 + deviation) / filter_.scale_C[:, None, None]
    for channel in range(1, 4):
        torch.testing.assert_close(w[channel], w[0])
    torch.testing.assert_close(w[0, :, 1:-1], 1 + filter_.deviation_HX[:, 1:-1])


def test_full_consensus_makes_a_task_the_mean_of_the_others() -> None:
    of = level(cw_sp=False)
    for consensus in of.consensus.values():
        torch.nn.init.ones_(consensus.alpha_low)
        torch.nn.init.ones_(consensus.alpha_high)
    x = maps((6, 7))
    torch.testing.assert_close(of(x)["depth"], (x["semseg"] + x["normals"]) / 2, rtol=1e-4, atol=1e-5)


def test_the_low_alpha_moves_low_frequencies_only() -> None:
    of = level(cw_sp=False)
    torch.nn.init.ones_(of.consensus["depth"].alpha_low)
    x = maps((8, 8))
    change = torch.fft.rfft2(of(x)["depth"] - x["depth"]).abs()
    low = low_band((8, 8), 0.5)
    assert change[..., ~low].max() < 1e-4 < change[..., low].max()


def test_only_primary_tasks_are_pulled_and_only_what_is_on_exists() -> None:
    of = level(primary=["depth"], cw_sp=False)
    assert list(of.consensus) == ["depth"]
    assert list(of.filters) == []
    torch.nn.init.ones_(of.consensus["depth"].alpha_low)
    x = maps((8, 8))
    changed = {task for task, y in of(x).items() if not torch.equal(y, x[task])}
    assert changed == {"depth"}
    assert list(level(xt_cons=False).consensus) == []


def test_under_autocast_the_transforms_run_in_float32() -> None:
    """Sizes that half-precision transforms refuse, and values that bf16 could not sum."""
    of = stirred(level(native=(7, 9)))
    x = maps((7, 9))
    expected = of({task: value.bfloat16().float() for task, value in x.items()})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = of({task: value.bfloat16() for task, value in x.items()})
    for task, y in result.items():
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y, expected[task].bfloat16(), rtol=1e-2, atol=1e-2)


def test_gradients_pass_gradcheck() -> None:
    of = stirred(level(native=(4, 5))).double()
    x = [value[:1, :, :3, :4].clone().requires_grad_() for value in maps((4, 5), dtype=torch.float64).values()]

    def run(*values: Tensor) -> tuple[Tensor, ...]:
        return tuple(of(dict(zip(TASKS, values, strict=True))).values())

    assert torch.autograd.gradcheck(run, x)


def test_a_filter_learnt_at_one_size_acts_alike_at_another() -> None:
    """Suppressing the upper half of the frequencies suppresses them at twice the size too."""
    of = level(native=(16, 16), xt_cons=False)
    for filter_ in of.filters.values():
        with torch.no_grad():
            filter_.deviation_HX.copy_(torch.where(low_band((16, 16), 0.5), 0.0, -1.0))
    x = {task: torch.randn(1, 4, 32, 32) for task in TASKS}
    change = torch.fft.rfft2(of(x)["depth"]).abs() / torch.fft.rfft2(x["depth"]).abs()
    low = change[..., low_band((32, 32), 0.3)]
    torch.testing.assert_close(low, torch.ones_like(low), rtol=1e-3, atol=1e-3)
    assert change[..., ~low_band((32, 32), 0.7)].max() < 1e-3


def test_alphas_of_a_consensus_are_free_of_weight_decay_by_their_shape() -> None:
    assert {p.ndim for p in Consensus(0.5).parameters()} == {0}


@pytest.mark.parametrize("size", [(64, 64), (40, 72), (33, 47)])
def test_switching_the_decoder_changes_no_output_before_the_first_step(size: tuple[int, int]) -> None:
    sides = [[-(-s // d) for s in size] for d in (8, 16)]
    pyramids = {task: [torch.randn(2, c, *side) for c, side in zip((8, 16), sides, strict=True)] for task in TASKS}
    result = []
    for options in ({"kind": "hrnet"}, {"kind": "ts_pd"}, {"kind": "ts_pd", "filter": "radial"}):
        decoder = build_decoder(
            DecoderConfig(**options),
            (8, 16),
            dict.fromkeys(TASKS, 3),
            grids=[(8, 8), (4, 4)],
            embed_dim=24,
            seed=0,
        ).eval()
        result.append(decoder(pyramids, size))
    for task in TASKS:
        assert result[0][task].shape == (2, 3, *size)
        assert torch.equal(result[0][task], result[1][task])
        assert torch.equal(result[0][task], result[2][task])


def test_a_pyramid_keeps_shapes_and_order() -> None:
    pyramid = SpectralPyramid(TASKS, (2, 4), [(8, 8), (4, 4)], DecoderConfig(kind="ts_pd"))
    x = {task: [torch.randn(1, 2, 8, 8), torch.randn(1, 4, 4, 4)] for task in TASKS}
    for task, result in pyramid(x).items():
        assert [y.shape for y in result] == [value.shape for value in x[task]]
