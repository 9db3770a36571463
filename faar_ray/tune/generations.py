"""The generations of a population, over the journal: who waits for whom, and what was decided.

Every trial trains to the next boundary and waits there, without a machine. When all that live have come, it is decided
who is replaced by a copy of whom; the decision is one line of the journal, written before anything follows from it.
Whatever a killed driver had not done of it is done by the next one. Without a population there are no boundaries, and
nobody waits.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from faar_ray.records import TrialResult
from faar_ray.tune import journal
from faar_ray.tune.jobs import trial_name
from faar_ray.tune.population import Copy, boundaries, copies
from faar_ray.tune.sampling import from_optuna, to_optuna
from faar_ray.tune.space import SearchSpace

WAITS = "waits"
"""What a trial would end as if it never went on: its result so far, as a row."""
INHERITED = "inherited_epochs"
DECISION = "generation/"


class Generations:
    """Of one search.

    Args:
        space: the search space.
        study: its journal.
    """

    def __init__(self, space: SearchSpace, study: optuna.Study) -> None:
        self.space, self.study = space, study
        epochs = space.trial_config({}).optim.epochs
        self._boundaries = boundaries(space.scheduler, epochs) if space.scheduler.type == "pbt" else range(0)

    def boundary(self) -> int | None:
        """Finished epochs after which a trial waits now; None where it trains to its end."""
        own = journal.own(self.study)
        if not self._boundaries or len(own) >= self.space.budget.trials:
            return None
        decided = {at for at, _ in self._decisions()}
        lead = max((_epochs(trial) for trial in own if trial.state == TrialState.RUNNING), default=0)
        return next((at for at in self._boundaries if at >= lead and at not in decided), None)

    def ready(self, left: Sequence[int]) -> list[int]:
        """Those of the trials without a machine that may go on: all but who waits for others, and parents whose copies
        have not got their checkpoint yet."""
        if not self._boundaries:
            return list(left)
        boundary, trials = self.boundary(), journal.trials(self.study)
        giving = {
            trial.user_attrs.get(journal.PARENT)
            for trial in trials
            if not trial.state.is_finished() and not _epochs(trial)
        }
        return [
            number
            for number in left
            if not _waits(trials[number], boundary) and trials[number].user_attrs.get("trial_id", "") not in giving
        ]

    def turn(self) -> None:
        """Where the whole population has come to its boundary: decide, and let the copies take their places."""
        boundary = self.boundary()
        if boundary is not None and self._all_wait(boundary):
            chosen = [dataclasses.asdict(copy) for copy in self._chosen()]
            self.study.set_user_attr(f"{DECISION}{boundary:04d}", chosen)
        for at, decided in self._decisions():
            for copy in decided:
                if copy.heir >= len(journal.trials(self.study)):
                    self._enrol(copy, at)

    def over(self, left: Sequence[int], halt: str = "") -> Iterator[tuple[int, TrialResult]]:
        """Trials without a machine that end now: whose place is taken; all that wait where the search is to `halt`."""
        if not self._boundaries:
            return
        taken = {copy.loser: self._words(copy, at) for at, decided in self._decisions() for copy in decided}
        for number in left:
            trial = journal.trials(self.study)[number]
            reason = taken.get(number) or (halt if _waits(trial, _epochs(trial)) else "")
            if reason:
                so_far = journal.result_of(trial.user_attrs[WAITS])
                yield number, dataclasses.replace(so_far, state="PRUNED", reason=reason)

    def _all_wait(self, boundary: int) -> bool:
        own = journal.own(self.study)
        live = [trial for trial in own if not trial.state.is_finished()]
        whole = len(own) >= self.space.scheduler.population and bool(live)
        return whole and all(_waits(trial, boundary) for trial in live)

    def _chosen(self) -> list[Copy]:
        own, scheduler = journal.own(self.study), self.space.scheduler
        params = {trial.number: from_optuna(self.space.parameters, trial.params) for trial in own}
        sign = 1 if self.space.goal(scheduler.metric) == "maximize" else -1
        return copies(
            {trial.number: sign * self._metric(trial) for trial in own if not trial.state.is_finished()},
            params,
            self.space.parameters,
            quantile=scheduler.quantile,
            seed=self.space.search.seed,
            first=len(journal.trials(self.study)),
            room=self.space.budget.trials - len(own),
            had=list(params.values()),
        )

    def _enrol(self, copy: Copy, boundary: int) -> None:
        parent = journal.trials(self.study)[copy.parent].user_attrs
        facts = {"config_number": copy.heir, "seed": parent["seed"]}
        facts |= {journal.PARENT: parent["trial_id"], INHERITED: boundary}
        self.study.enqueue_trial(to_optuna(self.space.parameters, copy.params), user_attrs=facts)

    def _metric(self, trial: FrozenTrial) -> float:
        return float(trial.user_attrs[WAITS]["metrics"].get(self.space.scheduler.metric, math.nan))

    def _words(self, copy: Copy, boundary: int) -> str:
        loser, parent = (journal.trials(self.study)[number] for number in (copy.loser, copy.parent))
        metric, heir = self.space.scheduler.metric, trial_name(copy.heir, parent.user_attrs["seed"])
        values = [
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in copy.params.items()
        ]
        return (
            f"{metric} {self._metric(loser):.4g} after {boundary} epochs, replaced by {heir}, "
            f"a copy of {parent.user_attrs['trial_id']} with {', '.join(values)}"
        )

    def _decisions(self) -> list[tuple[int, list[Copy]]]:
        """Each boundary and what was decided there, in the order of time."""
        attrs = self.study.user_attrs
        made = sorted(name for name in attrs if name.startswith(DECISION))
        return [(int(name.removeprefix(DECISION)), [Copy(**row) for row in attrs[name]]) for name in made]


def _epochs(trial: FrozenTrial) -> int:
    """Finished epochs that the journal has."""
    return sum(1 for name in trial.user_attrs if name.startswith(journal.EPOCH))


def _waits(trial: FrozenTrial, boundary: int | None) -> bool:
    row: dict[str, Any] = trial.user_attrs.get(WAITS, {})
    return boundary is not None and row.get("epochs") == boundary
