"""Every sampler: what it proposes after a kill, what it learns from, what it is refused."""

from __future__ import annotations

import dataclasses
import inspect
import json
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna import search_space
from optuna._transform import _SearchSpaceTransform
from optuna.samplers import CmaEsSampler, _cmaes, _ga, _gp, _random, _tpe, nsgaii
from optuna.samplers._gp.sampler import _get_params
from pydantic import ValidationError
from scipy.stats import qmc

from faar_ray.records import TrialResult
from faar_ray.tune.propose.journal import open_journal
from faar_ray.tune.propose.optuna_samplers import Evolution, Gaussian, Genetic, Sobol
from faar_ray.tune.propose.proposer import Proposer
from faar_ray.tune.propose.samplers import SAMPLERS as ENTRIES
from faar_ray.tune.run.jobs import Job
from faar_ray.tune.space.parameter import Parameter
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


@pytest.mark.parametrize("sampler", [*QUICK, pytest.param("gp", marks=pytest.mark.slow)])
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


@pytest.mark.parametrize("sampler", [*QUICK, pytest.param("gp", marks=pytest.mark.slow)])
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


def sampled(sampler: optuna.samplers.BaseSampler, study: optuna.Study) -> optuna.Trial:
    study.sampler = sampler
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    return trial


def learned(sampler: Callable[[], optuna.samplers.BaseSampler], trials: int = 9) -> optuna.Study:
    study = optuna.create_study()
    for number in range(trials):
        study.tell(sampled(sampler(), study), float(number))
    return study


def evolution() -> Evolution:
    return Evolution(seed=0, n_startup_trials=2, popsize=4, warn_independent_sampling=False)


def genetic() -> Genetic:
    return Genetic(seed=0, population_size=2)


def sobol() -> Sobol:
    return Sobol({"x": Parameter(min=0.0, max=1.0)}, 0, 0)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize(
    ("sampler", "method"),
    [
        (evolution, "_restore_optimizer"),
        (evolution, "_init_optimizer"),
        (evolution, "_get_solution_trials"),
        (genetic, "get_parent_population"),
        (sobol, "_find_sample_id"),
    ],
)
def test_optuna_still_calls_the_method_that_is_overridden(
    monkeypatch: pytest.MonkeyPatch, sampler: Callable[[], optuna.samplers.BaseSampler], method: str
) -> None:
    calls, kind = list[str](), type(sampler())
    theirs = next(base for base in kind.__mro__[1:] if method in vars(base))
    assert list(inspect.signature(getattr(kind, method)).parameters) == list(
        inspect.signature(getattr(theirs, method)).parameters
    )
    study, real = learned(sampler), getattr(kind, method)

    def counted(self: Any, *args: Any) -> Any:
        calls.append(method)
        return real(self, *args)

    monkeypatch.setattr(kind, method, counted)
    sampled(sampler(), study)
    assert calls


def test_optuna_s_gp_still_leaves_its_sample_in_the_running_trial() -> None:
    study = learned(optuna.samplers.RandomSampler, 3)
    trial = sampled(Gaussian(seed=0, n_startup_trials=2), study)
    assert _get_params(study.trials[trial.number]) == trial.params
    again = Gaussian(seed=1, n_startup_trials=2)
    assert again.sample_relative(study, study.trials[trial.number], trial.distributions) == trial.params


def test_no_sampler_of_optuna_reads_trials_past_the_view_of_a_lag() -> None:
    """Every read of a sampler that is used here goes through `Study._get_trials`, which `LaggedStudy` overrides."""
    for module in (_tpe.sampler, _ga._base, nsgaii._sampler, _cmaes, _gp.sampler, _random, search_space.intersection):
        source = inspect.getsource(module)
        assert "get_all_trials" not in source, module.__name__


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random", "qmc"])
def test_a_sampler_learns_from_stopped_trials_where_its_entry_says_so(
    space: Space, tmp_path: Path, sampler: str
) -> None:
    """The same eight values, of trials that were stopped early or that failed: a failure teaches nobody."""
    small = searched(space, sampler, ONE, trials=30)
    proposals = []
    for state in ("PRUNED", "FAIL"):
        study = played(small, tmp_path / state, 8)
        for number in range(8, 16):
            job = study.next_job()
            assert job is not None
            study.epoch(number, 0, [1.0 / number])
            study.tell(dataclasses.replace(ended(job), state=state), number)
        job = study.next_job()
        assert job is not None
        proposals.append(job.params)
    assert (proposals[0] != proposals[1]) is ENTRIES[sampler].learns_from_stopped
