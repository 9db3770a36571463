"""A trial that begins with another one's checkpoint: what it takes over, and which of its own values are in force."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from faar_ray.config.trial import CHANGEABLE, TrialConfig
from faar_ray.errors import ConfigError, DataError
from faar_ray.records import EpochRecord
from faar_ray.storage.run_location import RunLocation, TrialPaths
from faar_ray.tracking.files.epoch_file import read_epochs, read_trial_records
from faar_ray.tracking.files.rank_trace import read_rank_trace
from faar_ray.train.checkpoint import checkpoint_path, checkpoints_of, read_checkpoint
from faar_ray.train.fit import Epochs, fit
from faar_ray.train.fork import fork_from_parent
from faar_ray.train.runtimes.runtime import InProcess
from faar_ray.train.trial import Trial
from faar_ray.train.trial_spec import TrialSpec

RAW: dict[str, Any] = {
    "data": {"tasks": ["semseg", "normals"], "image_size": 32, "train_images": 32, "val_images": 16, "test_images": 16},
    "backbone": {"pretrained": False},
    "ranks": {"init_rank": 6},
    "pdrs": {"rho_shared": 0.95},
    "optim": {
        "epochs": 4,
        "batch_size": 8,
        "warmup_steps": 2,
        "lr": 1e-3,
        "decoder_lr": 2e-3,
        "backbone_lr": 3e-3,
    },
}


def config(**dotted: Any) -> TrialConfig:
    return TrialConfig.resolve(RAW, **{key.replace("__", "."): value for key, value in dotted.items()})


def epochs(folder: Path, name: str, trial: TrialConfig) -> Epochs:
    return fit(TrialSpec(name, trial, RunLocation(folder), keep_checkpoints=1))


def trained(folder: Path, name: str, trial: TrialConfig, most: int) -> list[EpochRecord]:
    return list(islice(epochs(folder, name, trial), most))


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> TrialPaths:
    """A trial with two of its four epochs trained."""
    folder = tmp_path_factory.mktemp("adopt")
    trained(folder, "parent", config(), 2)
    return TrialPaths(folder, "parent")


def test_a_copy_has_the_past_of_its_parent_and_a_future_under_its_own_rho(parent: TrialPaths, tmp_path: Path) -> None:
    copied = config(pdrs__rho_shared=0.5)
    fork_from_parent(parent, TrialPaths(tmp_path, "copy"), copied, 2)
    result = trained(tmp_path, "copy", copied, 4)
    given, _ = read_trial_records(parent)
    assert [record.metrics for record in result[:2]] == [given[epoch].metrics for epoch in (0, 1)]
    assert [row.rank_before for row in result[2].ranks] == [row.rank for row in given[1].ranks]
    trace = read_rank_trace(TrialPaths(tmp_path, "copy").trace).to_pylist()
    assert {row["trial_id"] for row in trace} == {"copy"}
    rhos = [{row["rho"] for row in trace if row["epoch"] == epoch} for epoch in range(4)]
    assert rhos[2:] == [{0.5}, {0.5}]
    assert 0.5 not in rhos[0] | rhos[1]
    assert list(read_epochs(TrialPaths(tmp_path, "copy"))) == [0, 1, 2, 3]


def test_a_copy_with_the_values_of_its_parent_trains_as_its_parent_does(parent: TrialPaths, tmp_path: Path) -> None:
    fork_from_parent(parent, TrialPaths(tmp_path, "copy"), config(), 2)
    copied = trained(tmp_path, "copy", config(), 4)
    whole = trained(tmp_path, "whole", config(), 4)
    assert [record.ranks for record in copied] == [record.ranks for record in whole]
    losses = [[record.metrics["train/loss"] for record in records] for records in (copied, whole)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("key", ["optim.lr", "optim.decoder_lr", "optim.backbone_lr"])
def test_a_changed_learning_rate_is_in_force_from_the_next_step_on(
    key: str, parent: TrialPaths, tmp_path: Path
) -> None:
    """Of its part alone, at its place in the schedule, whatever the optimizer's state says."""
    changed = config(**{key: 7e-3})
    fork_from_parent(parent, TrialPaths(tmp_path, "copy"), changed, 2)
    rates = {}
    for name, paths, trial_config in (("parent", parent, config()), ("copy", TrialPaths(tmp_path, "copy"), changed)):
        trial = Trial(trial_config, InProcess())
        trial.restore(read_checkpoint(checkpoint_path(paths.folder, 1)))
        factor = trial.scheduler.lr_lambdas[0](trial.scheduler.last_epoch)
        assert 0.2 < factor < 0.8
        rates[name] = [group["lr"] / factor for group in trial.optimizer.param_groups]
    was = config().dotted()[key]
    assert was in [pytest.approx(rate) for rate in rates["parent"]]
    assert rates["copy"] == [pytest.approx(7e-3 if rate == pytest.approx(was) else rate) for rate in rates["parent"]]


def test_with_no_learning_rate_left_a_copy_stands_still(parent: TrialPaths, tmp_path: Path) -> None:
    still = config(optim__lr=1e-30, optim__decoder_lr=1e-30, optim__backbone_lr=1e-30, pdrs__rho_shared=1.0)
    moving = config(pdrs__rho_shared=1.0)
    before = read_checkpoint(checkpoint_path(parent.folder, 1))["model"]
    moved = {}
    for name, trial in (("still", still), ("moving", moving)):
        fork_from_parent(parent, TrialPaths(tmp_path, name), trial, 2)
        trained(tmp_path, name, trial, 3)
        after = read_checkpoint(checkpoint_path(TrialPaths(tmp_path, name).folder, 2))["model"]
        heads = [key for key in before if key.startswith("decoder.") and before[key].is_floating_point()]
        weights = [key for key in heads if key.endswith("weight") and before[key].ndim > 1]
        assert weights
        moved[name] = max(float((after[key] - before[key]).abs().max()) for key in weights)
    assert moved["still"] == 0.0
    assert moved["moving"] > 1e-4


def test_a_changed_beta_keeps_the_scores_and_moves_them_at_its_own_pace(parent: TrialPaths, tmp_path: Path) -> None:
    copied = config(pdrs__beta=0.5)
    fork_from_parent(parent, TrialPaths(tmp_path, "copy"), copied, 2)
    scores = []
    for paths, trial_config in ((parent, config()), (TrialPaths(tmp_path, "copy"), copied)):
        trial = Trial(trial_config, InProcess())
        trial.restore(read_checkpoint(checkpoint_path(paths.folder, 1)))
        policy: Any = trial.policy
        assert {importance.beta for importance in policy.importance} == {trial_config.pdrs.beta}
        scores.append([importance.evidence().scores_R for importance in policy.importance])
    for before, after in zip(*scores, strict=True):
        torch.testing.assert_close(after, before, rtol=1e-4, atol=0)


def test_who_has_a_checkpoint_of_its_own_does_not_begin_again(parent: TrialPaths, tmp_path: Path) -> None:
    copied = config(pdrs__rho_shared=0.5)
    fork_from_parent(parent, TrialPaths(tmp_path, "copy"), copied, 2)
    trained(tmp_path, "copy", copied, 3)
    fork_from_parent(TrialPaths(tmp_path, "gone"), TrialPaths(tmp_path, "copy"), copied, 2)
    assert [path.name for path in checkpoints_of(TrialPaths(tmp_path, "copy").folder)] == ["epoch_0002.pt"]


def test_what_cannot_change_and_what_is_not_there_is_told(parent: TrialPaths, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ranks\.init_rank: cannot change while a trial trains; only optim\.lr"):
        fork_from_parent(parent, TrialPaths(tmp_path, "copy"), config(ranks__init_rank=5), 2)
    with pytest.raises(DataError, match=r"epoch_0000\.pt: is missing"):
        fork_from_parent(parent, TrialPaths(tmp_path, "copy"), config(), 1)
    assert not checkpoints_of(TrialPaths(tmp_path, "copy").folder)


def test_what_may_change_is_a_key_of_every_trial() -> None:
    assert set(CHANGEABLE) <= set(config().dotted())
