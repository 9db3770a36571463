"""The section `front`: which points a trunk has, and when they fork."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from faar_ray.config.trial import TrialConfig, merge_sections
from faar_ray.errors import ConfigError
from faar_ray.tune.space.front import FrontConfig, Point, epochs_before, fork_epochs, own_epochs, points_of
from faar_ray.tune.space.space import SearchSpace, read_space
from tests.tune.conftest import TINY

FIXED = {"ranks": {"kind": "fixed", "init_rank": 16}}
LR = {"optim.lr": {"min": 1e-4, "max": 1e-2, "log": True}}


def trunk(epochs: int = 6, **ranks: Any) -> TrialConfig:
    return TrialConfig.resolve({"ranks": {"kind": "fixed", "init_rank": 16, **ranks}, "optim": {"epochs": epochs}})


def front_space(front: dict[str, Any] | None = None, **over: Any) -> SearchSpace:
    raw = merge_sections(TINY, {"base": FIXED})
    return SearchSpace.model_validate({**raw, "parameters": LR, "front": front or {}, **over})


def faults(tmp_path: Path, **over: Any) -> list[str]:
    """What reading a file with these sections says, without the file's name."""
    given = {"parameters": LR, **over}
    path = tmp_path / "space.yaml"
    raw = {**merge_sections(TINY, {"base": given.pop("base", FIXED)}), **given}
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    with pytest.raises(ConfigError) as error:
        read_space(path)
    return [text.removeprefix(f"{path}:") for text in error.value.faults]


def test_auto_sizes_fork_as_the_study_found_best() -> None:
    points = points_of(FrontConfig(), 367_000, trunk())
    assert points == [Point(0.15, 4), Point(0.27, 5), Point(0.52, 6)]
    assert own_epochs(points, 6) == 2 + 1 + 0


def test_a_number_of_parameters_forks_as_its_share_of_the_full_size_does() -> None:
    points = points_of(FrontConfig(sizes=(189_000, 56_000, 100_000)), 367_000, trunk())
    assert points == [Point(56_000, 4), Point(100_000, 5), Point(189_000, 6)]


def test_a_share_on_the_border_still_forks_early() -> None:
    points = points_of(FrontConfig(sizes=(0.2, 0.201, 0.35, 0.351)), 1000, trunk())
    assert [(point.size, point.inherited) for point in points] == [(0.2, 4), (0.201, 5), (0.35, 5), (0.351, 6)]


def test_without_forks_every_size_is_cut_after_the_last_epoch() -> None:
    points = points_of(FrontConfig(forks="none"), 367_000, trunk())
    assert {point.inherited for point in points} == {6}
    assert fork_epochs(FrontConfig(forks="none"), 6) == []


def test_a_mapping_sets_the_fork_of_a_size_and_leaves_the_others_to_auto() -> None:
    front = FrontConfig.model_validate({"sizes": [0.15, 90_000], "forks": {0.15: 0.5}})
    assert points_of(front, 367_000, trunk()) == [Point(0.15, 3), Point(90_000, 5)]


def test_a_mapping_that_went_through_json_has_sizes_again() -> None:
    front = FrontConfig.model_validate({"sizes": [0.15, 90_000], "forks": {0.15: 0.5, 90_000: 1.0}})
    assert FrontConfig.model_validate_json(front.model_dump_json()) == front


@pytest.mark.parametrize(
    ("share", "epochs", "whole"),
    [(4 / 6, 6, 4), (5 / 6, 6, 5), (0.5, 5, 3), (4 / 6, 2, 1), (5 / 6, 2, 2), (0.01, 6, 1), (4 / 6, 1, 1)],
)
def test_a_share_of_the_epochs_is_rounded_to_the_nearest_number_and_is_at_least_one(
    share: float, epochs: int, whole: int
) -> None:
    assert epochs_before(share, epochs) == whole


def test_with_few_epochs_forks_coincide() -> None:
    assert {point.inherited for point in points_of(FrontConfig(), 367_000, trunk(1))} == {1}


def test_checkpoints_are_kept_for_every_fork_that_may_come() -> None:
    assert fork_epochs(FrontConfig(sizes=(56_000,)), 6) == [4, 5]  # the full size is not known yet
    assert fork_epochs(FrontConfig.model_validate({"sizes": [0.15], "forks": {0.15: 0.5}}), 6) == [3, 4, 5]


def test_a_size_that_a_small_trunk_does_not_exceed_is_no_point_of_it() -> None:
    assert points_of(FrontConfig(sizes=(56_000, 100_000)), 100_000, trunk()) == [Point(56_000, 6)]


def test_auto_leaves_out_what_leaves_an_adapter_without_a_component() -> None:
    assert [point.size for point in points_of(FrontConfig(), 100_000, trunk(init_rank=4))] == [0.52]
    assert [point.size for point in points_of(FrontConfig(), 100_000, trunk(init_rank={0: 4, 1: 8, 2: 8, 3: 8}))] == [
        0.52
    ]


def test_names_of_points_are_those_of_folders() -> None:
    assert [Point(size, 4).name for size in (100_000, 100_400, 0.27, 0.125)] == ["100k", "100400", "27pct", "12_5pct"]


def test_the_sampler_sees_one_value() -> None:
    space = front_space()
    assert [(goal.name, goal.goal) for goal in space.study_objectives] == [("front/hypervolume", "maximize")]
    one = front_space(objectives=[{"name": "delta_m", "goal": "maximize"}])
    assert [(goal.name, goal.goal) for goal in one.study_objectives] == [("front/delta_m", "maximize")]


def test_samplers_of_one_objective_take_a_front_of_several() -> None:
    assert front_space(search={"sampler": "cmaes"}, constraints=["trainable_params <= 1e6"]).front is not None


@pytest.mark.parametrize(
    ("front", "text"),
    [
        ({"sizes": [0.5, 0.5]}, "front.sizes.1: must not repeat, got 0.5"),
        ({"sizes": [1.0]}, "front.sizes.0: must be below the full size: the trial itself is the point of full size"),
        ({"sizes": [1.5]}, "front.sizes.0: must be a share of the full size (0 < share < 1) or a whole number"),
        ({"sizes": [-3]}, "front.sizes.0: must be a share of the full size"),
        ({"sizes": [0.2], "forks": {0.3: 0.5}}, "front.forks.0.3: is none of front.sizes (0.2)"),
        ({"sizes": [0.2], "forks": {0.2: 1.5}}, "front.forks.0.2: must satisfy 0 < share of the epochs <= 1, got 1.5"),
        ({"reference": {"delta_m": -15.0}}, "front.reference: must have a value per objective, missing trainable"),
        (
            {"reference": {"delta_m": -15.0, "trainable_params": 1e6, "delta": 1.0}},
            "front.reference.delta: unknown key",
        ),
    ],
)
def test_a_fault_of_the_section_is_named_at_its_place(tmp_path: Path, front: dict[str, Any], text: str) -> None:
    found = faults(tmp_path, front=front)
    assert len(found) == 1 and text in found[0], found
    assert found[0].split(":")[0].isdecimal()


@pytest.mark.parametrize(
    ("over", "text"),
    [
        ({"base": {}}, "base.ranks.kind: must be fixed with front, got 'pdrs' of method faar"),
        ({"base": {"ranks": {"kind": "spectral"}}}, "base.ranks.kind: must be fixed with front, got 'spectral':"),
        ({"parameters": {"pdrs.rho_shared": {"min": 0.5, "max": 0.9}}}, "means nothing with front"),
        ({"parameters": {"ranks.budget": {"values": [0.2, 0.4]}}}, "cannot be searched with front"),
        ({"parameters": {"ranks.kind": {"values": ["fixed", "pdrs"]}}}, "'pdrs' makes no trunk for front"),
        ({"scheduler": {"type": "pbt"}, "search": {"sampler": "random"}}, "scheduler.type: cannot be pbt with front"),
        ({"warm_start": {"from": "older"}}, "warm_start.from: must be null with front"),
        ({"base": {"method": "decoder_only"}}, "front: no trial can be cut"),
        ({"base": {"method": "sinewich_1x1", "sinewich": {"conv_size": 3}}}, "sinewich.conv_size"),
        (
            {"objectives": [{"name": "delta_m", "goal": "maximize"}], "front": {"reference": {"delta_m": -9.0}}},
            "front.reference: must be null with one objective",
        ),
    ],
)
def test_a_search_whose_trials_are_no_trunks_is_refused(tmp_path: Path, over: dict[str, Any], text: str) -> None:
    found = faults(tmp_path, **{"front": {}, "budget": {"trials": 20}, **over})
    assert any(text in fault for fault in found), found
