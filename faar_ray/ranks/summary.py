"""Aggregates of the ranks and sine weights at hand, under their MLflow names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import isfinite
from statistics import fmean

from faar_ray.adapters import LowRankFactors
from faar_ray.records import SineRecord


def rank_metrics(adapters: Iterable[LowRankFactors]) -> dict[str, float]:
    """`rank/mean` over adapters, `rank/weighted_mean` by parameters per rank (I + O), and means by task and stage.

    The published r_global of about 5 fits the plain mean, not the weighted one (METHODS, PDRS 9): both are here.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    weighted = weights = 0
    for adapter in adapters:
        for group in ("mean", adapter.site.task, f"stage{adapter.site.stage}"):
            groups[group].append(adapter.rank)
        per_rank = sum(factor.shape[1] for factor in adapter.factors)
        weighted += per_rank * adapter.rank
        weights += per_rank
    means = {f"rank/{group}": sum(ranks) / len(ranks) for group, ranks in groups.items()}
    return means | ({"rank/weighted_mean": weighted / weights} if weights else {})


def sine_metrics(records: Sequence[SineRecord]) -> dict[str, float]:
    """`clock/omega/<task>` and `sine/...`: means over layers and tasks of one epoch's records.

    What is None or not finite does not count; a name without any value is left out.
    """
    groups: dict[str, list[float | None]] = defaultdict(list)
    for r in records:
        groups[f"clock/omega/{r.task}"].append(r.omega)
        groups["sine/cosine"].append(r.cosine)
        groups["sine/gradient_cosine"].append(r.gradient_cosine)
        groups["sine/effective_rank"].append(r.effective_rank_task)
        groups["sine/effective_rank_base"].append(r.effective_rank)
        groups["sine/omega_std/mean"].append(r.omega_std)
        groups["sine/mean"].append(r.mean)
        groups["sine/skew"].append(r.skew)
    finite = {name: [x for x in values if x is not None and isfinite(x)] for name, values in groups.items()}
    means = {name: fmean(values) for name, values in finite.items() if values}
    spread = finite.get("sine/omega_std/mean")
    return means | ({"sine/omega_std/min": min(spread), "sine/omega_std/max": max(spread)} if spread else {})
