"""DiTASK's spectra in whole models: where they start, what they count, whose stream is whose, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from faar_ray.adapters import AdaptedLinear, Site, SpectrumWarp, TaskLinears, decompose_all, warps_of
from faar_ray.config.trial import TrialConfig
from faar_ray.config.trial_file import read_trial
from faar_ray.errors import ConfigError
from faar_ray.export.adapter_file import write_adapter
from faar_ray.export.rank_pattern import rank_pattern
from faar_ray.export.read import load_model, read_adapter_file
from faar_ray.models import MultiTaskModel, adapter_list, build_model, merge, parameters_by_part
from faar_ray.models.multitask import parameter_terms
from faar_ray.train.optimizer import build_optimizer

TINY = "swin_tiny_patch4_window7_224"
TASKS = ("semseg", "normals")


def micro(method: str = "ditask", **dotted: Any) -> MultiTaskModel:
    raw = {"method": method, "backbone": {"pretrained": False}, "data": {"tasks": TASKS, "image_size": 32}}
    torch.manual_seed(0)
    return build_model(TrialConfig.resolve(raw, **dotted)).eval()


def image(side: int = 32) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def moved(model: MultiTaskModel) -> MultiTaskModel:
    """The same with flows away from their start."""
    torch.manual_seed(0)
    for warp in warps_of(model):
        nn.init.uniform_(warp.theta_1K, -1.0, 1.0)
    return model


@torch.no_grad()
def test_the_paper_s_starts_at_the_frozen_backbone_and_the_released_code_s_does_not() -> None:
    frozen = micro("decoder_only")(image())
    paper, release = micro()(image()), micro("ditask_release")(image())
    for task, expected in frozen.items():
        torch.testing.assert_close(paper[task], expected, rtol=1e-4, atol=1e-5)
        assert (release[task] - expected).abs().max() > 1e-3 * expected.abs().max()


@torch.no_grad()
def test_a_task_s_flow_changes_its_own_task_only() -> None:
    model = micro()
    before = model(image())
    own = next(warp for warp in warps_of(model) if warp.site == Site(1, 1, "fc1", "normals"))
    nn.init.normal_(own.theta_1K)
    after = model(image())
    assert {task for task in before if not torch.equal(before[task], after[task])} == {"normals"}


def test_every_flow_that_reaches_an_output_gets_a_gradient_and_the_optimizer_moves_it() -> None:
    model = micro()
    warps = warps_of(model)
    assert len(warps) == 7 * 4 + 1 + 4 * 3 * len(TASKS)
    sum(p.square().mean() for p in model(image()).values()).backward()
    assert [warp.site for warp in warps if warp.theta_1K.grad is None or not warp.theta_1K.grad.any()] == []
    assert adapter_list(model) == []

    optimizer = build_optimizer(model, TrialConfig.resolve({"method": "ditask"}).optim)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert len({id(p) for p in held}) == len(held)
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert {id(p) for p in held} == trained >= {id(warp.theta_1K) for warp in warps}


SWIN_TINY = {
    "backbone": {"name": TINY, "pretrained": False},
    "data": {"name": "pascal_context", "tasks": ["semseg", "normals", "saliency", "human_parts"], "image_size": 448},
}
LIGHT, REDUCTIONS, DECODER = 51_258, 1_548_288, 1_946_624
SHARED, OF_TASKS = 48 * 63, 12 * 4 * 3


@pytest.mark.parametrize(
    ("method", "flows", "dead", "total"),
    [
        ("ditask", SHARED + OF_TASKS, 3 * 63, 3_549_338),
        ("ditask_release", SHARED + 2 * OF_TASKS, 3 * 63 + OF_TASKS, 3_549_482),
    ],
)
def test_counts_on_swin_tiny_are_the_published_ones_part_by_part(
    method: str, flows: int, dead: int, total: int
) -> None:
    """Dead: shared flows of the last stage behind its attention, and in the release tasks' flows on qkv."""
    with torch.device("meta"):
        model = build_model(TrialConfig.resolve({**SWIN_TINY, "method": method}))
    parts, terms = parameters_by_part(model), parameter_terms(model)
    assert parts["adapters"] == flows
    assert terms["dead flows"] == dead
    assert parts["norms"] + parts["other"] - terms["merging reductions"] == LIGHT
    assert terms["merging reductions"] == REDUCTIONS
    assert parts["decoder"] == DECODER
    assert sum(parts.values()) == sum(p.numel() for p in model.parameters() if p.requires_grad) == total
    assert {warp.theta_1K.shape for warp in warps_of(model) if warp.site.shared} == {(1, 63)}
    assert {warp.theta_1K.shape for warp in warps_of(model) if not warp.site.shared} == {(1, 3)}


def test_dead_numbers_get_no_gradient_and_no_step_moves_them() -> None:
    model = micro("ditask_release")
    dead = [p for name, p in model.named_parameters() if "unused" in name]
    assert sum(p.numel() for p in dead) == 3 * 63 + 8 * len(TASKS) * 3
    before = [p.detach().clone() for p in dead]
    sum(p.square().mean() for p in model(image()).values()).backward()
    build_optimizer(model, TrialConfig.resolve({"method": "ditask"}).optim).step()
    assert all(p.grad is None and torch.equal(p, was) for p, was in zip(dead, before, strict=True))
    merged = merge(model)
    assert not [name for name, _ in merged.named_parameters() if "unused" in name or "theta" in name]


@pytest.mark.parametrize(
    "dotted", [{}, {"spectrum.warp": "index"}, {"placement.task_blocks": "all"}, {"placement.reductions": "adapted"}]
)
@torch.no_grad()
def test_a_merged_model_predicts_the_same_without_any_adapter(dotted: dict[str, Any]) -> None:
    model = moved(micro(**dotted))
    merged = merge(model)
    assert not [m for m in merged.modules() if isinstance(m, SpectrumWarp | AdaptedLinear | TaskLinears)]
    ours, theirs = merged(image()), model(image())
    for task in TASKS:
        assert (ours[task] - theirs[task]).abs().max() <= 1e-5 * theirs[task].abs().max().clamp_min(1)


@torch.no_grad()
def test_an_adapter_file_holds_flows_and_no_decomposition_and_gives_the_model_back(tmp_path: Path) -> None:
    model, path = moved(micro()), tmp_path / "adapter.safetensors"
    expected = model(image())
    raw = {"method": "ditask", "backbone": {"pretrained": False}, "data": {"tasks": TASKS, "image_size": 32}}
    write_adapter(path, model, TrialConfig.resolve(raw))
    file = read_adapter_file(path)
    of_adapters = [name for name in file.tensors if "adapter" in name]
    assert len(of_adapters) == len(warps_of(model))
    assert sum(file.tensors[name].numel() for name in of_adapters) < 63 * len(of_adapters)
    again = load_model(file, path)(image())
    for task in TASKS:
        assert torch.equal(again[task], expected[task])


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto", "efficientnet_lite0"])
def test_other_backbones_start_at_theirs_too_and_train(name: str) -> None:
    keys = {
        "backbone.name": name,
        "backbone.pyramid": "stages",
        "placement.reductions": "frozen",
        "placement.dead_parameters": False,
        "adapter.dropout": 0.0,
    }
    model, frozen = micro(**keys), micro("decoder_only", **{k: v for k, v in keys.items() if "backbone" in k})
    predicted = model(image())
    for task, expected in frozen(image()).items():
        torch.testing.assert_close(predicted[task], expected, rtol=1e-3, atol=1e-4)
    sum(p.square().mean() for p in predicted.values()).backward()
    assert all(warp.theta_1K.grad is not None and warp.theta_1K.grad.any() for warp in warps_of(model))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            "ranks: {kind: pdrs}",
            r"c\.yaml:2:9: ranks\.kind: must be fixed where adapter\.kind is spectrum.*components",
        ),
        ("placement: {task_path: shared}", r"c\.yaml:2:13: placement\.task_path: must be own where.*apart from W"),
        ("spectrum: {cells: 1}", r"c\.yaml:2:12: spectrum\.cells: .*2"),
        ("spectrum: {warp: value}", r"c\.yaml:2:12: spectrum\.warp: .*did you mean 'values'"),
    ],
)
def test_what_makes_no_sense_is_refused_at_its_place_with_the_reason(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "c.yaml").write_text(f"method: ditask\n{line}\n")
    with pytest.raises(ConfigError, match=says):
        read_trial(tmp_path / "c.yaml")


def test_there_is_no_rank_pattern_of_spectra() -> None:
    with pytest.raises(ConfigError, match="spectrum has no ranks; --merge gives plain weights"):
        rank_pattern({}, TrialConfig.resolve({"method": "ditask"}))


@pytest.mark.slow
def test_a_compiled_model_gives_the_same_outputs_and_gradients() -> None:
    model = moved(micro())
    decompose_all(model)
    torch.compiler.reset()
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model, backend=backend)
    for _ in range(2):
        ours, plain = compiled(image()), model(image())
        for task in TASKS:
            torch.testing.assert_close(ours[task], plain[task], rtol=1e-4, atol=1e-4)
    thetas = [warp.theta_1K for warp in warps_of(model)]
    gradients = [torch.autograd.grad(sum(p.square().mean() for p in out.values()), thetas) for out in (ours, plain)]
    for of_compiled, of_plain in zip(*gradients, strict=True):
        torch.testing.assert_close(of_compiled, of_plain, rtol=1e-3, atol=1e-5)
    assert len(graphs) == 1
