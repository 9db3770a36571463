"""What a fork's records of inherited epochs would be, had its own rank policy made them.

Before the first decision PDRS only records its scores, which depend on beta, and under which scope it would decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from faar_ray.config.registries import load_builder
from faar_ray.config.trial import TrialConfig
from faar_ray.records import EpochRecord


def inherited_records(
    config: TrialConfig, state: Mapping[str, Any], records: Sequence[EpochRecord]
) -> list[EpochRecord]:
    """Records of a parent's epochs, as the fork itself would have made them.

    Args:
        config: of the fork.
        state: of the parent's policy, after these epochs.
        records: of the parent.
    """
    inherit = config.ranks.entry.inherit
    return list(records if inherit is None else load_builder(inherit)(config, state, records))


def inherited_scores(
    config: TrialConfig, state: Mapping[str, Any], records: Sequence[EpochRecord]
) -> list[EpochRecord]:
    """Of PDRS: under the fork's scope, and with the scores under its beta where the parent carried them."""
    carried = carried_scores(state, config.pdrs.beta)
    logged = [] if carried is None else carried["logged"]
    return [_under(config, record, logged[i] if i < len(logged) else ()) for i, record in enumerate(records)]


def carried_scores(state: Mapping[str, Any], beta: float) -> Mapping[str, Any] | None:
    """The scores under another beta in a policy's state, `{"beta", "ema", "logged"}`; None where it has none."""
    return next((scores for scores in state.get("carried", ()) if scores["beta"] == beta), None)


def _under(config: TrialConfig, record: EpochRecord, logged: Sequence[tuple[float, ...]]) -> EpochRecord:
    rows = [replace(row, scope=config.pdrs.scope) for row in record.ranks]
    if logged:
        rows = [replace(row, importance=scores) for row, scores in zip(rows, logged, strict=True)]
    return replace(record, ranks=tuple(rows))
