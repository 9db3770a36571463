"""What is tried next, over Optuna's ask and tell; a trial of the study is one (config, seed).

Order: trials that a killed driver left RUNNING or that waited for their population, then copies that take a place in a
population, then the first points (priors, warm start), then the sampler's until the exploration is done, then the
leading configurations on further seeds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial

import optuna
from optuna.trial import FrozenTrial, TrialState

from faar_ray.config.trial import TrialConfig, config_id
from faar_ray.objectives.constraint import feasible
from faar_ray.records import State, TrialResult, row_of
from faar_ray.report.progress import TRIAL_ID
from faar_ray.tune.propose import journal
from faar_ray.tune.propose.ask import LaggedStudy, needs_results, sampler_of
from faar_ray.tune.propose.distributions import from_optuna, to_optuna
from faar_ray.tune.propose.journal_file import transaction
from faar_ray.tune.propose.patience import most_in_vain
from faar_ray.tune.propose.points import PointState
from faar_ray.tune.propose.population import PopulationState
from faar_ray.tune.propose.related_draws import draw_related
from faar_ray.tune.propose.replicates import leading
from faar_ray.tune.propose.trial_record import (
    CONFIG_ID,
    CONFIG_NUMBER,
    EPOCH,
    REPLICATE,
    SEED,
    STOP_REASON,
    WAITS,
    TrialRecord,
)
from faar_ray.tune.run.jobs import Job, trial_name
from faar_ray.tune.space.front import fork_epochs
from faar_ray.tune.space.initial_points import active_parameters
from faar_ray.tune.space.space import Scalar, SearchSpace

OPTUNA_STATES = {"COMPLETE": TrialState.COMPLETE, "PRUNED": TrialState.PRUNED, "FAIL": TrialState.FAIL}


class Proposer:
    """Proposes trials and records their results; all state is in the journal.

    Args:
        space: the search space.
        study: its journal, opened; trials of an older run stand first in it (see `warm_start`).
    """

    def __init__(self, space: SearchSpace, study: optuna.Study) -> None:
        self.space, self.study = space, study
        self.base_seed = space.trial_config({}).seed
        self._points = space.planned()
        self._older = journal.older(study)
        self._population = PopulationState(space, study)
        self.points = PointState(space, study)
        ended = [trial for trial in journal.own(study) if space.front and trial.state.is_finished()]
        self.closed_trunks = [TrialRecord(trial).trial_id for trial in ended]
        """Trunks of which no point is left, until someone takes them out."""
        self._live: dict[int, optuna.Trial] = {}
        self._idle = [trial.number for trial in journal.trials(study, TrialState.RUNNING)]
        """Open trials that have no machine."""
        self._close_journalled_results()

    def explored(self) -> int:
        """How many configurations the search draws: the budget without the replicates' trials, or a population."""
        replicates, trials = self.space.search.replicates, self.space.budget.trials
        if self.space.search.listed:
            return min(trials, len(self._points))
        if self.space.scheduler.type == "pbt":
            return self.space.scheduler.population
        most = trials - replicates.top * (replicates.seeds - 1) if replicates else trials
        return min(most, len(self._explored_trials())) if self.ended_early() else most

    def ended_early(self) -> str:
        """That `budget.patience` ended the exploration, as a sentence; "" where it has not.

        Trials are judged in the order of their numbers, up to the first that has not ended, and with `search.lag` only
        those whose results the next proposal may use: the same trials, however fast the machines are.
        """
        patience, lag = self.space.budget.patience, self.space.search.lag or 1
        if patience is None:
            return ""
        trials = self._explored_trials()
        seen = itertools.takewhile(lambda t: t.state.is_finished(), trials[: len(trials) - lag + 1])
        results = [result for trial in seen if (result := TrialRecord(trial).result) is not None]
        limits = () if self.space.front else self.space.limits  # values of whole fronts keep them
        if most_in_vain(results, self.space.study_objectives, limits) < patience:
            return ""
        goals = self.space.study_objectives
        what = goals[0].name if len(goals) == 1 else "the Pareto front"
        return f"budget.patience {patience} was reached: so many trials in a row did not improve {what}"

    def _explored_trials(self) -> list[FrozenTrial]:
        return [trial for trial in journal.own(self.study) if not TrialRecord(trial).is_replicate]

    def next_job(self) -> Job | None:
        """The next trial; None when nothing can be proposed now (see `finished`)."""
        with transaction(self.study):
            return self.points.next_job() or self._resumed_job() or self._new_job()

    def exploring(self) -> bool:
        """Whether trials of the exploration are still running or to be drawn (replicates wait for them)."""
        trials = self._explored_trials()
        return len(trials) < self.explored() or any(not trial.state.is_finished() for trial in trials)

    def finished(self) -> bool:
        """Whether nothing will be proposed any more."""
        open_trials = self._idle or journal.trials(self.study, TrialState.WAITING) or self.points.unfinished()
        if open_trials or self.exploring():
            return False
        return not self.replicates_due(journal.own(self.study))

    def wait(self, result: TrialResult, number: int) -> None:
        """A trial waits for its population: keep its result so far, and hand it out again later."""
        self._live.pop(number).set_user_attr(WAITS, row_of(result))
        self._idle.append(number)

    def advance_population(self, halt: str = "") -> list[tuple[int, TrialResult]]:
        """Decide where the whole population waits, unless the search is to `halt`; which waiting trials end now."""
        with transaction(self.study):
            if not halt:
                self._population.decide_exploits()
            return list(self._population.ended_waiting(self._idle, halt))

    def tell(self, result: TrialResult, number: int) -> TrialResult:
        """Close a trial as COMPLETE with its objectives, PRUNED or FAIL; a non-finite objective is a FAIL.

        A trunk's is closed when the last of its points has ended (`tell_point`).
        """
        with transaction(self.study):
            result = journal.with_finite(result, self.space.objectives)
            if number in self._idle:
                self._idle.remove(number)
            trial = self._live.pop(number, None) or journal.live(self.study, number)
            journal.keep_result(self.study, result, trial)
            if self.space.front is None:
                self._close(result, trial)
            else:
                self.points.trunk_ended(self._job(number), result)
                self._close_trunks()
            return result

    def tell_point(self, result: TrialResult, trunk: int) -> TrialResult:
        """Write down how a point of a trunk ended."""
        with transaction(self.study):
            result = journal.with_finite(result, self.space.objectives)
            self.points.ended(result, trunk)
            self._close_trunks()
            return result

    def epoch(self, number: int, epoch: int, metrics: Sequence[float], stop_reason: str = "") -> None:
        """Keep what the stopping rule looks at of one epoch, and the reason where it is the trial's last.

        User attributes hold it: Optuna takes no intermediate values for several objectives.
        """
        with transaction(self.study):
            trial = self._live[number]
            if stop_reason:
                trial.set_user_attr(STOP_REASON, stop_reason)
            if len(self.space.objectives) == 1 and math.isfinite(metrics[0]):
                trial.report(metrics[0], epoch)
            row = [value if math.isfinite(value) else None for value in metrics]
            trial.set_user_attr(f"{EPOCH}{epoch:04d}", row[0] if len(row) == 1 else row)

    def trial_id_of(self, number: int) -> str:
        """The id of a trial."""
        return TrialRecord(journal.trials(self.study)[number]).trial_id

    def stopped_for(self, number: int) -> str:
        """Why a trial was stopped whose driver was killed before the trial ended; "" for none."""
        return TrialRecord(journal.trials(self.study)[number]).stop_reason

    def history(self) -> dict[int, list[list[float]]]:
        """What the stopping rule looked at, by trial number and epoch, of trials that may stop early."""
        records = map(TrialRecord, journal.own(self.study))
        return {record.trial.number: record.epochs for record in records if record.trial_id and not record.is_replicate}

    def complete(self) -> dict[int, TrialResult]:
        """The results of complete trials that might have been stopped early, by trial number."""
        records = map(TrialRecord, journal.own(self.study, TrialState.COMPLETE))
        results = {record.trial.number: record.result for record in records if not record.is_replicate}
        return {number: result for number, result in results.items() if result is not None}

    def config_of(self, number: int) -> TrialConfig:
        """The config of a trial."""
        trial = journal.trials(self.study)[number]
        return self._config(from_optuna(self.space.parameters, trial.params), TrialRecord(trial).seed)

    def results(self) -> list[TrialResult]:
        """All jobs that ended."""
        return journal.results(self.study)

    def counts(self) -> dict[str, int]:
        """Trials of the study by how they ended."""
        results = [result for trial in journal.own(self.study) if (result := TrialRecord(trial).result) is not None]
        ended = [result.state for result in results]
        names: dict[str, State] = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
        return {name: ended.count(state) for name, state in names.items()}

    def feasible(self, result: TrialResult) -> bool:
        """Whether a result satisfies all constraints; without the metric it does not."""
        return feasible(result.metrics, self.space.limits)

    def leaders(self) -> list[TrialResult]:
        """The configurations that replicates are for."""
        replicates = self.space.search.replicates
        complete = map(TrialRecord, journal.own(self.study, TrialState.COMPLETE))
        explored = [record for record in complete if not record.is_replicate]
        unique = {record.config_id: record for record in reversed(explored)}.values()
        in_order = sorted(unique, key=lambda record: record.trial.number)
        finished = [record.result for record in in_order if record.result is not None]
        goals = self.space.study_objectives
        inside = [r for r in finished if (goals[0].name in r.metrics if self.space.front else self.feasible(r))]
        return leading(inside or finished, goals, replicates.top) if replicates else []

    def _resumed_job(self) -> Job | None:
        """A trial that is open or enqueued, and may go on."""
        if runnable := self._population.runnable(self._idle):
            self._idle.remove(runnable[0])
            return self._begin(runnable[0])
        waiting = [trial for trial in journal.own(self.study) if trial.state == TrialState.WAITING]
        return self._begin(waiting[0].number) if waiting else None

    def _new_job(self) -> Job | None:
        trials = journal.own(self.study)
        number = len(self._older) + len(trials)
        drawn = sum(1 for trial in trials if not TrialRecord(trial).is_replicate)

        if drawn < self.explored():
            if self._waits_for_results(trials):
                return None
            if drawn < len(self._points):
                self.study.enqueue_trial(to_optuna(self.space.parameters, self._points[drawn]))
            return self._begin(number)

        for leader, seed in self.replicates_due(trials)[:1]:
            attrs = {REPLICATE: True, CONFIG_NUMBER: TrialRecord(leader).config_number, SEED: seed}
            self.study.enqueue_trial(dict(leader.params), user_attrs=attrs)
            return self._begin(number)
        return None

    def replicates_due(self, trials: Sequence[FrozenTrial]) -> list[tuple[FrozenTrial, int]]:
        """(trial of a leading configuration, seed) pairs still to run; none before the exploration has ended."""
        replicates = self.space.search.replicates
        budget_left = self.space.budget.trials - len(trials)
        if replicates is None or budget_left <= 0 or self.exploring():
            return []

        seeds = range(self.base_seed, self.base_seed + replicates.seeds)
        records = [TrialRecord(trial) for trial in trials]
        used = {(record.config_id, record.seed) for record in records}
        by_id = {record.trial_id: trial for record, trial in zip(records, trials, strict=True)}
        pairs = itertools.product(seeds, self.leaders())
        return [(by_id[r.trial_id], seed) for seed, r in pairs if (r.config_id, seed) not in used][:budget_left]

    def _waits_for_results(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether the next proposal depends on a trial that has not ended, under `search.lag`."""
        search = self.space.search
        uses_results = needs_results(search, len(trials), self._older) or self.space.budget.patience is not None
        if search.lag is None or not uses_results:
            return False
        return any(not trial.state.is_finished() for trial in trials[: len(trials) - search.lag + 1])

    def _begin(self, number: int) -> Job:
        """Ask for trial `number` (or go on with it) and name it; every step may be repeated after a kill."""
        search, trials = self.space.search, journal.trials(self.study)
        own_number = number - len(self._older)
        self.study.sampler = sampler_of(search, self.space.parameters, own_number, self._older)
        study = LaggedStudy(self.study, number, search.lag) if search.lag else self.study

        fresh = number == len(trials) or trials[number].state == TrialState.WAITING
        trial = self._live[number] = study.ask() if fresh else journal.live(study, number)
        assert trial.number == number
        if not TrialRecord(trial).trial_id:
            parameters = active_parameters(search, self.space.parameters, self._points, own_number)
            sampler_at = partial(sampler_of, search, self.space.parameters, own_number, self._older)
            self._name(trial, draw_related(trial, parameters, self.space.related, sampler_at, search))

        return self._job(number)

    def _job(self, number: int) -> Job:
        trial = journal.trials(self.study)[number]
        record, params = TrialRecord(trial), from_optuna(self.space.parameters, trial.params)
        config = self._config(params, record.seed)
        return Job(
            record.trial_id,
            "trial",
            config,
            params,
            number,
            replicate=record.is_replicate,
            pause_after=self._population.boundary(),
            parent=record.parent,
            inherited=record.inherited_epochs,
            keep_epochs=tuple(fork_epochs(self.space.front, config.optim.epochs)) if self.space.front else (),
        )

    def _name(self, trial: optuna.Trial, params: dict[str, Scalar]) -> None:
        """Seed, config id and trial id; a configuration that was drawn before runs on its next seed."""
        given, name = TrialRecord(trial), config_id(self._config(params, self.base_seed))
        own_number = trial.number - len(self._older)
        before = map(TrialRecord, journal.own(self.study)[:own_number])
        same = [record for record in before if record.config_id == name]

        number, seed = given.config_number, given.seed
        if number is None:
            number = same[0].config_number if same else own_number
        if seed is None:
            seed = max((record.seed + 1 for record in same if record.seed is not None), default=self.base_seed)
        attrs = {CONFIG_NUMBER: number, SEED: seed, CONFIG_ID: name, TRIAL_ID: trial_name(number or 0, seed)}
        for key, value in attrs.items():
            trial.set_user_attr(key, value)

    def _config(self, params: dict[str, Scalar], seed: int | None) -> TrialConfig:
        return self.space.trial_config({**params, "seed": seed})

    def _close_trunks(self) -> None:
        """Close the trials of which no point is left, with one value each."""
        for closing in self.points.closable():
            trial = journal.live(self.study, closing.number)
            journal.keep_result(self.study, closing.result, trial)
            for text, limit in zip(self.space.constraints, self.space.limits, strict=True) if closing.limited else ():
                trial.set_constraint(text, limit.excess(closing.limited))
            values = None if closing.value is None else [closing.value]
            self.study.tell(closing.number, values, OPTUNA_STATES[closing.result.state])
            self.closed_trunks.append(closing.result.trial_id)

    def _close(self, result: TrialResult, trial: optuna.Trial) -> None:
        if result.state != "FAIL":
            for text, limit in zip(self.space.constraints, self.space.limits, strict=True):
                trial.set_constraint(text, limit.excess(result.metrics))
        values = [result.metrics[o.name] for o in self.space.objectives] if result.state == "COMPLETE" else None
        self.study.tell(trial.number, values, OPTUNA_STATES[result.state])

    def _close_journalled_results(self) -> None:
        """Close the trials whose results were written down just before the driver was killed."""
        for trial in journal.trials(self.study, TrialState.RUNNING):
            if (result := TrialRecord(trial).result) is not None:
                self._idle.remove(trial.number)
                if self.space.front is None:
                    self._close(result, journal.live(self.study, trial.number))
        self._close_trunks()
