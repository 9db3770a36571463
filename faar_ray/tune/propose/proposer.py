"""What is tried next, over Optuna's ask and tell; a trial of the study is one (config, seed).

Order: trials that a killed driver left RUNNING or that waited for their generation, then copies that take a place in a
population, then the first points (priors, warm start), then the sampler's until the exploration is done, then the
leading configurations on further seeds.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from faar_ray.config.trial import TrialConfig, config_id
from faar_ray.objectives.constraint import feasible
from faar_ray.records import TrialResult, result_of
from faar_ray.tune.propose import journal
from faar_ray.tune.propose.ask import LaggedStudy, needs_results, sampler_of
from faar_ray.tune.propose.distributions import draw, from_optuna, to_optuna
from faar_ray.tune.propose.journal import event
from faar_ray.tune.propose.population import INHERITED, WAITS, PopulationState
from faar_ray.tune.propose.replicates import leading
from faar_ray.tune.run.jobs import Job, describe_failure, trial_name
from faar_ray.tune.space.initial_points import active_parameters, planned
from faar_ray.tune.space.space import Scalar, SearchSpace

TOLD = {"COMPLETE": TrialState.COMPLETE, "PRUNED": TrialState.PRUNED, "FAIL": TrialState.FAIL}


class Proposer:
    """Asks Optuna and tells it the truth; all state is in the journal.

    Args:
        space: the search space.
        study: its journal, opened; trials of an older run stand first in it (see `warm_start`).
    """

    def __init__(self, space: SearchSpace, study: optuna.Study) -> None:
        self.space, self.study = space, study
        self.base_seed = space.trial_config({}).seed
        self._points = planned(space.search, space.parameters, space.base, space.warm_start.points)
        self._older = journal.older(study)
        self._generations = PopulationState(space, study)
        self._live: dict[int, optuna.Trial] = {}
        self._left = [trial.number for trial in journal.trials(study, TrialState.RUNNING)]
        self._settle_what_had_ended()

    def explored(self) -> int:
        """How many configurations the search draws: the budget without the replicates' trials, or a population."""
        replicates, trials = self.space.search.replicates, self.space.budget.trials
        if self.space.search.listed:
            return min(trials, len(self._points))
        if self.space.scheduler.type == "pbt":
            return self.space.scheduler.population
        return trials - replicates.top * (replicates.seeds - 1) if replicates else trials

    @event()
    def next_job(self) -> Job | None:
        """The next trial; None when nothing can be proposed now (see `finished`)."""
        if ready := self._generations.runnable(self._left):
            self._left.remove(ready[0])
            return self._begin(ready[0])
        trials = journal.own(self.study)
        waiting = next((trial.number for trial in trials if trial.state == TrialState.WAITING), None)
        if waiting is not None:
            return self._begin(waiting)
        drawn = sum(1 for trial in trials if not _is_replicate(trial))
        if drawn < self.explored():
            if self._waits_for_results(trials):
                return None
            if drawn < len(self._points):
                self.study.enqueue_trial(to_optuna(self.space.parameters, self._points[drawn]))
            return self._begin(len(self._older) + len(trials))
        for leader, seed in self._replicates_due(trials):
            attrs = {"replicate": True, "config_number": leader.user_attrs["config_number"], "seed": seed}
            self.study.enqueue_trial(dict(leader.params), user_attrs=attrs)
            return self._begin(len(self._older) + len(trials))
        return None

    def exploring(self) -> bool:
        """Whether trials of the exploration are still running or to be drawn (replicates wait for them)."""
        trials = [trial for trial in journal.own(self.study) if not _is_replicate(trial)]
        return len(trials) < self.explored() or any(not trial.state.is_finished() for trial in trials)

    def finished(self) -> bool:
        """Whether nothing will be proposed any more."""
        if self._left or journal.trials(self.study, TrialState.WAITING) or self.exploring():
            return False
        return not self._replicates_due(journal.own(self.study))

    def wait(self, result: TrialResult, number: int) -> None:
        """A trial has come to where it waits for others: keep what it would end as, and hand it out again later."""
        self._live.pop(number).set_user_attr(WAITS, dataclasses.asdict(result))
        self._left.append(number)

    @event()
    def turn(self, halt: str = "") -> list[tuple[int, TrialResult]]:
        """Decide about a generation that is whole, unless the search is to `halt`; which trials that waited end now."""
        if not halt:
            self._generations.decide_exploits()
        return list(self._generations.ended_waiting(self._left, halt))

    @event()
    def tell(self, result: TrialResult, number: int) -> TrialResult:
        """Close a trial as COMPLETE with its objectives, PRUNED or FAIL; a non-finite objective is a FAIL."""
        result = self._judged(result)
        if number in self._left:
            self._left.remove(number)
        trial = self._live.pop(number, None) or journal.live(self.study, number)
        journal.keep_result(self.study, result, trial)
        self._close(result, trial)
        return result

    @event()
    def epoch(self, number: int, epoch: int, seen: Sequence[float], stop_reason: str = "") -> None:
        """Keep what the scheduler saw of one epoch, and before it the verdict when that epoch is the trial's last.

        User attributes hold it: Optuna takes no intermediate values for several objectives.
        """
        trial = self._live[number]
        if stop_reason:
            trial.set_user_attr("stop_reason", stop_reason)
        if len(self.space.objectives) == 1 and math.isfinite(seen[0]):
            trial.report(seen[0], epoch)
        trial.set_user_attr(f"{journal.EPOCH}{epoch:04d}", seen[0] if len(seen) == 1 else list(seen))

    def stopped_for(self, number: int) -> str:
        """The verdict on a trial whose driver was killed before the trial ended; "" for none."""
        return str(journal.trials(self.study)[number].user_attrs.get("stop_reason", ""))

    def history(self) -> dict[int, list[list[float]]]:
        """What the scheduler saw by trial number and epoch, of trials that may stop early."""
        rows = {
            trial.number: [v for k, v in sorted(trial.user_attrs.items()) if k.startswith(journal.EPOCH)]
            for trial in journal.own(self.study)
            if "trial_id" in trial.user_attrs and not _is_replicate(trial)
        }
        return {number: [v if isinstance(v, list) else [v] for v in values] for number, values in rows.items()}

    def epochs_of(self, number: int) -> int:
        """Epochs that a trial trains unless it is stopped."""
        trial = journal.trials(self.study)[number]
        params = from_optuna(self.space.parameters, trial.params)
        return self._config(params, trial.user_attrs["seed"]).optim.epochs

    def results(self) -> list[TrialResult]:
        """Everything that ended."""
        return journal.results(self.study)

    def counts(self) -> dict[str, int]:
        """Trials of the study by how they ended."""
        ended = [trial.state for trial in journal.own(self.study)]
        names = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        return {name: ended.count(state) for name, state in names.items()}

    def feasible(self, result: TrialResult) -> bool:
        """Whether a result satisfies all constraints; without the metric it does not."""
        return feasible(result.metrics, self.space.limits)

    def leaders(self) -> list[TrialResult]:
        """The configurations that replicates are for."""
        replicates = self.space.search.replicates
        explored = [trial for trial in journal.own(self.study, TrialState.COMPLETE) if not _is_replicate(trial)]
        unique = {trial.user_attrs["config_id"]: trial for trial in reversed(explored)}.values()
        rows = [trial.user_attrs[journal.RESULT] for trial in sorted(unique, key=lambda trial: trial.number)]
        finished = [result_of(row) for row in rows]
        inside = [result for result in finished if self.feasible(result)]
        return leading(inside or finished, self.space.objectives, replicates.top) if replicates else []

    def _replicates_due(self, trials: Sequence[FrozenTrial]) -> list[tuple[FrozenTrial, int]]:
        """(trial of a leading configuration, seed) pairs still to run; none before the exploration has ended."""
        replicates = self.space.search.replicates
        room = self.space.budget.trials - len(trials)
        if replicates is None or room <= 0 or self.exploring():
            return []
        seeds = range(self.base_seed, self.base_seed + replicates.seeds)
        used = {(trial.user_attrs.get("config_id"), trial.user_attrs.get("seed")) for trial in trials}
        by_id = {trial.user_attrs.get("trial_id"): trial for trial in trials}
        pairs = itertools.product(seeds, self.leaders())
        return [(by_id[r.trial_id], seed) for seed, r in pairs if (r.config_id, seed) not in used][:room]

    def _waits_for_results(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether the next proposal depends on a trial that has not ended, under `search.lag`."""
        search = self.space.search
        if search.lag is None or not needs_results(search, len(trials), self._older):
            return False
        return any(not trial.state.is_finished() for trial in trials[: len(trials) - search.lag + 1])

    def _begin(self, number: int) -> Job:
        """Ask for trial `number` (or go on with it) and name it; every step may be repeated after a kill."""
        search, trials = self.space.search, journal.trials(self.study)
        count = number - len(self._older)
        self.study.sampler = sampler_of(search, self.space.parameters, count, self._older)
        study = LaggedStudy(self.study, number, search.lag) if search.lag else self.study

        fresh = number == len(trials) or trials[number].state == TrialState.WAITING
        trial = self._live[number] = study.ask() if fresh else journal.live(study, number)
        assert trial.number == number
        if "trial_id" not in trial.user_attrs:
            parameters = active_parameters(self.space.search, self.space.parameters, self._points, count)
            self._name(trial, draw(trial, parameters, self.space.base))
        params = from_optuna(self.space.parameters, trial.params)
        attrs = trial.user_attrs
        config = self._config(params, attrs["seed"])
        return Job(
            attrs["trial_id"],
            "trial",
            config,
            params,
            number,
            replicate=bool(attrs.get("replicate")),
            pause_after=self._generations.boundary(),
            parent=attrs.get(journal.PARENT, ""),
            inherited=attrs.get(INHERITED, 0),
        )

    def _name(self, trial: optuna.Trial, params: dict[str, Scalar]) -> None:
        """Seed, config id and trial id; a configuration that was drawn before runs on its next seed."""
        attrs = trial.user_attrs
        name = config_id(self._config(params, self.base_seed))
        count = trial.number - len(self._older)
        same = [t for t in journal.own(self.study)[:count] if t.user_attrs.get("config_id") == name]
        first = same[0].user_attrs["config_number"] if same else count
        number = attrs.get("config_number", first)
        seed = attrs.get("seed", max((t.user_attrs["seed"] + 1 for t in same), default=self.base_seed))
        named = {"config_number": number, "seed": seed, "config_id": name}
        for key, value in (named | {"trial_id": trial_name(number, seed)}).items():
            trial.set_user_attr(key, value)

    def _config(self, params: dict[str, Scalar], seed: int) -> TrialConfig:
        return self.space.trial_config({**params, "seed": seed})

    def _judged(self, result: TrialResult) -> TrialResult:
        if result.state != "COMPLETE":
            return result
        values = {o.name: result.metrics.get(o.name, math.nan) for o in self.space.objectives}
        bad = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
        if not bad:
            return result
        reason = describe_failure(f"objective {', '.join(bad)}", result.trial_id, result.params)
        return dataclasses.replace(result, state="FAIL", reason=reason)

    def _close(self, result: TrialResult, trial: optuna.Trial) -> None:
        if result.state != "FAIL":
            for text, limit in zip(self.space.constraints, self.space.limits, strict=True):
                trial.set_constraint(text, limit.excess(result.metrics))
        values = [result.metrics[o.name] for o in self.space.objectives] if result.state == "COMPLETE" else None
        self.study.tell(trial.number, values, TOLD[result.state])

    def _settle_what_had_ended(self) -> None:
        """Tell Optuna of trials whose result was written down when the driver was killed."""
        for trial in journal.trials(self.study, TrialState.RUNNING):
            if journal.RESULT in trial.user_attrs:
                self._left.remove(trial.number)
                self._close(result_of(trial.user_attrs[journal.RESULT]), journal.live(self.study, trial.number))


def _is_replicate(trial: FrozenTrial) -> bool:
    return bool(trial.user_attrs.get("replicate"))
