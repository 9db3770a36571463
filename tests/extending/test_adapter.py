"""The adapter of docs/extending.md, added from outside the package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faar_ray.config.trial import TrialConfig
from faar_ray.config.trial_file import read_trial
from faar_ray.errors import ConfigError
from faar_ray.export.rank_pattern import rank_pattern
from faar_ray.models import adapter_list, build_model

Guide = Callable[[str], dict[str, Any]]


def test_a_trial_trains_and_shrinks_with_the_adapter_of_the_guide(guide: Guide, train: Callable[..., Any]) -> None:
    kind = guide("An adapter")["RankStabilisedLoRA"]
    records = train(**{"adapter.kind": "rslora", "pdrs.rho_shared": 0.5})
    assert records[-1].metrics["rank/mean"] < 4
    adapters = adapter_list(
        build_model(TrialConfig.resolve({"adapter": {"kind": "rslora"}, "ranks": {"init_rank": 4}}))
    )
    assert {type(adapter) for adapter in adapters} == {kind}
    assert {getattr(adapter, "scale", 0.0) for adapter in adapters} == {2.0}


def test_its_ranks_cannot_be_exported_for_peft_which_lacks_it(guide: Guide) -> None:
    guide("An adapter")
    with pytest.raises(ConfigError, match="HF PEFT has no adapter like rslora"):
        rank_pattern({"0/0/qkv/shared": 4}, TrialConfig.resolve({"adapter": {"kind": "rslora"}}))


def test_without_it_the_name_is_a_fault_at_its_place_in_the_file(guide: Guide, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("seed: 1\nadapter: {kind: rslor}\n")
    with pytest.raises(
        ConfigError, match=r"a\.yaml:2:11: adapter\.kind: must be one of none, lora, dora, sine_awb, spectrum, got"
    ):
        read_trial(path)
    guide("An adapter")
    with pytest.raises(ConfigError, match=r"got 'rslor' \(did you mean 'rslora'\?\)"):
        read_trial(path)
