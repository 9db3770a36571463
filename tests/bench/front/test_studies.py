"""The studies' search spaces, and one study end to end in small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from faar_ray.bench.__main__ import main
from faar_ray.bench.front import stages
from faar_ray.bench.front.rates import LR
from faar_ray.bench.front.searches import seeded
from faar_ray.bench.front.stages import (
    Space,
    StageFailed,
    miniature,
    read_stage,
    run_stage,
    with_learning_rates,
    with_seeds,
    write_stage,
)
from faar_ray.bench.front.studies import SPACES, STUDIES
from faar_ray.config.trial import TrialConfig
from faar_ray.models import build_model, parameters_by_part
from faar_ray.tune.space.space import SearchSpace

FILES = sorted(path.stem for path in SPACES.glob("*.yaml"))
LISTED = [name for name in FILES if name != "front_searches"]


def test_every_space_belongs_to_a_study_and_every_study_has_its_spaces() -> None:
    assert {space for study in STUDIES.values() for space in study.spaces} == set(FILES)


@pytest.mark.parametrize("name", LISTED)
def test_a_list_is_a_space_of_tune_as_it_is_in_small_and_on_other_seeds(name: str) -> None:
    raw = read_stage(name)
    for space in (raw, miniature(raw), with_seeds(raw, 7), with_learning_rates(raw, {("fixed", 16): 0.004})):
        valid = SearchSpace.model_validate(space)
        assert valid.name == name
        assert len(valid.planned()) == valid.budget.trials == len(valid.warm_start.points) * valid.search.seeds


@pytest.mark.parametrize("quick", [False, True])
def test_the_front_that_is_searched_has_its_own_seed_in_proposals_and_trainings(quick: bool) -> None:
    space = SearchSpace.model_validate(seeded(STUDIES["searches"], 3, quick=quick))
    assert (space.name, space.search.seed, space.base["seed"]) == ("front_searches_s3", 3, 3)


@pytest.mark.parametrize("name", [name for name in LISTED if name.endswith("_spectral")])
def test_the_budgets_of_spectral_rows_are_the_sizes_of_fixed_ranks(name: str) -> None:
    raw = read_stage(name)
    ranks = {1, 2, 4, 8, 12} if "embedded" in name else {2, 4, 8} if "photographs" in name else {2, 4}

    assert {adapter_parameters(raw, rank) for rank in ranks} == set(raw["parameters"]["ranks.budget"]["values"])


def adapter_parameters(raw: Space, rank: int) -> int:
    """Of a built model."""
    config = TrialConfig.resolve(raw["base"], **{"ranks.kind": "fixed", "ranks.init_rank": rank}).without_weights()
    parts = parameters_by_part(build_model(config))
    return parts["adapters"] + parts["magnitudes"]


@pytest.mark.parametrize("name", [name for name in LISTED if name.endswith("_spectral")])
def test_spectral_rows_fork_at_four_and_five_sixths(name: str) -> None:
    raw = read_stage(name)
    epochs = raw["base"]["optim"]["epochs"]
    assert [cut + 1 for cut in raw["parameters"]["spectral.cut_epoch"]["values"]] == [epochs * 4 / 6, epochs * 5 / 6]


def test_all_rows_of_a_seed_come_before_the_next_seed() -> None:
    space = SearchSpace.model_validate(read_stage("front_embedded_baselines"))
    rows = len(space.warm_start.points)
    assert space.planned()[:rows] == space.planned()[rows : 2 * rows] == [*space.warm_start.points]


def test_the_learning_rates_of_a_study_are_found_on_a_seed_that_no_row_uses() -> None:
    for study in STUDIES.values():
        for stage in study.stages if study.rates else ():
            space, rates = read_stage(stage), read_stage(study.rates)
            assert rates["base"]["seed"] not in range(space["search"]["seeds"])
            assert set(rates["parameters"][LR]["values"]) == set(space["parameters"][LR]["values"])


def test_schedules_of_long_trainings_are_those_of_the_short_ones_in_proportion() -> None:
    short, long = (read_stage(f"front_{name}_baselines")["base"] for name in ("embedded", "long"))

    def numbers(base: dict[str, Any]) -> list[float]:
        optim, pdrs = base["optim"], base["pdrs"]
        return [optim["epochs"], optim["warmup_steps"], pdrs["start_epoch"], pdrs["free_epochs"]]

    assert numbers(long) == [4 * number for number in numbers(short)]


def test_tables_of_nothing_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["front", "embedded", "--tables", "--out", str(tmp_path)]) == 2
    assert "no finished trial" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_a_study_trains_compares_and_keeps_what_is_finished(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["front", "embedded", "--quick", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert {row["params"]["ranks.kind"] for row in found["rows"]} >= {"fixed", "pdrs", "spectral"}
    assert all(len(row["delta_m"]) == 2 for row in found["rows"])
    assert (tmp_path / "runs/front_embedded/front.png").stat().st_size > 10_000

    journal = tmp_path / "runs/front_embedded_baselines/study.log"
    before = journal.read_bytes()
    assert main(["front", "embedded", "--quick", "--resume", "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == found
    assert journal.read_bytes() == before  # nothing was trained again


def test_an_interrupted_study_says_how_it_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "run_stage", interrupted)

    assert main(["front", "embedded", "--seeds", "3", "--out", str(tmp_path)]) == 130
    assert f"faar_ray.bench front embedded --seeds 3 --out {tmp_path} --resume" in capsys.readouterr().err


def test_a_search_that_is_refused_ends_the_study_with_its_exit_code(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = write_stage(read_stage("front_embedded_baselines"), tmp_path)

    with pytest.raises(StageFailed, match="ended with exit code 2; --resume goes on") as fault:
        run_stage(file, tmp_path / "runs", ["pdrs.no_such_key=1"], resume=False)

    assert fault.value.exit_code == 2
    out, err = capfd.readouterr()
    assert not out  # what is printed there is the study's result alone
    assert "no_such_key" in err
