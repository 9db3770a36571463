"""From when on each key matters, by real trainings: equal bit for bit up to there, and different behind it.

Every declared key has a row here, so that no declaration goes without its proof.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from faar_ray.config.moments.moment import NEVER, Moment
from faar_ray.config.moments.sharing import config_keys, differing, moment_of, shared_until
from faar_ray.config.registries import RANK_POLICIES
from faar_ray.config.trial import TrialConfig
from faar_ray.records import EpochRecord
from faar_ray.train.fork import TRAINED

from .trainings import config, spec, tensors, timeless, train, unequal


@dataclass(frozen=True)
class Pair:
    """Two configs that differ in one key, and how long they train alike."""

    key: str
    value: Any
    shared: Moment
    base: tuple[tuple[str, Any], ...] = ()

    @property
    def configs(self) -> tuple[TrialConfig, TrialConfig]:
        one = config(dict(self.base))
        return one, TrialConfig.resolve(one.model_dump(mode="json"), **{self.key: self.value})


ONE_END, LAST_END = Moment(1, at_end=True), Moment(2, at_end=True)
FREE = (("pdrs.start_epoch", 0), ("pdrs.free_epochs", 1))
FLAT = (("method", "dora"), ("optim.decoder_lr", 1e-3), ("optim.min_lr", 1e-3))
CUT = (
    ("method", "dora"),
    ("ranks.kind", "spectral"),
    ("ranks.budget", 0.6),
    ("spectral.cut_epoch", 1),
    ("spectral.score_batches", 2),
)
PAIRS = (
    Pair("method", "pdrs_dora", LAST_END, (("decoder.kind", "hrnet"),)),
    Pair("recipe", "tadformer", LAST_END),
    Pair("pdrs.rho_shared", 0.4, ONE_END),
    Pair("pdrs.rho_task", 0.4, ONE_END),
    Pair("pdrs.scope", "pooled", ONE_END),
    Pair("pdrs.start_epoch", 2, ONE_END),
    Pair("pdrs.floor", 3, ONE_END),
    Pair("pdrs.margin", 1, ONE_END),
    Pair("pdrs.floor_holds_margin", True, ONE_END, (("pdrs.rho_shared", 0.1), ("pdrs.floor", 3), ("pdrs.margin", 1))),
    Pair("pdrs.free_epochs", 0, Moment(2), FREE),
    Pair("pdrs.rho_shared", 0.4, LAST_END, (("method", "dora"),)),
    Pair("pdrs.free_epochs", 1, LAST_END, (("method", "dora"),)),
    Pair("optim.min_lr", 1e-4, Moment(1), (("optim.warmup_steps", 3),)),
    Pair("optim.min_lr", 1e-4, Moment(1), (("optim.warmup_steps", None), ("optim.warmup_epochs", 1.4))),
    Pair("optim.epochs", 4, Moment(1), (("optim.warmup_steps", 4),)),
    Pair("optim.epochs", 2, Moment(1, at_end=True), FLAT),
    Pair("optim.epochs", 4, Moment(2), (("method", "pdrs_dora"), *FREE, *FLAT[1:])),
    Pair("ranks.kind", "pdrs", Moment(0), (("method", "dora"),)),
    Pair("ranks.kind", "spectral", ONE_END, (("method", "dora"), ("ranks.budget", 0.6), ("spectral.cut_epoch", 1))),
    Pair("ranks.budget", 0.7, ONE_END, CUT),
    Pair("spectral.cut_epoch", 2, ONE_END, CUT),
    Pair("spectral.rotation", "plain", ONE_END, CUT),
    Pair("spectral.score_batches", 3, ONE_END, CUT),
    Pair("spectral.floor", 2, ONE_END, CUT),
    Pair("spectral.rotation", "plain", LAST_END, (("method", "dora"),)),
    Pair("pdrs.basis", "spectral", ONE_END, (("spectral.score_batches", 2),)),
)
FROM_THE_START: dict[str, dict[str, Any]] = {
    "adalora": {
        "alpha": 8.0, "target_rank": 2.0, "t_init": 0.2, "t_final": 0.3, "delta_t": 2, "orthogonality": 0.2,
        "beta1": 0.5, "beta2": 0.5,
    },
    "dylora": {"alpha": 8.0, "rank": 2, "frozen": False},
}  # fmt: skip
"""Keys that matter from the start under their own policy and never under another one; other values than the usual."""
OTHERS: dict[str, Any] = {f"{kind}.{key}": value for kind, of in FROM_THE_START.items() for key, value in of.items()}
OTHERS["dylora.curve"] = [2]
Trained = Callable[[TrialConfig], tuple[Path, str, list[EpochRecord]]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Trains a config once."""
    folder = tmp_path_factory.mktemp("moments")

    @cache
    def training(json: str) -> tuple[Path, str, list[EpochRecord]]:
        name = f"t{training.cache_info().misses}"
        records, _ = train(spec(folder, name, TrialConfig.model_validate_json(json), test=False))
        return folder, name, records

    return lambda trial: training(trial.model_dump_json())


def train_metrics(record: EpochRecord) -> dict[str, float]:
    return {name: v for name, v in timeless([record])[0].metrics.items() if name.startswith(TRAINED)}


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair.key}-{dict(pair.base).get('method', '')}")
def test_trainings_are_equal_up_to_the_declared_moment_and_not_beyond(pair: Pair, trained: Trained) -> None:
    a, b = pair.configs
    assert differing(a, b) == [pair.key]
    assert shared_until(a, b) == pair.shared
    folder, one, ours = trained(a)
    _, other, theirs = trained(b)

    whole = pair.shared.epoch
    as_ours = [trace_of(record, pair.key) for record in timeless(ours[:whole])]
    assert as_ours == [trace_of(record, pair.key) for record in timeless(theirs[:whole])]
    for epochs in range(1, whole + 1):
        assert unequal(tensors(folder, one, epochs), tensors(folder, other, epochs)) == []
    if pair.shared.at_end:
        assert train_metrics(ours[whole]) == train_metrics(theirs[whole])

    matters = min(moment_of(pair.key, a), moment_of(pair.key, b)) != NEVER
    last = min(len(ours), len(theirs))
    same_end = not unequal(tensors(folder, one, last), tensors(folder, other, last)) and len(ours) == len(theirs)
    assert same_end != matters


def trace_of(record: EpochRecord, key: str) -> Any:
    """A record without the scope under which ranks will be decided, which a fork puts in itself."""
    rows = [(row.rank, row.rho, row.importance, row.coverage, row.unobserved) for row in record.ranks]
    return (record.metrics, rows if key == "pdrs.scope" else record.ranks)


def test_every_declared_key_is_proved_and_every_other_matters_from_the_start() -> None:
    declared = {key for key, moment in config_keys().items() if moment is not None}
    assert declared == {pair.key for pair in PAIRS} | OTHERS.keys()
    plain = config()
    for key in config_keys().keys() - declared:
        assert moment_of(key, plain) == Moment(0)


def test_sections_of_policies_that_are_not_at_hand_change_nothing(trained: Trained) -> None:
    plain = config({"method": "dora"})
    other = TrialConfig.resolve(plain.model_dump(mode="json"), **OTHERS)
    assert set(differing(plain, other)) == OTHERS.keys()
    assert shared_until(plain, other) == LAST_END
    (folder, one, ours), (_, two, theirs) = trained(plain), trained(other)
    assert timeless(ours) == timeless(theirs)
    assert unequal(tensors(folder, one, 3), tensors(folder, two, 3)) == []


@pytest.mark.parametrize("kind", FROM_THE_START)
def test_under_its_own_policy_a_section_matters_from_the_start(kind: str) -> None:
    at_hand = config({"method": kind})
    for key in FROM_THE_START[kind]:
        assert moment_of(f"{kind}.{key}", at_hand) == Moment(0)
    if kind == "dylora":  # only evaluated
        assert moment_of("dylora.curve", at_hand) == LAST_END


def test_keys_are_all_of_the_config() -> None:
    plain = TrialConfig.resolve({})
    assert set(plain.dotted()) <= set(config_keys()) | {"data.definitions"}
    assert "data.augment.flip" in config_keys()
    assert "seed" in config_keys()


def test_a_policy_of_other_code_shares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from faar_ray.config.registries import PolicyEntry

    monkeypatch.setitem(RANK_POLICIES, "own", PolicyEntry("faar_ray.ranks.policy:build_fixed"))
    ours = {"ranks.kind": "own"}
    for key, value in (("pdrs.rho_shared", 0.2), ("ranks.kind", "fixed"), ("optim.epochs", 4)):
        assert shared_until(config(ours), config({**ours, key: value})) == Moment(0)


def test_with_a_number_of_steps_that_only_the_files_know_the_schedule_matters_from_the_start() -> None:
    photographs = {"data.name": "nyud", "data.root": "NYUD", "optim.warmup_steps": 1000}
    assert shared_until(config(photographs), config({**photographs, "optim.min_lr": 1e-5})) == Moment(0)
