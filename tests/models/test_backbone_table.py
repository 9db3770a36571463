"""The table of backbones in the documents says what timm says, and what it calls tried is tried here."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from faar_ray.models import adapter_list
from faar_ray.models.backbone import BACKBONES

from .networks import model

DOCS = Path(__file__).parents[2] / "docs"


def table_maker() -> Any:
    spec = importlib.util.spec_from_file_location("backbone_table", DOCS / "backbone_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGE = (DOCS / "backbones.md").read_text(encoding="utf-8")
BUILT = re.findall(r"^\| `(\S+)` .* \| a training step", PAGE, re.MULTILINE)


def test_the_table_of_the_page_is_current_and_has_every_family() -> None:
    maker = table_maker()
    assert maker.table() in PAGE, "make it again: python docs/backbone_table.py"
    assert maker.packages() in PAGE
    assert maker.with_tables(PAGE) == PAGE
    assert all(f" | {family} | " in maker.table() for family in BACKBONES)
    assert len(BUILT) > 20


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT)
def test_every_backbone_that_is_called_tried_takes_a_training_step(name: str) -> None:
    side = 56 if "patch14" in name else 64
    of = model(name, size=(side, side), **{"backbone.pyramid": "stages", "decoder.width": 2}).train()
    before = [[factor.detach().clone() for factor in adapter.factors] for adapter in adapter_list(of)]
    optimizer = torch.optim.AdamW([p for p in of.parameters() if p.requires_grad], lr=1e-2)
    image = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    predicted = of(image)
    assert {output.shape[-2:] for output in predicted.values()} == {(side, side)}

    torch.stack([output.square().mean() for output in predicted.values()]).sum().backward()
    optimizer.step()
    assert len(before) > 10
    for adapter, factors in zip(adapter_list(of), before, strict=True):
        assert any(not torch.equal(now, then) for now, then in zip(adapter.factors, factors, strict=True)), adapter.site
