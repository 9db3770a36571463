"""Who of a population is replaced by whose copy, and with which values. Pure functions.

Population based training (Jaderberg et al. 2017): truncation selection, and explore by resampling or perturbing. All
draws are named by the search's seed and the new trial's number.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from faar_ray.records import TrialResult, result_of
from faar_ray.seeding import seed_of
from faar_ray.tune.propose import journal
from faar_ray.tune.propose.distributions import from_optuna, to_optuna
from faar_ray.tune.run.jobs import trial_name
from faar_ray.tune.space.parameter import Parameter, Scalar
from faar_ray.tune.space.sections import SchedulerConfig
from faar_ray.tune.space.space import SearchSpace

RESAMPLED = 0.25
FACTORS = (0.8, 1.2)
MOST_DRAWS = 100
"""Until an heir's values are some that nobody has had."""

Params = Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class Exploit:
    """A trial of the population gives its place to a copy of a better one."""

    replaced: int
    parent: int
    child: int
    """Number of the trial that goes on from the parent's checkpoint."""
    params: dict[str, Scalar]
    """Of the heir."""


def boundaries(config: SchedulerConfig, epochs: int) -> range:
    """Numbers of finished epochs after which the population is compared; never after a trial's last."""
    return range(config.min_epochs, epochs, config.interval)


def quantile_size(members: int, quantile: float) -> int:
    """How many are among the worst, and among the best; nobody is both."""
    return min(math.ceil(quantile * members), members // 2)


def copies(
    values: Mapping[int, float],
    params: Mapping[int, Params],
    parameters: Mapping[str, Parameter],
    *,
    quantile: float,
    seed: int,
    first: int,
    room: int,
    had: Collection[Params] = (),
) -> list[Exploit]:
    """Who is replaced after a generation, the worst first.

    Args:
        values: metric of every trial that is compared, by its number; larger is better, NaN is worst, of equals the
            later trial is.
        params: of these trials.
        parameters: of the space.
        quantile: the worst and best share of them.
        seed: of the search.
        first: number of the first heir.
        room: heirs that the budget has left.
        had: values that trials have or had; no heir gets the same, if any others are drawn.
    """
    worst_first = sorted(values, key=lambda number: (-math.inf if math.isnan(v := values[number]) else v, -number))
    some = quantile_size(len(values), quantile)
    best, out = worst_first[len(values) - some :], list[Exploit]()
    for heir, loser in enumerate(worst_first[: min(some, room)], start=first):
        draws = random.Random(seed_of(seed, "heir", heir))
        parent = draws.choice(best)
        others = [*had, *(copy.params for copy in out)]
        out.append(Exploit(loser, parent, heir, explored(params[parent], parameters, draws, others)))
    return out


def explored(
    params: Params, parameters: Mapping[str, Parameter], draws: random.Random, had: Collection[Params] = ()
) -> dict[str, Scalar]:
    """A parent's values, each resampled from the space or moved a step; not those in `had`, nor the parent's own."""
    for _ in range(MOST_DRAWS):
        moved = {key: _moved(parameters[key], value, draws) for key, value in params.items()}
        held = from_optuna(parameters, to_optuna(parameters, moved))
        if held != params and held not in had:
            break
    return held


def _moved(parameter: Parameter, value: Scalar, draws: random.Random) -> Scalar:
    resampled, factor = draws.random() < RESAMPLED, draws.choice(FACTORS)
    if parameter.values is not None:
        return draws.choice(parameter.values) if resampled else _neighbour(parameter.values, value, factor)
    assert isinstance(value, int | float)
    low, high = map(float, parameter.bounds)
    if parameter.scale == "log1m":
        return 1 - _in_range(1 - high, 1 - low, True, None if resampled else factor * (1 - value), draws)
    return _in_range(low, high, parameter.log, None if resampled else factor * value, draws)


def _in_range(low: float, high: float, log: bool, value: float | None, draws: random.Random) -> float:
    """The value clipped; without one a draw."""
    if value is None:
        value = math.exp(draws.uniform(math.log(low), math.log(high))) if log else draws.uniform(low, high)
    return min(max(value, low), high)


def _neighbour(values: Sequence[Scalar], value: Scalar, factor: float) -> Scalar:
    """The value before or after, in the order of the list; at an end the only one there is."""
    at = values.index(value) + (1 if factor > 1 else -1)
    return values[at] if 0 <= at < len(values) else values[max(0, min(len(values) - 1, 2 * values.index(value) - at))]


WAITS = "waits"
"""What a trial would end as if it never went on: its result so far, as a row."""
INHERITED = "inherited_epochs"
DECISION = "generation/"


class PopulationState:
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

    def runnable(self, left: Sequence[int]) -> list[int]:
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

    def decide_exploits(self) -> None:
        """Where the whole population has come to its boundary: decide, and let the copies take their places."""
        boundary = self.boundary()
        if boundary is not None and self._all_wait(boundary):
            chosen = [dataclasses.asdict(copy) for copy in self._chosen()]
            self.study.set_user_attr(f"{DECISION}{boundary:04d}", chosen)
        for at, decided in self._decisions():
            for copy in decided:
                if copy.child >= len(journal.trials(self.study)):
                    self._enrol(copy, at)

    def ended_waiting(self, left: Sequence[int], halt: str = "") -> Iterator[tuple[int, TrialResult]]:
        """Trials without a machine that end now: whose place is taken; all that wait where the search is to `halt`."""
        if not self._boundaries:
            return
        taken = {copy.replaced: self._format_reason(copy, at) for at, decided in self._decisions() for copy in decided}
        for number in left:
            trial = journal.trials(self.study)[number]
            reason = taken.get(number) or (halt if _waits(trial, _epochs(trial)) else "")
            if reason:
                so_far = result_of(trial.user_attrs[WAITS])
                yield number, dataclasses.replace(so_far, state="PRUNED", reason=reason)

    def _all_wait(self, boundary: int) -> bool:
        own = journal.own(self.study)
        live = [trial for trial in own if not trial.state.is_finished()]
        whole = len(own) >= self.space.scheduler.population and bool(live)
        return whole and all(_waits(trial, boundary) for trial in live)

    def _chosen(self) -> list[Exploit]:
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

    def _enrol(self, copy: Exploit, boundary: int) -> None:
        parent = journal.trials(self.study)[copy.parent].user_attrs
        facts = {"config_number": copy.child, "seed": parent["seed"]}
        facts |= {journal.PARENT: parent["trial_id"], INHERITED: boundary}
        self.study.enqueue_trial(to_optuna(self.space.parameters, copy.params), user_attrs=facts)

    def _metric(self, trial: FrozenTrial) -> float:
        return float(trial.user_attrs[WAITS]["metrics"].get(self.space.scheduler.metric, math.nan))

    def _format_reason(self, copy: Exploit, boundary: int) -> str:
        loser, parent = (journal.trials(self.study)[number] for number in (copy.replaced, copy.parent))
        metric, heir = self.space.scheduler.metric, trial_name(copy.child, parent.user_attrs["seed"])
        values = [
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in copy.params.items()
        ]
        return (
            f"{metric} {self._metric(loser):.4g} after {boundary} epochs, replaced by {heir}, "
            f"a copy of {parent.user_attrs['trial_id']} with {', '.join(values)}"
        )

    def _decisions(self) -> list[tuple[int, list[Exploit]]]:
        """Each boundary and what was decided there, in the order of time."""
        attrs = self.study.user_attrs
        made = sorted(name for name in attrs if name.startswith(DECISION))
        return [(int(name.removeprefix(DECISION)), [Exploit(**row) for row in attrs[name]]) for name in made]


def _epochs(trial: FrozenTrial) -> int:
    """Finished epochs that the journal has."""
    return sum(1 for name in trial.user_attrs if name.startswith(journal.EPOCH))


def _waits(trial: FrozenTrial, boundary: int | None) -> bool:
    row: dict[str, Any] = trial.user_attrs.get(WAITS, {})
    return boundary is not None and row.get("epochs") == boundary
