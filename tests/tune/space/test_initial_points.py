"""Lists of configurations that are run as they are, on several seeds."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from rich.console import Console

from faar_ray.report.statistics.groups import complete_configs
from faar_ray.report.words.answer import build_answer
from faar_ray.tracking.files.rank_trace import SCHEMA
from faar_ray.tune.show.dry_run import samples
from faar_ray.tune.show.outcome import show_list
from faar_ray.tune.space.initial_points import grid
from faar_ray.tune.space.space import SearchSpace, read_space

Space = Callable[..., SearchSpace]
Drive = Callable[..., Any]
SPACES = sorted((Path(__file__).parents[3] / "search_spaces").glob("*.yaml"))
METHODS = {"method": {"values": ["lora", "faar"]}, "pdrs.rho_shared": {"values": [0.5, 0.9, 1.0]}}
GRID = {"search": {"sampler": "grid", "seeds": 2}, "scheduler": {"type": "none"}, "budget": {"trials": 12}}


def of_grid(space: Space, **over: Any) -> SearchSpace:
    return SearchSpace.model_validate({**raw(space), **GRID, "parameters": METHODS, **over})


def raw(space: Space) -> dict[str, Any]:
    return space().model_dump(mode="json", exclude_unset=True)


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_every_search_space_in_the_tree_is_valid(path: Path) -> None:
    space = read_space(path)
    assert space.name == path.stem


def test_a_grid_is_every_combination_once_per_seed_seeds_outermost(space: Space, driver: Drive) -> None:
    searched = of_grid(space)
    results = driver(searched).run().proposer.results()
    assert [r.seed for r in results] == [0] * 6 + [1] * 6
    assert [r.params for r in results[:6]] == grid(searched.parameters, searched.base)
    assert [r.params for r in results[6:]] == grid(searched.parameters, searched.base)
    assert [config.seeds for config in complete_configs(results)] == [(0, 1)] * 6


def test_a_list_ends_with_an_interval_for_every_row(space: Space, driver: Drive) -> None:
    searched = of_grid(space)
    results = driver(searched).run().proposer.results()
    console = Console(file=io.StringIO(), width=120)
    show_list(console, build_answer(results, searched.objectives), results, SCHEMA.empty_table(), "val: 64x64")
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "mean and 95% interval" in text
    assert "lora, rho_shared 0.5" in text
    table = text.split(build_answer(results, searched.objectives).sentences[0][:20])[0]
    assert table.count("±") == 6


def test_listed_points_run_as_they_are(space: Space, driver: Drive) -> None:
    points = [{"pdrs.rho_shared": 0.7}, {"pdrs.rho_shared": 0.6}]
    listed = space(search={"sampler": "points", "seeds": 3}, scheduler={"type": "none"}, warm_start={"points": points})
    results = driver(listed).run().proposer.results()
    assert [(r.params["pdrs.rho_shared"], r.seed) for r in results] == [
        (0.7, 0), (0.6, 0), (0.7, 1), (0.6, 1), (0.7, 2), (0.6, 2),
    ]  # fmt: skip


def test_a_listed_point_leaves_what_it_does_not_set_to_its_preset(space: Space, driver: Drive) -> None:
    points = [{"method": "faar_release"}, {"method": "pdrs_dora", "pdrs.rho_shared": 0.7}]
    parameters = {"method": {"values": ["faar_release", "pdrs_dora"]}, "pdrs.rho_shared": {"values": [0.7]}}
    listed = of_grid(space, search={"sampler": "points"}, parameters=parameters, warm_start={"points": points})
    assert samples(listed, 2) == points
    driven = driver(listed).run()
    assert [dict(r.params) for r in driven.proposer.results()] == points


def test_a_killed_list_goes_on_where_it_was(space: Space, driver: Drive, tmp_path: Path) -> None:
    searched = of_grid(space)
    first = driver(searched)
    job = first.search_state.next_job()
    assert job is not None
    again = driver(searched).run().proposer.results()
    assert [r.seed for r in again] == [0] * 6 + [1] * 6
    assert len({r.trial_id for r in again}) == 12


def test_a_dry_run_shows_what_the_list_begins_with(space: Space) -> None:
    assert samples(of_grid(space), 3) == grid(of_grid(space).parameters, of_grid(space).base)[:3]


@pytest.mark.parametrize(
    ("over", "why"),
    [
        ({"budget": {"trials": 11}}, r"budget\.trials: must be >= configurations x seeds = 12, got 11"),
        ({"scheduler": {"type": "asha"}}, r"scheduler\.type: must be none for sampler grid"),
        ({"search": {"sampler": "grid", "replicates": {}}}, r"search\.replicates: must be null"),
        ({"search": {"sampler": "points"}}, r"warm_start\.points: must have at least one point"),
        (
            {"search": {"sampler": "points"}, "warm_start": {"points": [{"method": "lora"}, {}]}},
            r"warm_start\.points\.1: must set at least one parameter",
        ),
    ],
)
def test_a_list_that_cannot_run_as_it_is_is_refused(space: Space, over: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        of_grid(space, **over)


def test_a_grid_of_a_range_is_refused(space: Space) -> None:
    with pytest.raises(ValidationError, match=r"must be a list of values for sampler grid"):
        space(**GRID)
