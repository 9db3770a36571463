"""Null is a value like others: it is searched, journalled, resumed and shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faar_ray.config.null_values import AS_OTHER, effective
from faar_ray.config.trial import TrialConfig
from faar_ray.errors import ConfigError
from faar_ray.report.results import read_results, write_results
from faar_ray.report.statistics.groups import complete_configs, with_names
from faar_ray.report.statistics.importance import importances
from faar_ray.report.statistics.noise import Noise
from faar_ray.tune.propose.samplers import SAMPLERS
from faar_ray.tune.run.jobs import Job
from faar_ray.tune.show.dry_run import samples
from faar_ray.tune.space.space import SearchSpace, read_space

Space = Callable[..., SearchSpace]
Drive = Callable[..., Any]
NULLS: dict[str, Any] = {
    "pdrs.rho_task": {"values": [None, 0.5, 0.7, 0.8, 0.9]},
    "optim.decoder_lr": {"values": [1e-3, None]},
    "optim.lr": {"min": 1e-4, "max": 1e-2, "log": True},
}
ONE = [{"name": "delta_m", "goal": "maximize"}]


def rated(job: Job, epoch: int) -> dict[str, float]:
    tasks, lr = job.config.pdrs.rho_task or 0.6, job.config.optim.decoder_lr or 5e-3
    return {"delta_m": 10 * tasks + 100 * lr + 50 * job.config.optim.lr}


def with_nulls(space: Space, sampler: str = "random", **over: Any) -> SearchSpace:
    parameters = {key: value for key, value in NULLS.items() if sampler != "grid" or "values" in value}
    raw = space().model_dump(mode="json", exclude_unset=True)
    parts = {
        "parameters": parameters,
        "objectives": ONE,
        "search": {"sampler": sampler, "startup_trials": 4},
        "scheduler": {"type": "none"},
        "budget": {"trials": 12},
        "warm_start": {"points": [{"pdrs.rho_task": None, "optim.decoder_lr": None}, {"pdrs.rho_task": 0.5}]},
    }
    return SearchSpace.model_validate({**raw, **parts, **over})


@pytest.mark.parametrize("sampler", [name for name, entry in SAMPLERS.items() if entry.lists])
def test_every_sampler_that_takes_lists_proposes_null_and_resumes_with_it(
    space: Space, driver: Drive, tmp_path: Path, sampler: str
) -> None:
    searched = with_nulls(space, sampler)

    whole = driver(searched, tmp_path / "whole.log").run()
    parts = driver(searched, tmp_path / "parts.log")
    while not parts.search_state.finished():
        parts.take()
        for name in list(parts.open):
            parts.step(name)
        if not parts.open:
            parts = driver(searched, tmp_path / "parts.log")

    found = whole.proposer.results()
    assert {None, 0.5, 0.7, 0.8, 0.9} >= {result.params["pdrs.rho_task"] for result in found} > {None}
    assert [result.params for result in parts.proposer.results()] == [result.params for result in found]


def test_null_and_the_value_that_it_stands_for_are_two_configurations(space: Space) -> None:
    searched = with_nulls(space)
    null = searched.trial_config({"pdrs.rho_task": None})
    assert null.pdrs.rho_task is None
    assert effective(null.dotted(), "pdrs.rho_task") == null.pdrs.rho_shared
    assert effective(searched.trial_config({"pdrs.rho_task": 0.5}).dotted(), "pdrs.rho_task") == 0.5


@pytest.mark.parametrize(("key", "other"), AS_OTHER.items())
def test_the_meaning_of_null_is_the_one_that_the_schema_states(key: str, other: str) -> None:
    section, name = key.split(".")
    description = type(getattr(TrialConfig(), section)).model_fields[name].description or ""
    assert f"null: as {other}." in description or f"null: as {other.split('.')[1]}." in description


def test_replicates_and_conditions_take_null(space: Space, driver: Drive) -> None:
    parameters = {**NULLS, "pdrs.beta": {"min": 0.9, "max": 0.99, "when": {"pdrs.rho_task": None}}}
    replicates = {"sampler": "random", "replicates": {"top": 2, "seeds": 2}}
    searched = with_nulls(space, parameters=parameters, search=replicates)

    results = driver(searched).run().proposer.results()

    assert {result.seed for result in results} == {0, 1}
    for result in results:
        assert ("pdrs.beta" in result.params) is (result.params["pdrs.rho_task"] is None)
        same = [other for other in results if other.config_id == result.config_id]
        assert all(other.params == result.params for other in same)


def test_results_names_and_importances_tell_null_from_other_values_and_from_no_value(
    space: Space, driver: Drive, tmp_path: Path
) -> None:
    drive = driver(with_nulls(space), train=rated).run()
    results = drive.proposer.results()

    write_results(tmp_path / "results.parquet", results)
    assert [r.params for r in read_results(tmp_path / "results.parquet")] == [r.params for r in results]

    names = [config.name for config in with_names(complete_configs(results))]
    assert any("rho_task null (as rho_shared)" in name for name in names)
    assert any("decoder_lr null (as lr)" in name for name in names)
    assert not any("None" in name for name in names)

    objectives = drive.search_state.space.objectives
    noise = {o.name: Noise(o.name, 0.3, 6, True, 0.3, 6) for o in objectives}
    rows = importances(drive.study, objectives, noise)[0].rows
    assert {row.parameter for row in rows} == set(NULLS)


def test_a_command_line_searches_null(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(
        "version: 1\nname: x\nparameters: {optim.lr: {min: 0.1, max: 1.0}}\n"
        "objectives: [{name: delta_m, goal: maximize}]\n"
    )

    space = read_space(file, ["parameters={pdrs.rho_task: {values: [null, 0.5]}}"])

    assert {point["pdrs.rho_task"] for point in samples(space, 8)} == {None, 0.5}
    with pytest.raises(ConfigError, match=r"must be an integer, got null"):
        read_space(file, ["parameters={optim.epochs: {values: [null, 5]}}"])


def test_the_resolved_space_keeps_null(space: Space) -> None:
    searched = with_nulls(space)
    again = SearchSpace.model_validate(json.loads(searched.model_dump_json(by_alias=True)))
    assert again == searched
