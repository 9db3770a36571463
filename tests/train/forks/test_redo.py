"""A fork that makes the end of its last inherited epoch anew gives what its config alone gives, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from faar_ray.config.moments.moment import Moment
from faar_ray.config.moments.sharing import shared_until
from faar_ray.errors import ConfigError, DataError
from faar_ray.records import MEASURED
from faar_ray.storage.run_location import TrialPaths
from faar_ray.train.checkpoint import DUE, checkpoint_path, checkpoints_of, last_good_checkpoint, read_checkpoint
from faar_ray.train.fork import begin_as_fork, fork_from_parent

from .trainings import assert_same_trial, config, fork_at, spec, tensors, timeless, train, unequal

PREFIX = config(pdrs__start_epoch=2)
BETAS = (0.9, 0.5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a prefix that has decided nothing after two of three epochs, and a whole trial without decisions."""
    folder = tmp_path_factory.mktemp("run")
    train(spec(folder, "prefix", PREFIX, betas=BETAS), 2)
    train(spec(folder, "fixed", config(method="dora")))
    return folder


@pytest.mark.parametrize(
    ("dotted", "moment"),
    [
        ({"pdrs.rho_shared": 0.4}, Moment(1, at_end=True)),
        ({"pdrs.rho_shared": 0.9, "pdrs.scope": "pooled", "pdrs.margin": 1}, Moment(1, at_end=True)),
        ({"pdrs.start_epoch": 0}, Moment(0, at_end=True)),
        ({"pdrs.free_epochs": 1}, Moment(1, at_end=True)),
        ({"pdrs.beta": 0.5}, Moment(1, at_end=True)),
    ],
)
def test_a_fork_of_a_prefix_equals_the_trial_alone(
    dotted: dict[str, Any], moment: Moment, run: Path, tmp_path: Path
) -> None:
    ours = config(dotted)
    assert shared_until(PREFIX, ours, BETAS) == moment
    name = "-".join(dotted)
    forked = train(fork_at(run, name, ours, "prefix", moment))
    whole = train(spec(run, f"{name}-alone", ours))
    assert_same_trial(run, name, f"{name}-alone", forked, whole)
    decided = forked[0][moment.epoch].ranks
    assert any(row.rank < row.rank_before for row in decided), "the fork decides where it begins"


def test_a_fork_of_free_epochs_trains_them_without_masks_as_the_trial_alone(run: Path) -> None:
    ours = config(pdrs__start_epoch=2, pdrs__free_epochs=0)
    freed = config(pdrs__start_epoch=0, pdrs__free_epochs=1)
    moment = shared_until(ours, config(pdrs__start_epoch=0, pdrs__free_epochs=2, optim__epochs=3))
    assert moment == Moment(0, at_end=True)
    train(spec(run, "masked", config(pdrs__start_epoch=0)), 2)
    moment = shared_until(config(pdrs__start_epoch=0), freed)
    assert moment == Moment(2)
    forked = train(fork_at(run, "freed", freed, "masked", moment))
    assert_same_trial(run, "freed", "freed-alone", forked, train(spec(run, "freed-alone", freed)))


def test_a_fork_at_the_very_last_epoch_makes_its_end_alone_then_adapter_and_test(run: Path) -> None:
    dora = config(method="dora")
    forked = train(fork_at(run, "last", dora, "fixed", Moment(2, at_end=True)))
    whole = train(spec(run, "fixed", dora))
    assert_same_trial(run, "last", "fixed", forked, whole)
    assert len(forked[0]) == 3
    assert forked[1].keys() >= {"test/delta_m"}


def test_time_and_memory_of_the_inherited_training_are_the_parents(run: Path) -> None:
    forked, _ = train(fork_at(run, "measured", config(pdrs__rho_shared=0.5), "prefix", Moment(1, at_end=True)), 2)
    theirs, _ = train(spec(run, "prefix", PREFIX, betas=BETAS), 2)
    for name in ("time/step_ms", "memory/peak_mb", "train/loss"):
        assert forked[1].metrics[name] == theirs[1].metrics[name]
    assert {name for name in forked[1].metrics if name.startswith(MEASURED)} >= {"time/epoch_s"}
    assert forked[1].metrics["time/epoch_s"] > 3 * theirs[1].metrics["time/step_ms"] / 1000


def test_a_fork_that_dies_before_its_end_is_made_goes_on_from_there(run: Path) -> None:
    ours = config(pdrs__rho_shared=0.6)
    fork = fork_at(run, "killed", ours, "prefix", Moment(1, at_end=True))
    begin_as_fork(fork)  # and dies
    state, records = last_good_checkpoint(fork.paths)
    assert state is not None
    assert DUE in state
    assert [record.epoch for record in records] == [0]
    first, _ = train(fork, 2)  # dies again, once the end is made
    assert DUE not in read_checkpoint(checkpoint_path(fork.paths.folder, 1))
    again = train(fork)
    assert timeless(again[0][:2]) == timeless(first)
    assert_same_trial(run, "killed", "killed-alone", again, train(spec(run, "killed-alone", ours)))


def test_a_fork_of_a_fork_equals_the_trial_alone(run: Path) -> None:
    longer = config(pdrs__start_epoch=2, pdrs__free_epochs=0)
    train(spec(run, "short", longer), 1)
    train(fork_at(run, "long", longer, "short", Moment(1)), 2)
    ours = config(pdrs__rho_shared=0.45)
    forked = train(fork_at(run, "leaf", ours, "long", Moment(1, at_end=True)))
    assert_same_trial(run, "leaf", "leaf-alone", forked, train(spec(run, "leaf-alone", ours)))


def test_named_epochs_are_kept_beside_the_newest(tmp_path: Path) -> None:
    train(spec(tmp_path, "trunk", config(method="dora"), keep_checkpoints=1, keep_epochs=(1,)))
    assert [path.name for path in checkpoints_of(TrialPaths(tmp_path, "trunk").folder)] == [
        "epoch_0000.pt",
        "epoch_0002.pt",
    ]


@pytest.mark.parametrize(
    ("dotted", "message"),
    [
        ({"ranks.init_rank": 3}, r"ranks\.init_rank: matters before the end of epoch 1"),
        ({"optim.lr": 3e-3}, r"optim\.lr: matters before"),  # a copy of pbt may, a fork may not
        ({"pdrs.start_epoch": 0}, r"pdrs\.start_epoch: matters before"),
        ({"pdrs.beta": 0.7}, r"pdrs\.beta: matters before"),  # not carried
        ({"ranks.kind": "fixed"}, r"ranks\.kind: matters before"),
    ],
)
def test_what_matters_before_the_fork_cannot_differ(dotted: dict[str, Any], message: str, run: Path) -> None:
    paths = TrialPaths(run, "refused")
    with pytest.raises(ConfigError, match=message):
        fork_from_parent(TrialPaths(run, "prefix"), paths, config(dotted), 2, redo=True)
    assert not checkpoints_of(paths.folder)


def test_a_parent_that_has_decided_has_no_end_to_make_anew(run: Path) -> None:
    decided = config(pdrs__start_epoch=0)
    train(spec(run, "decided", decided), 2)
    with pytest.raises(ConfigError, match="the ranks were decided at the end of epoch 0"):
        fork_from_parent(TrialPaths(run, "decided"), TrialPaths(run, "late"), decided, 2, redo=True)


def test_who_makes_no_end_cannot_begin_where_one_is_due(run: Path) -> None:
    fork = fork_at(run, "due", config(), "prefix", Moment(1, at_end=True))
    begin_as_fork(fork)
    with pytest.raises(DataError, match="the end of its epoch is not made yet"):
        fork_from_parent(fork.paths, TrialPaths(run, "after"), config(), 2)


@pytest.mark.parametrize("moment", [Moment(0, at_end=True), Moment(1, at_end=True), Moment(1)], ids=str)
def test_a_prefix_stops_where_its_forks_begin_and_any_of_them_may_have_trained_it(moment: Moment, run: Path) -> None:
    """Also one that decides there: it leaves the end of the epoch to each fork."""
    name = f"until {moment}"
    ours, other = (config(pdrs__start_epoch=moment.inherited - 1, pdrs__rho_shared=rho) for rho in (0.4, 0.9))
    parts = {"stop_after": moment.inherited, "leave_end": moment.at_end}
    prefix = spec(run, name, other, **parts)
    assert len(train(prefix)[0]) == moment.epoch
    assert len(train(prefix)[0]) == moment.epoch, "again, as after a kill"
    assert not prefix.paths.trace.exists()
    trial = ours if moment.at_end else other
    forked = train(fork_at(run, f"fork {name}", trial, name, moment))
    assert_same_trial(run, f"fork {name}", f"alone {name}", forked, train(spec(run, f"alone {name}", trial)))


def test_a_prefix_that_carries_scores_trains_as_one_that_does_not(run: Path) -> None:
    train(spec(run, "bare", PREFIX), 2)
    assert unequal(tensors(run, "prefix", 2), tensors(run, "bare", 2)) == []
