"""Every sampler: what it proposes after a kill, what it learns from, what it is refused."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna._transform import _SearchSpaceTransform
from optuna.samplers import CmaEsSampler
from pydantic import ValidationError
from scipy.stats import qmc

from faar_ray.records import TrialResult
from faar_ray.tune.propose.journal import open_journal
from faar_ray.tune.propose.proposer import Proposer
from faar_ray.tune.propose.samplers import Evolution
from faar_ray.tune.run.jobs import Job
from faar_ray.tune.space.space import SearchSpace, read_space

Space = Callable[..., SearchSpace]
Drive = Callable[..., Any]

RANGES: dict[str, Any] = {
    "pdrs.rho_shared": {"min": 0.5, "max": 0.99, "scale": "log1m"},
    "optim.lr": {"min": 1e-4, "max": 1e-2, "log": True},
    "ranks.init_rank": {"min": 2, "max": 32, "log": True},
}
LISTS: dict[str, Any] = {**RANGES, "decoder.kind": {"values": ["hrnet", "ts_pd"]}}
ONE = [{"name": "delta_m", "goal": "maximize"}]
TWO = [*ONE, {"name": "trainable_params", "goal": "minimize"}]
QUICK = ["tpe", "nsga2", "cmaes", "random", "qmc"]
SAMPLERS = [*QUICK, "gp"]


def searched(space: Space, sampler: str, objectives: Any = None, trials: int = 25, **over: Any) -> SearchSpace:
    """A small space that the sampler takes."""
    sizes = {"population": 6} if sampler in ("nsga2", "cmaes") else {}
    parts = {
        "parameters": RANGES if sampler == "cmaes" else LISTS,
        "objectives": objectives or (ONE if sampler in ("cmaes", "gp") else TWO),
        "search": {"sampler": sampler, "startup_trials": 5, **sizes},
        "scheduler": {"type": "none"},
        "budget": {"trials": trials},
    }
    raw = space().model_dump(mode="json", exclude_unset=True)
    return SearchSpace.model_validate({**raw, **parts, **over})


def proposer(space: SearchSpace, path: Path) -> Proposer:
    return Proposer(space, open_journal(path, "tiny", space.objectives))


def jobs(of: Proposer) -> Iterator[Job]:
    while (job := of.next_job()) is not None:
        yield job


def ended(job: Job) -> TrialResult:
    config = job.config
    quality = -((np.log10(config.optim.lr) + 3) ** 2) - (config.pdrs.rho_shared - 0.9) ** 2
    metrics = {"delta_m": float(quality), "trainable_params": 1e4 * int(job.params["ranks.init_rank"])}
    return TrialResult(job.trial_id, "", config.seed, "trial", "COMPLETE", dict(job.params), metrics, 1.0, 3)


def played(space: SearchSpace, path: Path, trials: int) -> Proposer:
    """A search of one trial after the other."""
    whole = proposer(space, path)
    for _ in range(trials):
        job = whole.next_job()
        assert job is not None
        assert job.number is not None
        whole.tell(ended(job), job.number)
    return whole


def samples(of: Proposer) -> list[dict[str, Any]]:
    return [trial.params for trial in of.study.get_trials(deepcopy=False)]


@pytest.mark.parametrize("sampler", [*QUICK, pytest.param("gp", marks=pytest.mark.slow)])
def test_a_journal_that_is_opened_anew_before_every_ask_proposes_the_same(
    space: Space, tmp_path: Path, sampler: str
) -> None:
    small = searched(space, sampler)
    whole = played(small, tmp_path / "whole.log", 25)
    for number in range(25):
        job = proposer(small, tmp_path / "parts.log").next_job()
        again = proposer(small, tmp_path / "parts.log")  # the trial is open when the driver is killed
        assert job == again.next_job()
        assert job is not None
        again.tell(ended(job), number)
    assert samples(proposer(small, tmp_path / "parts.log")) == samples(whole)
    assert len({json.dumps(sample) for sample in samples(whole)}) > 20


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_killed_while_it_asks_goes_on_as_an_undisturbed_one(
    space: Space, tmp_path: Path, sampler: str
) -> None:
    """Every prefix of the journal is a moment of a kill; those of the last asks are tried."""
    small = searched(space, sampler, trials=14, warm_start={"points": [{"optim.lr": 0.003}]})
    whole = played(small, tmp_path / "whole.log", 14)
    lines = (tmp_path / "whole.log").read_bytes().splitlines(keepends=True)
    asks = [index for index, line in enumerate(lines) if b'"op_code":4' in line]  # trials are created
    assert len(asks) == 14
    for kept in range(asks[12], len(lines)):
        path = tmp_path / f"{kept}.log"
        path.write_bytes(b"".join(lines[:kept]) + lines[kept][: kept % 5])
        parts = proposer(small, path)
        for job in jobs(parts):
            assert job.number is not None
            parts.tell(ended(job), job.number)
        assert samples(parts) == samples(whole), f"killed after line {kept}"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_nothing_in_a_journal_is_a_pickle(space: Space, tmp_path: Path, sampler: str) -> None:
    played(searched(space, sampler, trials=20), tmp_path / "study.log", 20)
    text = (tmp_path / "study.log").read_text()
    assert "optimizer" not in text
    assert "8004" not in text.split('"')  # as pickles in hexadecimal begin


def test_cma_es_is_in_the_state_that_optuna_s_own_would_unpickle() -> None:
    study = optuna.create_study()
    for number in range(40):
        study.sampler = CmaEsSampler(seed=number, n_startup_trials=5, popsize=6, warn_independent_sampling=False)
        trial = study.ask()
        study.tell(trial, (trial.suggest_float("x", 0.1, 10, log=True) - 2) ** 2 + trial.suggest_int("y", 1, 9))
    pickles = [trial.system_attrs for trial in study.trials if "cma:optimizer:0" in trial.system_attrs]
    assert len(pickles) == 5
    kept = pickles[-1]
    theirs = pickle.loads(bytes.fromhex("".join(kept[f"cma:optimizer:{i}"] for i in range(len(kept) - 1))))
    ours = Evolution(n_startup_trials=5, popsize=6)
    ours._restore_optimizer(study.trials)
    trans = _SearchSpaceTransform(study.trials[0].distributions, transform_0_1=True)
    again = ours._init_optimizer(trans, study.direction)
    assert again.generation == theirs.generation == 5
    for name in ("_mean", "_sigma", "_C", "_pc", "_p_sigma"):
        np.testing.assert_allclose(getattr(again, name), getattr(theirs, name), rtol=1e-9)


@pytest.mark.parametrize("objectives", [ONE, TWO])
@pytest.mark.parametrize("sampler", ["tpe", "nsga2", pytest.param("gp", marks=pytest.mark.slow)])
def test_constraints_reach_the_sampler(space: Space, tmp_path: Path, sampler: str, objectives: Any) -> None:
    """The same search with and without one: proposals move to where it holds."""
    free = searched(space, sampler, objectives, trials=30)
    bound = searched(space, sampler, objectives, trials=30, constraints=["trainable_params <= 6e4"])
    late = {}
    for name, small in (("free", free), ("bound", bound)):
        ranks = [sample["ranks.init_rank"] for sample in samples(played(small, tmp_path / name, 30))]
        late[name] = sum(rank <= 6 for rank in ranks[12:])
    assert late["bound"] >= late["free"]
    assert late["bound"] >= 10


def test_qmc_is_sobol_s_sequence_scrambled_by_the_seed_alone(space: Space, tmp_path: Path) -> None:
    drawn = samples(played(searched(space, "qmc", trials=32), tmp_path / "study.log", 32))
    assert sum(sample["decoder.kind"] == "hrnet" for sample in drawn) == 16
    logs = np.log([sample["optim.lr"] for sample in drawn])
    place = (logs - np.log(1e-4)) / (np.log(1e-2) - np.log(1e-4))
    assert sorted(np.floor(place * 32).astype(int)) == list(range(32))
    assert qmc.discrepancy(place[:, None]) < 1e-3


@pytest.mark.parametrize(
    ("sampler", "over", "why"),
    [
        ("gp", {"when": True}, r"sampler: cannot be gp where parameters have `when` \(optim\.lr\)"),
        ("nsga2", {"when": True}, r"sampler: cannot be nsga2 where parameters have `when`"),
        ("qmc", {"when": True}, r"sampler: cannot be qmc where parameters have `when`"),
        ("cmaes", {"when": True}, r"sampler: cannot be cmaes where parameters have `when`"),
        ("cmaes", {"parameters": LISTS}, r"sampler: cannot be cmaes .* lists of values \(decoder\.kind\)"),
        ("cmaes", {"objectives": TWO}, r"sampler: cannot be cmaes for 2 objectives"),
        ("cmaes", {"constraints": ["trainable_params <= 1e5"]}, r"sampler: cannot be cmaes with constraints"),
        ("gp", {"search": {"sampler": "gp", "population": 8}}, r"population: must be null for sampler gp"),
    ],
)
def test_what_a_sampler_cannot_do_is_refused(space: Space, sampler: str, over: dict[str, Any], why: str) -> None:
    if over.pop("when", False):
        method = {"method": {"values": ["faar", "dora"]}}
        over["parameters"] = {**RANGES, **method, "optim.lr": {**RANGES["optim.lr"], "when": {"method": "faar"}}}
    with pytest.raises(ValidationError, match=why):
        searched(space, sampler, **over)


def test_a_refusal_stands_at_the_sampler_s_line(space_file: Callable[..., Path], tmp_path: Path) -> None:
    path = space_file(tmp_path / "a.yaml", search={"sampler": "cmaes"})
    line = 1 + next(n for n, text in enumerate(path.read_text().splitlines()) if "sampler:" in text)
    with pytest.raises(Exception, match=rf"a\.yaml:{line}:3: search\.sampler: cannot be cmaes for 2 objectives"):
        read_space(path)


def test_a_list_of_one_value_is_no_choice(space: Space, tmp_path: Path) -> None:
    fixed = {**RANGES, "decoder.kind": {"values": ["ts_pd"]}}
    for sampler in ("cmaes", "qmc", "gp"):
        small = searched(space, sampler, parameters=fixed, trials=8)
        drawn = samples(played(small, tmp_path / sampler, 8))
        assert {sample["decoder.kind"] for sample in drawn} == {"ts_pd"}


def test_building_a_sampler_warns_of_nothing(space: Space, tmp_path: Path) -> None:
    with warnings.catch_warnings(action="error"):
        for sampler in SAMPLERS:
            played(searched(space, sampler, trials=7), tmp_path / sampler, 7)
