"""The population of a search with `scheduler: pbt`, as the journal has it: who waits, who is replaced, who goes on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from faar_ray.records import TrialResult
from faar_ray.tune.propose import journal
from faar_ray.tune.propose.distributions import from_optuna, to_optuna
from faar_ray.tune.propose.exploit import Exploit, boundaries, choose_exploits
from faar_ray.tune.propose.trial_record import CONFIG_NUMBER, INHERITED, PARENT, SEED, TrialRecord
from faar_ray.tune.run.jobs import format_params, trial_name
from faar_ray.tune.space.space import SearchSpace

DECISION = "generation/"
"""With the boundary: the exploits that were decided there, in the study's user attributes."""


class PopulationState:
    """The population of one search; of a search without one, every method gives nothing.

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
        trials = journal.own(self.study)
        if not self._boundaries or len(trials) >= self.space.budget.trials:
            return None

        decided = {at for at, _ in self._decisions()}
        running = (len(TrialRecord(trial).epochs) for trial in trials if trial.state == TrialState.RUNNING)
        most_epochs = max(running, default=0)
        return next((at for at in self._boundaries if at >= most_epochs and at not in decided), None)

    def runnable(self, idle: Sequence[int]) -> list[int]:
        """Which of the open trials without a machine may go on.

        Not those that wait at the boundary, nor parents whose copies have not taken over their checkpoint yet.
        """
        if not self._boundaries:
            return list(idle)

        boundary, trials = self.boundary(), journal.trials(self.study)
        records = [TrialRecord(trial) for trial in trials if not trial.state.is_finished()]
        needed = {record.parent for record in records if record.parent and not record.epochs}
        return [
            number
            for number in idle
            if not _waits(trials[number], boundary) and TrialRecord(trials[number]).trial_id not in needed
        ]

    def decide_exploits(self) -> None:
        """Where all of the population waits at the boundary: decide, and enqueue the copies."""
        boundary = self.boundary()
        if boundary is not None and self._all_wait(boundary):
            chosen = [dataclasses.asdict(exploit) for exploit in self._chosen()]
            self.study.set_user_attr(f"{DECISION}{boundary:04d}", chosen)

        for at, exploits in self._decisions():
            for exploit in exploits:
                if exploit.child >= len(journal.trials(self.study)):
                    self._enqueue_child(exploit, at)

    def ended_waiting(self, idle: Sequence[int], halt: str = "") -> Iterator[tuple[int, TrialResult]]:
        """The open trials without a machine that end now: those replaced, or all that wait where there is a `halt`."""
        if not self._boundaries:
            return

        replaced = {
            exploit.replaced: self._format_reason(exploit, at) for at, many in self._decisions() for exploit in many
        }
        for number in idle:
            record = TrialRecord(journal.trials(self.study)[number])
            reason = replaced.get(number) or (halt if _waits(record.trial, len(record.epochs)) else "")
            if reason and record.waiting is not None:
                yield number, dataclasses.replace(record.waiting, state="PRUNED", reason=reason)

    def _all_wait(self, boundary: int) -> bool:
        trials = journal.own(self.study)
        live = [trial for trial in trials if not trial.state.is_finished()]
        complete = len(trials) >= self.space.scheduler.population and bool(live)
        return complete and all(_waits(trial, boundary) for trial in live)

    def _chosen(self) -> list[Exploit]:
        trials, scheduler = journal.own(self.study), self.space.scheduler
        params = {trial.number: from_optuna(self.space.parameters, trial.params) for trial in trials}
        sign = 1 if self.space.goal(scheduler.metric) == "maximize" else -1
        return choose_exploits(
            {trial.number: sign * self._metric(trial) for trial in trials if not trial.state.is_finished()},
            params,
            self.space.parameters,
            quantile=scheduler.quantile,
            seed=self.space.search.seed,
            first_child=len(journal.trials(self.study)),
            max_children=self.space.budget.trials - len(trials),
            used=list(params.values()),
            keep=self.space.related.keep,
        )

    def _enqueue_child(self, exploit: Exploit, boundary: int) -> None:
        parent = TrialRecord(journal.trials(self.study)[exploit.parent])
        attrs = {CONFIG_NUMBER: exploit.child, SEED: parent.seed, PARENT: parent.trial_id, INHERITED: boundary}
        self.study.enqueue_trial(to_optuna(self.space.parameters, exploit.params), user_attrs=attrs)

    def _metric(self, trial: FrozenTrial) -> float:
        result = TrialRecord(trial).waiting
        return math.nan if result is None else float(result.metrics.get(self.space.scheduler.metric, math.nan))

    def _format_reason(self, exploit: Exploit, boundary: int) -> str:
        replaced, parent = (journal.trials(self.study)[number] for number in (exploit.replaced, exploit.parent))
        child = trial_name(exploit.child, TrialRecord(parent).seed or 0)
        return (
            f"{self.space.scheduler.metric} {self._metric(replaced):.4g} after {boundary} epochs, replaced by {child}, "
            f"a copy of {TrialRecord(parent).trial_id} with {format_params(exploit.params.items())}"
        )

    def _decisions(self) -> list[tuple[int, list[Exploit]]]:
        """Each boundary and its exploits, in the order of time."""
        attrs = self.study.user_attrs
        names = sorted(name for name in attrs if name.startswith(DECISION))
        return [(int(name.removeprefix(DECISION)), [Exploit(**row) for row in attrs[name]]) for name in names]


def _waits(trial: FrozenTrial | optuna.Trial, boundary: int | None) -> bool:
    result = TrialRecord(trial).waiting
    return boundary is not None and result is not None and result.epochs == boundary
