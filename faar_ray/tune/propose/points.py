"""The points of a search with `front`, as the journal has them: what is due, what ended, and a trial's one value.

All is kept in the user attributes of the trunk's own trial, which stays open in Optuna until its last point has ended.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import optuna
from optuna.trial import FrozenTrial, TrialState

from faar_ray.objectives.constraint import feasible
from faar_ray.objectives.front_value import best_point, front_volume, reference_of
from faar_ray.records import State, TrialResult, result_of, row_of
from faar_ray.report.progress import POINT_RESULT, point_names
from faar_ray.tune.propose import journal
from faar_ray.tune.propose.distributions import from_optuna
from faar_ray.tune.propose.trial_record import TrialRecord
from faar_ray.tune.run.jobs import Job, point_job
from faar_ray.tune.space.front import Point, points_of
from faar_ray.tune.space.space import SearchSpace

PLAN = "points"
"""User attribute of a trunk: its points, [size, epochs before the fork] each."""
BEGUN = "begun/"
"""With a point's id: it was handed out, so it goes on even if its trunk is stopped."""
REFERENCE = "front/reference"
"""User attribute of the study: the reference point of all hypervolumes, by objective."""


@dataclass(frozen=True, slots=True)
class Closing:
    """How the trial of a trunk ends in Optuna."""

    number: int
    result: TrialResult
    """Of the trunk; its metrics hold the trial's one value where some point is feasible."""
    value: float | None
    """What Optuna is told; None of a trunk that was stopped or failed."""
    limited: Mapping[str, float]
    """Metrics by which the trial breaks constraints; empty where infeasible points are no part of the value."""


@dataclass(slots=True)
class Trunk:
    """A trunk whose trial is open."""

    state: State | None
    """How it ended; None while it trains."""
    reached: int
    """Epochs of which its checkpoint is known to be there."""
    due: list[Job]
    """Points that no one trains now, in their order."""
    open: set[str] = field(default_factory=set)
    """Ids of points that train."""

    @property
    def is_over(self) -> bool:
        """Whether it and all of its points have ended."""
        return self.state is not None and not self.due and not self.open


class PointState:
    """The points of one search; of a search without `front`, every method gives nothing.

    Args:
        space: the search space.
        study: its journal.
    """

    def __init__(self, space: SearchSpace, study: optuna.Study) -> None:
        self.space, self.study = space, study
        self._trunks: dict[int, Trunk] = {}
        for trial in journal.own(study, TrialState.RUNNING) if space.front else ():
            if PLAN in trial.user_attrs:
                self._trunks[trial.number] = self._restored(trial)

    def passed(self, job: Job, epoch: int, full: float | None) -> None:
        """A trunk has finished an epoch, perhaps not for the first time.

        Args:
            job: the trunk.
            epoch: 0-based.
            full: its adapter parameters, by which its points are planned once.
        """
        if self.space.front is None or job.number is None:
            return
        if job.number not in self._trunks:
            points = points_of(self.space.front, full or 0.0, job.config)
            self._trunks[job.number] = self._planned(job, points)
        trunk = self._trunks[job.number]
        trunk.reached = max(trunk.reached, epoch + 1)

    def next_job(self) -> Job | None:
        """The first point whose fork has been reached, of the oldest trunk that has one."""
        for number in sorted(self._trunks):
            trunk = self._trunks[number]
            job = next((job for job in trunk.due if job.inherited <= trunk.reached), None)
            if job is not None:
                trunk.due.remove(job)
                trunk.open.add(job.trial_id)
                self._live(number).set_user_attr(BEGUN + job.trial_id, 1)
                return job
        return None

    def unfinished(self) -> bool:
        """Whether any trunk still has points, or waits for its value."""
        return bool(self._trunks)

    def ended(self, result: TrialResult, number: int) -> None:
        """A point ended: write it down in its trunk's trial."""
        self._live(number).set_user_attr(POINT_RESULT + result.trial_id, row_of(result))
        self._trunks[number].open.discard(result.trial_id)

    def trunk_ended(self, job: Job, result: TrialResult) -> None:
        """A trunk ended. One that was stopped or failed begins no point any more; those that had forked go on."""
        assert job.number is not None
        if job.number not in self._trunks:  # it ended before its first epoch did
            self._trunks[job.number] = self._planned(job, [])
        trunk = self._trunks[job.number]
        trunk.state = result.state
        if result.state == "COMPLETE":
            trunk.reached = result.reached
        else:
            attrs = self._trial(job.number).user_attrs
            trunk.due = [point for point in trunk.due if BEGUN + point.trial_id in attrs]

    def closable(self) -> Iterator[Closing]:
        """Trunks that are over.

        A complete one waits until the reference point is known, which the complete one with the least number sets.
        """
        for number in sorted(self._trunks):
            if not self._trunks[number].is_over:
                continue
            trial = self._trial(number)
            result = TrialRecord(trial).result
            assert result is not None
            if result.state != "COMPLETE":
                del self._trunks[number]
                yield Closing(number, result, None, result.metrics)
            elif self._reference_known(number):
                del self._trunks[number]
                yield self._valued(trial, result)

    def _valued(self, trial: FrozenTrial, result: TrialResult) -> Closing:
        """The one value of all complete points of a trunk, itself included."""
        goals, limits = self.space.objectives, self.space.limits
        metrics = [one.metrics for one in (result, *points(trial)) if one.state == "COMPLETE"]
        name = self.space.study_objectives[0].name
        if len(goals) > 1:
            value = front_volume(metrics, goals, limits, self.study.user_attrs[REFERENCE])
            limited, counts = {}, True
        else:
            limited = dict(best_point(metrics, goals[0], limits) or result.metrics)
            value, counts = limited[goals[0].name], feasible(limited, limits)
        valued = {**result.metrics, name: value} if counts else result.metrics
        return Closing(trial.number, dataclasses.replace(result, metrics=valued), value, limited)

    def _reference_known(self, number: int) -> bool:
        """Whether the reference point is fixed, which the first complete trunk does, by its number."""
        if len(self.space.objectives) == 1 or REFERENCE in self.study.user_attrs:
            return True
        assert self.space.front is not None
        reference = self.space.front.reference
        if reference is None:
            before = [trial for trial in journal.own(self.study) if trial.number < number]
            if any(not trial.state.is_finished() for trial in before):
                return False
            trial = self._trial(number)
            ended = [one for one in (TrialRecord(trial).result, *points(trial)) if one is not None]
            metrics = [one.metrics for one in ended if one.state == "COMPLETE"]
            reference = reference_of(metrics, self.space.objectives)
        self.study.set_user_attr(REFERENCE, reference)
        return True

    def _planned(self, job: Job, planned: list[Point]) -> Trunk:
        assert job.number is not None
        self._live(job.number).set_user_attr(PLAN, [[point.size, point.inherited] for point in planned])
        return Trunk(None, 0, [point_job(self.space, job, point) for point in planned])

    def _restored(self, trial: FrozenTrial) -> Trunk:
        """A trunk that an earlier driver left open."""
        record, attrs = TrialRecord(trial), trial.user_attrs
        params = from_optuna(self.space.parameters, trial.params)
        config = self.space.trial_config({**params, "seed": record.seed})
        job = Job(record.trial_id, "trial", config, params, trial.number)
        due = [point_job(self.space, job, Point(size, inherited)) for size, inherited in attrs[PLAN]]
        due = [point for point in due if POINT_RESULT + point.trial_id not in attrs]

        result = record.result
        if result is None:
            return Trunk(None, 0, due)
        if result.state != "COMPLETE":
            due = [point for point in due if BEGUN + point.trial_id in attrs]
        reached = result.reached if result.state == "COMPLETE" else config.optim.epochs
        return Trunk(result.state, reached, due)

    def _trial(self, number: int) -> FrozenTrial:
        return journal.trials(self.study)[number]

    def _live(self, number: int) -> optuna.Trial:
        return journal.live(self.study, number)


def points(trial: FrozenTrial) -> list[TrialResult]:
    """The points of a trunk's trial that ended, the smallest first."""
    return [result_of(trial.user_attrs[name]) for name in point_names(trial.user_attrs)]
