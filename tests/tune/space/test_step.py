"""Ranges with a step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from faar_ray.tune.propose.samplers import SAMPLERS
from faar_ray.tune.space.space import SearchSpace

Space = Callable[..., SearchSpace]
Drive = Callable[..., Any]
STEPS: dict[str, Any] = {
    "ranks.init_rank": {"min": 4, "max": 64, "step": 4},
    "pdrs.rho_shared": {"min": 0.1, "max": 0.9, "step": 0.1, "prior": 0.3},
}
GRIDS = {"ranks.init_rank": range(4, 65, 4), "pdrs.rho_shared": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]}


def stepped(space: Space, sampler: str, parameters: dict[str, Any] = STEPS, **over: Any) -> SearchSpace:
    raw = space().model_dump(mode="json", exclude_unset=True)
    parts = {
        "parameters": parameters,
        "objectives": [{"name": "delta_m", "goal": "maximize"}],
        "search": {"sampler": sampler, "startup_trials": 4},
        "scheduler": {"type": "none"},
        "budget": {"trials": 12},
    }
    return SearchSpace.model_validate({**raw, **parts, **over})


@pytest.mark.parametrize("sampler", [name for name, entry in SAMPLERS.items() if not entry.listed])
def test_every_value_lies_on_the_grid_exactly(space: Space, driver: Drive, tmp_path: Path, sampler: str) -> None:
    results = driver(stepped(space, sampler), tmp_path / "study.log").run().proposer.results()

    assert results[0].params["pdrs.rho_shared"] == 0.3
    assert len({str(result.params) for result in results}) > 6
    for result in results:
        assert all(value in GRIDS[key] for key, value in result.params.items()), result.params


def test_copies_of_a_population_stay_on_the_grid(space: Space, driver: Drive) -> None:
    pbt = {"type": "pbt", "metric": "delta_m", "population": 4, "min_epochs": 1, "interval": 1}
    rho = {"pdrs.rho_shared": STEPS["pdrs.rho_shared"]}
    results = driver(stepped(space, "random", rho, scheduler=pbt)).run().proposer.results()

    assert len(results) > 4
    assert {result.params["pdrs.rho_shared"] for result in results} <= set(GRIDS["pdrs.rho_shared"])


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ({"min": 4, "max": 63, "step": 4}, "a multiple of step = 4, got 63 (did you mean 60 or 64?)"),
        ({"min": 4, "max": 64, "step": 0}, "must satisfy step > 0, got 0"),
        ({"min": 4, "max": 64, "step": 100}, "must satisfy step <= max - min = 60, got 100"),
        ({"min": 4, "max": 64, "step": 7.5}, "step: must be an integer, got 7.5"),
        ({"min": 4, "max": 64, "step": 4, "prior": 9}, "must lie within 4 .. 64 in steps of 4, got 9"),
        ({"min": 4, "max": 64, "step": 4, "log": True}, "step: must be null where log is true, got 4: equal steps"),
        ({"values": [4, 8], "step": 4}, "step: must be null for a list of values, got 4"),
    ],
)
def test_a_step_that_cannot_be_is_refused_with_the_reason(space: Space, parameter: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        stepped(space, "tpe", {"ranks.init_rank": parameter})
    assert words in str(caught.value)


def test_a_step_on_the_scale_log1m_is_refused(space: Space) -> None:
    rho = {"min": 0.5, "max": 0.9, "step": 0.1, "scale": "log1m"}
    with pytest.raises(ValidationError, match="must be null where scale is log1m"):
        stepped(space, "tpe", {"pdrs.rho_shared": rho})


def test_a_point_beside_the_grid_is_refused(space: Space) -> None:
    with pytest.raises(ValidationError, match=r"must lie within 4 \.\. 64 in steps of 4, got 6"):
        stepped(space, "tpe", warm_start={"points": [{"ranks.init_rank": 6}]})
