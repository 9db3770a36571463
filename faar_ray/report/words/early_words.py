"""The sentences about how well early order told the final one."""

from __future__ import annotations

import math
from collections.abc import Iterator

from faar_ray.report.statistics.early_order import FEWEST, EarlyOrder, EpochOrder
from faar_ray.report.words.wording import label

ENOUGH = 0.9
"""Correlation from which on early order is called the final one."""


def early_sentences(order: EarlyOrder) -> Iterator[str]:
    """The correlations a third and two thirds of the way and before the last epoch, and from when on they are high."""
    if not order.orders:
        what = "trial" if order.trials == 1 else "trials"
        yield f"Not enough trials to tell: {order.trials} complete {what}, at least {FEWEST} are needed."
        return

    third = order.epochs / 3
    shown = dict.fromkeys(min(max(1, round(at)), order.epochs - 1) for at in (third, 2 * third, order.epochs - 1))
    parts = [f"{_correlation(order, of)} after epoch {of.finished}" for of in order.orders if of.finished in shown]
    both = " over all (and within a seed)" if order.is_paired else ""
    yield (
        f"Rank correlation of {label(order.metric)} with its final value{both}, {order.trials} complete trials of "
        f"{order.epochs} epochs: {', '.join(parts)}."
    )
    yield _verdict(order)


def decisive(order: EarlyOrder, of: EpochOrder) -> float:
    """The correlation that matters for early stopping: within a seed, where there are several."""
    return of.within if order.is_paired else of.overall


def _verdict(order: EarlyOrder) -> str:
    where = " within a seed" if order.is_paired else ""
    first = order.epochs
    for of in reversed(order.orders):
        if not decisive(order, of) >= ENOUGH:
            break
        first = of.finished
    if first == order.epochs:
        return f"Before the last epoch it never stays at {ENOUGH:g} or more{where}: early stopping would have guessed."
    return f"From epoch {first} on it is at least {ENOUGH:g}{where}: from there the order was nearly the final one."


def _correlation(order: EarlyOrder, of: EpochOrder) -> str:
    overall, within = (_number(value) for value in (of.overall, of.within))
    return f"{overall} ({within})" if order.is_paired else overall


def _number(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value + 0.0:.2f}"
