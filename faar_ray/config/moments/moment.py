"""From when on a key of a trial's config matters: before it, trainings that differ in the key alone are bit-equal.

A key declares it beside its type (`Annotated[..., MattersFrom(function of the config)]`); what declares nothing matters
from the start. The functions here are those that keys declare; `sharing` compares whole configs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, order=True)
class Moment:
    """Before the training of an epoch (0-based), or `at_end`: after it, where its end begins.

    The end of an epoch is the rank policy's decision, then the evaluation and the records.
    """

    epoch: int
    at_end: bool = False

    @property
    def inherited(self) -> int:
        """Epochs whose training lies before it: those that a fork from here takes over."""
        return self.epoch + int(self.at_end)

    def __str__(self) -> str:
        return f"{'the end' if self.at_end else 'the start'} of epoch {self.epoch}"


START, NEVER = Moment(0), Moment(sys.maxsize)
MomentOf = Callable[[Any], Moment]
"""Of a TrialConfig, which is checked."""


@dataclass(frozen=True, slots=True)
class MattersFrom:
    """Metadata of a key."""

    moment: MomentOf


def never(config: Any) -> Moment:
    """Of a key that only gives other keys their defaults."""
    return NEVER


def last_end(config: Any) -> Moment:
    """The end of the last epoch."""
    return Moment(config.optim.epochs - 1, at_end=True)


def first_decision(config: Any) -> Moment:
    """Where the rank policy first changes the ranks or the weights."""
    epoch = config.ranks.entry.first_decision(config)
    return NEVER if epoch is None else Moment(epoch, at_end=True)


def of_policy(config: Any) -> Moment:
    """`ranks.kind`: the first decision, of a policy that leaves the training alone until then."""
    return first_decision(config) if config.ranks.entry.silent else START


def read_by_policy(section: str, moment: MomentOf) -> MomentOf:
    """Of a key in a section of rank policies: never where the policy at hand does not read the section."""

    def of_key(config: Any) -> Moment:
        reads = config.ranks.entry.reads
        if reads is None:  # a policy of other code
            return START
        return moment(config) if section in reads else NEVER

    return of_key


def first_free_epoch(config: Any) -> Moment:
    """The first epoch without masks."""
    return Moment(config.optim.epochs - config.pdrs.free_epochs)


def after_warmup(config: Any) -> Moment:
    """The first epoch with steps behind the warm-up; the start where the number of steps depends on files."""
    optim = config.optim
    if optim.warmup_epochs is not None:
        return Moment(int(optim.warmup_epochs))
    if config.data.name != "scenes":
        return START
    return Moment((optim.warmup_steps or 0) // -(-config.data.train_images // optim.batch_size))


def number_of_epochs(config: Any) -> Moment:
    """`optim.epochs`: where the cosine or the rank policy first depends on it."""
    optim, kind = config.optim, config.ranks.entry
    rates = (optim.lr, optim.decoder_lr or optim.lr, optim.backbone_lr or optim.lr)
    schedule = last_end(config) if all(rate == optim.min_lr for rate in rates) else after_warmup(config)
    if kind.reads is None or kind.plans:
        return START
    return min(schedule, first_free_epoch(config)) if "pdrs" in kind.reads else schedule
