"""The rank policy of docs/extending.md: a loss term, an act after the step, a mask that is no prefix, a column."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from faar_ray.config.trial import TrialConfig

Guide = Callable[[str], dict[str, Any]]


def counted(method: Any, calls: list[str]) -> Any:
    def call(*args: Any) -> Any:
        calls.append(method.__name__)
        return method(*args)

    return call


def test_a_trial_trains_with_the_policy_of_the_guide_and_its_column_is_in_every_record(
    guide: Guide, train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = guide("A rank policy")["GroupLasso"]
    calls: list[str] = []
    for name in ("sample_mask", "loss_term", "after_step", "end_epoch"):
        monkeypatch.setattr(policy, name, counted(getattr(policy, name), calls))
    monkeypatch.setattr(policy, "threshold", 1e-2)
    records = train(**{"ranks.kind": "group_lasso", "adapter.kind": "lora"})

    step = ["sample_mask", "loss_term", "after_step"]
    assert calls == [*step, *step, "end_epoch"] * 2
    rows = [row for record in records for row in record.ranks]
    assert all(row.extra == {"zeros": row.rank_before - row.rank} for row in rows)
    assert any(row.extra["zeros"] for row in rows)


def test_a_stronger_term_leaves_smaller_factors(
    guide: Guide, train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = guide("A rank policy")["GroupLasso"]
    norms = []
    for strength in (0.0, 10.0):
        monkeypatch.setattr(policy, "strength", strength)
        (record,) = train(**{"ranks.kind": "group_lasso", "optim.epochs": 1})
        norms.append(sum(sum(row.importance) for row in record.ranks))
    assert norms[1] < 0.8 * norms[0]


def test_it_is_refused_where_there_are_no_adapters(guide: Guide) -> None:
    guide("A rank policy")
    with pytest.raises(ValueError, match=r"ranks\.kind: must be fixed where adapter\.kind is none, got 'group_lasso'"):
        TrialConfig.resolve({"adapter": {"kind": "none"}, "ranks": {"kind": "group_lasso"}})
