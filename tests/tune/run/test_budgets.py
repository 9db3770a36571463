"""Searched budgets of spectral ranks: one that the floors exceed is told before anything starts."""

from __future__ import annotations

from typing import Any

import pytest

from faar_ray.config.trial import merge_sections
from faar_ray.errors import ConfigError
from faar_ray.tune.run.front_sizes import check_budgets
from faar_ray.tune.space.space import SearchSpace
from tests.tune.conftest import TINY

SPECTRAL: dict[str, Any] = {"method": "dora", "ranks": {"kind": "spectral", "init_rank": 16}}


def space(budget: dict[str, Any], base: dict[str, Any] = SPECTRAL, **parameters: Any) -> SearchSpace:
    raw = merge_sections(TINY, {"base": base})
    return SearchSpace.model_validate({**raw, "parameters": {"ranks.budget": budget, **parameters}})


@pytest.mark.parametrize(
    ("budget", "parameters", "fault"),
    [
        ({"min": 0.01, "max": 0.5}, {}, r"parameters\.ranks\.budget\.min: must be at least [\d,]+ of .*got 0\.01 = "),
        ({"values": [0.5, 1000]}, {}, r"parameters\.ranks\.budget\.values\.1: .*got 1,000"),
        ({"min": 0.2, "max": 0.5}, {"ranks.init_rank": {"values": [2, 16]}}, r"budget\.min: must be at least"),
    ],
)
def test_a_bound_or_value_below_the_floors_is_named(
    budget: dict[str, Any], parameters: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ConfigError, match=fault):
        check_budgets(space(budget, **parameters))


def test_budgets_that_fit_and_those_that_no_trial_reads_pass() -> None:
    check_budgets(space({"min": 0.2, "max": 0.5}))
    check_budgets(space({"values": [None, 0.5]}))
    check_budgets(space({"min": 0.01, "max": 0.5}, {"method": "dora", "ranks": {"init_rank": 16}}))
