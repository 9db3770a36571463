"""The rank policy of docs/extending.md: a loss term, an act after the step, a mask that is no prefix, a column."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from faar_ray.config.trial import TrialConfig

Guide = Callable[[str], dict[str, Any]]


def test_a_trial_trains_with_the_policy_of_the_guide_and_its_column_is_in_every_record(
    guide: Guide, train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = guide("A rank policy")["GroupLasso"]
    calls: list[str] = []
    for name in ("sample_mask", "loss_term", "after_step", "end_epoch"):

        def counted(*args: Any, name: str = name, method: Any = getattr(policy, name)) -> Any:
            calls.append(name)
            return method(*args)

        monkeypatch.setattr(policy, name, counted)
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
    monkeypatch.setattr(policy, "strength", 1e3)
    (pulled,) = train(**{"ranks.kind": "group_lasso", "optim.epochs": 1})
    assert max(max(row.importance) for row in pulled.ranks) < 0.1


def test_it_is_refused_where_there_are_no_adapters(guide: Guide) -> None:
    guide("A rank policy")
    with pytest.raises(ValueError, match=r"ranks\.kind: must be fixed where adapter\.kind is none, got 'group_lasso'"):
        TrialConfig.resolve({"adapter": {"kind": "none"}, "ranks": {"kind": "group_lasso"}})
