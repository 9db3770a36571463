"""MTLoRA and MTLoRA+: the published counts by part, and the forward pass against plain functions of the equations."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from faar_ray.config.trial import TrialConfig
from faar_ray.export.adapter_file import write_adapter
from faar_ray.export.read import load_model, read_adapter_file
from faar_ray.models import adapter_list, build_model, merge
from faar_ray.models.multitask import parameter_terms
from faar_ray.models.unused import unused_parameters
from tests.models.baselines.counts import LIGHT, NYUD, PASCAL, on_swin_tiny, trainable
from tests.models.baselines.plain_swin import Weights, head, low_rank, maps_on_shared_input, weights_of
from tests.models.baselines.small import SCALE, TASKS, adapted, image, micro


def change(w: Weights, at: str, layer: str, task: str, x: Tensor) -> Tensor:
    """s B_t A_t x_t."""
    return SCALE * low_rank(w, f"{at}.task_linears.{layer}.adapters.{task}", x)


def plain_mtlora(w: Weights, x: Tensor) -> dict[str, Tensor]:
    """y = W x + b + s B A x; of tasks y_t = W x + b + s B_t A_t x_t, from the shared block's input on."""
    maps = maps_on_shared_input(w, x, TASKS, adapted, change)
    return {task: head(w, task, of_task, 64) for task, of_task in maps.items()}


@pytest.mark.parametrize("method", ["mtlora", "mtlora_plus"])
@torch.no_grad()
def test_the_forward_pass_is_the_equations(method: str) -> None:
    model = micro(method)
    assert any(model.backbone.layers[0].blocks[1].block.shift_size)
    expected = plain_mtlora(weights_of(model), image())
    for task, prediction in model(image()).items():
        assert expected[task].std() > 1e-2
        assert (prediction - expected[task]).abs().max() <= 1e-10 * expected[task].abs().max()


@pytest.mark.parametrize(
    ("rank", "published", "shared", "dead"),
    [
        (64, 8_344_634, 4_521_984, 245_760),
        (32, 6_083_642, 2_260_992, 122_880),
        (16, 4_953_146, 1_130_496, 61_440),
    ],
)
def test_mtloras_count_is_the_published_one_part_by_part(rank: int, published: int, shared: int, dead: int) -> None:
    model = on_swin_tiny("mtlora", **{"ranks.init_rank": rank})
    assert trainable(model) == published
    terms = parameter_terms(model)
    assert terms["LoRA factors"] + terms["dead factors"] == shared + 276_480
    assert terms["dead factors"] == dead
    assert terms["merging reductions"] == 1_548_288
    assert {term: terms[term] for term in LIGHT} == LIGHT
    assert sum(count for term, count in terms.items() if term.startswith("decoder")) == 1_946_624
    without = on_swin_tiny("mtlora", **{"ranks.init_rank": rank, "placement.dead_parameters": False})
    assert trainable(without) == published - dead


def test_other_published_counts_of_mtlora_and_mtlora_plus() -> None:
    assert trainable(on_swin_tiny("mtlora", NYUD)) == 7_810_478
    plus = on_swin_tiny("mtlora_plus", PASCAL)
    assert trainable(plus) == 7_054_394
    of_reductions = [adapter for adapter in adapter_list(plus) if adapter.site.layer == "reduction"]
    assert [(a.site.stage, a.site.block, a.rank) for a in of_reductions] == [(0, 2, 64), (1, 2, 64), (2, 6, 64)]
    assert sum(adapter.parameter_count() for adapter in of_reductions) == 258_048
    assert "merging reductions" not in parameter_terms(plus)


def test_no_gradient_reaches_what_is_counted_dead_and_one_reaches_all_the_rest() -> None:
    model = micro("mtlora", **{"backbone.drop_path": 0.0}).train()  # a dropped image has no gradient
    torch.stack([y.square().mean() for y in model(image()).values()]).sum().backward()
    without = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert without == set(unused_parameters(model))
    assert without == {f"backbone.layers.3.blocks.1.block.unused_fc2.{name}" for name in ("A_RI", "B_RO")}
    assert all(p.grad.any() for p in model.parameters() if p.grad is not None)


def test_on_tasks_own_path_all_task_layers_of_the_last_block_are_dead_and_merging_drops_them() -> None:
    dotted = {"placement.task_path": "own", "placement.dead_parameters": True}
    model = micro("lora", **dotted)
    dead = {name.split(".")[-2] for name in unused_parameters(model)}
    assert dead == {"unused_proj", "unused_fc1", "unused_fc2"}
    merged = merge(model)
    assert unused_parameters(merged) == []
    with torch.no_grad():
        torch.testing.assert_close(merged(image()), model(image()))


@torch.no_grad()
def test_the_adapter_file_gives_the_model_back_at_its_ranks(tmp_path: Path) -> None:
    raw = {"method": "mtlora_plus", "backbone": {"pretrained": False}, "data": {"tasks": TASKS}}
    config = TrialConfig.resolve(raw, **{"ranks.init_rank": 6})
    model = build_model(config).eval()
    for i, adapter in enumerate(adapter_list(model)):
        torch.nn.init.normal_(adapter.B_RO, std=0.1)
        adapter.keep(torch.tensor([2, 0, 1][: 1 + i % 3]))
    write_adapter(tmp_path / "a.safetensors", model, config)
    again = load_model(read_adapter_file(tmp_path / "a.safetensors"), tmp_path)
    torch.testing.assert_close(again(image().float()), model(image().float()))
