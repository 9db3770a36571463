"""What Optuna is asked and told, read back from a real journal."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from faar_ray.tune.propose.journal import open_journal
from faar_ray.tune.space.space import SearchSpace

Space = Callable[..., SearchSpace]
Drive = Callable[..., Any]


def read_back(path: Path) -> list[FrozenTrial]:
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    return optuna.load_study(study_name="tiny", storage=storage).get_trials()


def rows(driver: Any) -> list[tuple[Any, ...]]:
    return [(r.trial_id, r.seed, r.state, r.epochs, tuple(r.params.items())) for r in driver.proposer.results()]


def test_states_are_told_as_they_were(space: Space, driver: Drive, tmp_path: Path) -> None:
    def train(job: Any, epoch: int) -> dict[str, float]:
        quality = {"t000-s0": 5.0, "t001-s0": 1.0, "t002-s0": 6.0}.get(job.trial_id, 9.0)
        return {"error": 1.0} if job.number == 2 else {"delta_m": quality, "trainable_params": 1e5}

    driver(space(budget={"trials": 3}), train=train).run()
    done, stopped, failed = read_back(tmp_path / "study.log")
    assert (done.state, done.values) == (TrialState.COMPLETE, [5.0, 1e5])
    assert (stopped.state, stopped.values) == (TrialState.PRUNED, None)
    assert stopped.user_attrs["epoch/0000"] == 1.0
    assert "best there 5" in stopped.user_attrs["reason"]
    assert (failed.state, failed.user_attrs["reason"]) == (
        TrialState.FAIL,
        "it broke [t002-s0: pdrs.rho_shared 0.868263]",
    )


def test_with_one_objective_optuna_holds_the_intermediate_values(space: Space, driver: Drive, tmp_path: Path) -> None:
    one = {"objectives": [{"name": "delta_m", "goal": "maximize"}], "budget": {"trials": 1}}
    driver(space(**one)).run()
    (trial,) = read_back(tmp_path / "study.log")
    assert sorted(trial.intermediate_values) == [0, 1, 2]


def test_every_trial_carries_what_names_it(space: Space, driver: Drive, tmp_path: Path) -> None:
    driver(space(budget={"trials": 1}), run_id=lambda name: f"run of {name}").run()
    attrs = read_back(tmp_path / "study.log")[0].user_attrs
    assert attrs["trial_id"] == "t000-s0"
    assert attrs["seed"] == 0
    assert len(attrs["config_id"]) == 8
    assert attrs["mlflow_run_id"] == "run of t000-s0"
    assert attrs["seconds"] >= 0


READER = """
import json, sys, time
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

optuna.logging.set_verbosity(optuna.logging.ERROR)
seen, deadline = {}, time.monotonic() + 240
while len(seen) < 4 and time.monotonic() < deadline:
    sys.stdin.readline()
    study = optuna.load_study(study_name="tiny", storage=JournalStorage(JournalFileBackend(sys.argv[1])))
    for trial in study.get_trials():
        if trial.state.is_finished():
            values = sorted(trial.intermediate_values.items())
            seen[trial.number] = [trial.state.name, trial.values, values, trial.user_attrs]
    print(len(seen), flush=True)
print(json.dumps(list(seen.values())))
"""


def test_another_process_sees_the_truth_while_it_is_written(space: Space, driver: Drive, tmp_path: Path) -> None:
    """As optuna-dashboard does: plain Optuna, on the journal of a search that runs."""
    path = tmp_path / "study.log"
    path.touch()
    with subprocess.Popen(
        [sys.executable, "-c", READER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        message: list[int] = []

        def train(job: Any, epoch: int) -> dict[str, float]:
            """Lets the other process look between any two epochs, and waits for what it sees."""
            print(file=reader.stdin, flush=True)
            message.append(int(reader.stdout.readline()))
            quality = math.nan if (job.number, epoch) == (2, 2) else {0: 5.0, 1: 1.0}.get(job.number, 9.0)
            if job.number == 3:
                return {"error": 1.0}
            return {"delta_m": quality, "trainable_params": 1e5 - epoch, "rank/mean": 4.0 - epoch}

        one = {"objectives": [{"name": "delta_m", "goal": "maximize"}], "budget": {"trials": 4}}
        driver(space(**one), path, train=train).run()
        done, stopped, unfit, failed = json.loads(reader.communicate("\n" * 99)[0].splitlines()[-1])
    assert {0, 1, 2} <= set(message)  # finished trials, seen before the search had ended
    assert done[:3] == ["COMPLETE", [5.0], [[0, 5.0], [1, 5.0], [2, 5.0]]]
    assert stopped[:3] == ["PRUNED", [1.0], [[0, 1.0]]]
    assert unfit[0] == failed[0] == "FAIL"
    assert unfit[3]["reason"].startswith("objective delta_m is nan")
    assert failed[3]["reason"].startswith("it broke")
    for trial in (done, stopped, unfit):
        assert trial[3]["rank/mean"] == 4.0 - (trial[3]["epochs"] - 1)
        assert trial[3]["trainable_params"] == 1e5 - (trial[3]["epochs"] - 1)
    assert all(trial[3]["seconds"] >= 0 for trial in (done, stopped, unfit, failed))


def test_an_objective_that_is_no_number_is_a_failure_with_its_reason(space: Space, driver: Drive) -> None:
    def train(job: Any, epoch: int) -> dict[str, float]:
        return {"delta_m": 1.0, "trainable_params": math.nan}

    (result,) = driver(space(budget={"trials": 1}), train=train).run().proposer.results()
    assert (result.state, result.reason) == (
        "FAIL",
        "objective trainable_params is nan [t000-s0: pdrs.rho_shared 0.95]",
    )


def test_the_prior_comes_first_and_warm_starts_after_it(space: Space, driver: Drive) -> None:
    warm = {"warm_start": {"points": [{"pdrs.rho_shared": 0.6}]}, "scheduler": {"type": "none"}}
    results = driver(space(**warm)).run().proposer.results()
    assert [r.params["pdrs.rho_shared"] for r in results[:2]] == [0.95, 0.6]
    assert len(results) == 6


def test_leading_configurations_run_again_on_the_next_seed(space: Space, driver: Drive) -> None:
    replicates = {"search": {"replicates": {"top": 2, "seeds": 2}}, "scheduler": {"type": "none"}}
    results = driver(space(**replicates)).run().proposer.results()
    assert [r.seed for r in results] == [0, 0, 0, 0, 1, 1]
    by_config = {r.config_id: r for r in results[:4]}
    for again in results[4:]:
        first = by_config[again.config_id]
        assert again.params == first.params
        assert again.trial_id == first.trial_id.replace("-s0", "-s1")


def test_replicates_are_never_stopped_early(space: Space, driver: Drive) -> None:
    def train(job: Any, epoch: int) -> dict[str, float]:
        return {"delta_m": -50.0 if job.replicate else 1.0, "trainable_params": 1e5}

    replicates = space(search={"replicates": {"top": 1, "seeds": 3}})
    states = [r.state for r in driver(replicates, train=train).run().proposer.results() if r.seed > 0]
    assert states == ["COMPLETE", "COMPLETE"]


def test_a_configuration_that_is_drawn_twice_runs_on_two_seeds(space: Space, driver: Drive) -> None:
    choices = {"parameters": {"pdrs.rho_shared": {"values": [0.9], "min": None, "max": None}}}
    plain = space().model_dump(by_alias=True)
    raw = {**plain, **choices, "scheduler": {"type": "none"}, "budget": {"trials": 3}}
    results = driver(SearchSpace.model_validate(raw)).run().proposer.results()
    assert [r.trial_id for r in results] == ["t000-s0", "t000-s1", "t000-s2"]


def test_infeasible_trials_do_not_lead(space: Space, driver: Drive) -> None:
    limited = space(
        constraints=["trainable_params <= 1.8e5"],
        search={"replicates": {"top": 1, "seeds": 2}},
        scheduler={"type": "none"},
    )
    proposer = driver(limited).run().proposer
    assert not all(proposer.feasible(r) for r in proposer.results())
    assert all(proposer.feasible(r) for r in proposer.leaders())


def test_a_search_killed_anywhere_ends_as_an_undisturbed_one(space: Space, driver: Drive, tmp_path: Path) -> None:
    """Every prefix of the journal is a moment at which the driver may have been killed."""
    small = space(search={"replicates": {"top": 2, "seeds": 2}}, warm_start={"points": [{"pdrs.rho_shared": 0.7}]})
    whole = driver(small, tmp_path / "whole.log").run()
    lines = (tmp_path / "whole.log").read_bytes().splitlines(keepends=True)
    for kept in range(2, len(lines)):
        torn = lines[kept][: len(lines[kept]) // 2] if kept % 3 else b""
        path = tmp_path / f"{kept}.log"
        path.write_bytes(b"".join(lines[:kept]) + torn)
        assert rows(driver(small, path).run()) == rows(whole), f"killed after line {kept}"


def test_what_was_left_running_is_handed_out_first(space: Space, driver: Drive, tmp_path: Path) -> None:
    first = driver(space(), concurrent=2)
    handed = [first.search_state.next_job(), first.search_state.next_job()]
    again = driver(space(), concurrent=2)
    assert [again.search_state.next_job(), again.search_state.next_job()] == handed


def test_the_lock_of_a_dead_writer_is_removed(space: Space, tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    (tmp_path / "study.log.lock").symlink_to(path)
    assert open_journal(path, "tiny", space().objectives).get_trials() == []
