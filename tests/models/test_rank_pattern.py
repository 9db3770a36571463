"""`ranks.pattern`: a rank for each adapter, as another trial found them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from faar_ray.config.ranks.pattern import pattern_yaml
from faar_ray.config.trial import TrialConfig, config_id
from faar_ray.errors import ConfigError
from faar_ray.models import adapter_list, build_model

SMALL: dict[str, Any] = {"data": {"tasks": ["semseg", "normals"], "image_size": 32}, "backbone": {"pretrained": False}}


def ranks_of(method: str, ranks: dict[str, Any]) -> dict[str, int]:
    config = TrialConfig.resolve({**SMALL, "method": method, "ranks": ranks})
    return {adapter.site.place: adapter.rank for adapter in adapter_list(build_model(config))}


@pytest.mark.parametrize("method", ["dora", "lora_per_task", "free_sinewich", "tadformer"])
def test_a_model_begins_with_the_ranks_that_another_one_ended_with(method: str) -> None:
    usual = ranks_of(method, {"init_rank": 3})
    assert set(usual.values()) == {3}
    found = {place: 1 + index % 5 for index, place in enumerate(usual)}

    text = pattern_yaml(found, "a trial")
    again = yaml.safe_load(text)["ranks"] | {"init_rank": 3}
    assert ranks_of(method, again) == found
    some = dict(list(found.items())[:4])
    assert ranks_of(method, {"init_rank": 3, "pattern": some}) == usual | some


def test_a_place_without_an_adapter_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"none at 0/0/qkv/shard \(did you mean 0/0/qkv/shared\?\)"):
        ranks_of("dora", {"pattern": {"0/0/qkv/shard": 2}})


def test_without_a_pattern_a_config_has_the_id_that_it_had_before_there_was_one() -> None:
    plain = TrialConfig.resolve(SMALL)
    assert config_id(TrialConfig.resolve(SMALL, **{"ranks.pattern": None})) == config_id(plain)
    assert config_id(TrialConfig.resolve(SMALL, **{"ranks.pattern": {"0/0/qkv/shared": 4}})) != config_id(plain)
