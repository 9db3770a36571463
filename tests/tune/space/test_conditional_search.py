"""Searches over conditional parameters: samples, kills, dry runs."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.samplers import TPESampler
from pydantic import ValidationError
from rich.console import Console

from faar_ray.records import TrialResult
from faar_ray.tune.propose.ask import sampler_of
from faar_ray.tune.propose.journal import open_journal
from faar_ray.tune.propose.proposer import Proposer
from faar_ray.tune.run.jobs import Job
from faar_ray.tune.show.dry_run import bound, show_plan
from faar_ray.tune.space.space import SearchSpace

Space = Callable[..., SearchSpace]
Drive = Callable[..., Any]


def consistent(space: SearchSpace, sample: dict[str, Any]) -> bool:
    """Whether a sample has exactly the parameters whose conditions its own config meets."""
    config = space.trial_config(sample).dotted()
    wanted = [
        key
        for key, parameter in space.parameters.items()
        if all(config[name] in values for name, values in parameter.conditions.items())
    ]
    return list(sample) == wanted


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_long_search_draws_what_is_active_and_goes_on_as_an_undisturbed_one(
    conditional: Space, tmp_path: Path, sampler: str
) -> None:
    """One driver, against one whose journal is opened anew before every ask, with two trials open at any time."""
    searched = conditional(search={"sampler": sampler, "startup_trials": 5}, budget={"trials": 30})
    paths = [tmp_path / "whole.log", tmp_path / "parts.log"]
    whole, parts = (Proposer(searched, open_journal(path, "tiny", searched.objectives)) for path in paths)
    seen: list[dict[str, Any]] = []
    for number in range(30):
        mine = whole.next_job()
        assert mine is not None
        assert mine.number == number
        assert consistent(searched, mine.params)
        seen.append(mine.params)
        parts = Proposer(searched, open_journal(paths[1], "tiny", searched.objectives))
        before = [trial.distributions for trial in parts.study.get_trials()]
        jobs = list(iter_jobs(parts, number))
        assert jobs[-1] == mine
        assert [trial.distributions for trial in parts.study.get_trials()][:number] == before
        if number:
            for proposer in (whole, parts):
                proposer.tell(ended(seen[number - 1], number - 1, proposer), number - 1)
    assert len({tuple(sample) for sample in seen}) == 4  # sets of keys
    assert [t.params for t in whole.study.get_trials()] == [t.params for t in parts.study.get_trials()]


def iter_jobs(proposer: Proposer, last: int) -> Iterator[Job]:
    """What was left running, then the next."""
    while True:
        job = proposer.next_job()
        assert job is not None
        yield job
        if job.number == last:
            return


def ended(params: dict[str, Any], number: int, proposer: Proposer) -> TrialResult:
    metrics = {"delta_m": 10 * params.get("pdrs.rho_shared", 0.7) - number % 3, "trainable_params": 1e5 + number}
    attrs = proposer.study.get_trials(deepcopy=False)[number].user_attrs
    return TrialResult(
        attrs["trial_id"], attrs["config_id"], attrs["seed"], "trial", "COMPLETE", params, metrics, 1.0, 3
    )


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_killed_anywhere_ends_as_an_undisturbed_one(
    conditional: Space, driver: Drive, tmp_path: Path, sampler: str
) -> None:
    search = {"sampler": sampler, "startup_trials": 2, "replicates": {"top": 2, "seeds": 2}}
    searched = conditional(search=search, budget={"trials": 8})

    def rows(path: Path) -> list[tuple[Any, ...]]:
        results = driver(searched, path).run().proposer.results()
        return [(r.trial_id, r.seed, r.state, r.epochs, tuple(r.params.items())) for r in results]

    whole = rows(tmp_path / "whole.log")
    assert all(consistent(searched, dict(row[-1])) for row in whole)
    first = {row[0].partition("-")[0]: row[-1] for row in whole if row[1] == 0}
    again = [row for row in whole if row[1] == 1]
    assert [row[-1] for row in again] == [first[row[0].partition("-")[0]] for row in again]
    assert len(again) == 2
    lines = (tmp_path / "whole.log").read_bytes().splitlines(keepends=True)
    drawn = [number for number, line in enumerate(lines, 1) if b"param_name" in line]
    for kept in drawn[::3]:  # moments at which a trial has some of its parameters, or all
        path = tmp_path / f"{kept}.log"
        path.write_bytes(b"".join(lines[:kept]))
        assert rows(path) == whole, f"killed after line {kept}"


def test_tpe_draws_in_groups_only_where_there_are_conditions(conditional: Space, space: Space) -> None:
    for searched, grouped in ((conditional(), True), (space(), False)):
        with warnings.catch_warnings(action="error"):
            sampler = sampler_of(searched.search, searched.parameters, 0)
        assert isinstance(sampler, TPESampler)
        assert sampler._group is grouped


# what is shown


def test_a_dry_run_shows_conditions_and_of_samples_what_is_active(conditional: Space) -> None:
    console = Console(file=io.StringIO(), width=120)
    searched = conditional(warm_start={"points": [{"method": "dora", "optim.lr": 0.001}]})
    show_plan(console, searched, None)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "{method: dora, optim.lr: 0.001}" in text
    shown = yaml.safe_load(text.partition("# three sample")[0])
    assert shown["parameters"]["decoder.filter"]["when"] == {"method": "faar"}


def test_epochs_that_are_searched_under_a_condition_may_be_the_base_s(conditional: Space) -> None:
    epochs = {"values": [4, 5], "when": {"method": "dora"}}
    parameters = {"method": {"values": ["faar", "dora"]}, "optim.epochs": epochs}
    searched = conditional(parameters)
    assert bound(searched).startswith("bound: 6 trials x 5 epochs")
    with pytest.raises(ValidationError, match=r"min_epochs: must be <= optim\.epochs = 3, got 4"):
        conditional(parameters, scheduler={"min_epochs": 4})
    epochs["values"] = [1, 2]
    assert bound(conditional(parameters)).startswith("bound: 6 trials x 3 epochs")
