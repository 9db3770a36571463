"""The stage tree of a search: which beginnings of trainings are worth training once, and who forks from where.

A prefix is trained under the config of the first trial that needs it and stops where the trials part (`moment`). A
longer prefix forks from a shorter one. Pure functions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from faar_ray.config.moments.moment import START, Moment, last_end
from faar_ray.config.moments.sharing import BETA, moment_of, shared_until
from faar_ray.config.trial import TrialConfig
from faar_ray.tune.space.space import SearchSpace

MOST_BETAS = 16
"""Values of beta that a prefix carries at most."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """A beginning that several trials share."""

    name: str
    config: TrialConfig
    """Of the trial that needed it first."""
    until: Moment
    """Where it stops; with `at_end` the end of its last epoch is left to each fork."""
    betas: tuple[float, ...] = ()
    """Values of `pdrs.beta` under which it keeps the scores."""
    parent: str = ""
    """The shorter prefix that it forks from, "" for none."""
    begins: Moment = START
    """Where it forks from that."""

    @property
    def own_epochs(self) -> int:
        """Epochs that it trains itself."""
        return self.until.inherited - self.begins.inherited

    def serves(self, config: TrialConfig) -> bool:
        """Whether a trial may fork from it."""
        if config.seed != self.config.seed:
            return False
        return shared_until(self.config, config, self.betas) >= self.until


@dataclass(frozen=True, slots=True)
class Demand:
    """A trial to come."""

    config: TrialConfig
    drawn: bool = False
    """Its searched values are not known yet: `config` has others in their place."""


class StagePlanner:
    """Decides which prefixes a trial begins with.

    Args:
        space: the search space.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.betas = known_betas(space)

    def parted(self, config: TrialConfig) -> Moment:
        """Where a trial parts from those of its seed whose searched values are not known."""
        moments = [last_end(config), *(moment_of(key, config, self.betas) for key in self.space.parameters)]
        return min(moments)

    def shared(self, config: TrialConfig, other: Demand) -> Moment:
        """How much a trial shares with another one."""
        if config.seed != other.config.seed:
            return START
        if other.drawn:
            return min(self.parted(config), self.parted(other.config))
        return shared_until(config, other.config, self.betas)

    def chain(
        self, config: TrialConfig, others: Iterable[Demand], existing: Collection[Prefix], number: int
    ) -> list[Prefix]:
        """The prefixes that a trial begins with, the shortest first; it forks from the last.

        Args:
            config: of the trial.
            others: trials that have not begun.
            existing: prefixes that are trained or will be; others in the chain are new.
            number: of the first new one, in its name.
        """
        useful = [prefix for prefix in existing if prefix.serves(config)]
        moments = sorted({self.shared(config, other) for other in others} | {prefix.until for prefix in useful})

        chain: list[Prefix] = []
        for until in moments:
            last = chain[-1].until if chain else START
            if until.inherited <= last.inherited:  # whoever can fork later by less than an epoch can fork here too
                continue
            found = next((prefix for prefix in useful if prefix.until == until), None)
            if found is None:
                parent = chain[-1].name if chain else ""
                found = Prefix(f"p{number:03d}-s{config.seed}", config, until, self.betas, parent, last)
                number += 1
            chain.append(found)
        return chain

    def wanted(self, prefix: Prefix, others: Iterable[Demand]) -> bool:
        """Whether any trial that has not begun may fork from a prefix."""
        return any(self.shared(prefix.config, other) >= prefix.until for other in others)


def known_betas(space: SearchSpace) -> tuple[float, ...]:
    """Values of `pdrs.beta` that trials may have, where they are known beforehand and few; () for one alone."""
    parameter = space.parameters.get(BETA)
    given = [sample[BETA] for sample in (*space.planned(), *space.controls) if BETA in sample]
    if parameter is not None and parameter.values is None and not space.search.listed:
        return ()
    drawn = () if parameter is None or space.search.listed else (parameter.values or ())
    betas = {space.trial_config({}).pdrs.beta, *map(float, given), *(float(value) for value in drawn)}  # type: ignore[arg-type]
    return tuple(sorted(betas)) if 1 < len(betas) <= MOST_BETAS else ()


def why_not_shared(space: SearchSpace) -> str:
    """Why a search shares no prefixes, "" where it does."""
    if not space.search.share_prefixes:
        return "search.share_prefixes is false"
    if space.scheduler.type == "pbt":
        return "scheduler.type pbt changes values while a trial trains, so that no two trials stay alike"
    return ""


def listed_demands(space: SearchSpace) -> list[Demand]:
    """The planned points of a search; one that comes again runs on its next seed."""
    base, partial = space.trial_config({}).seed, not space.search.listed
    times: dict[str, int] = {}
    demands = []
    for point in space.planned():
        config = space.trial_config({**point, "seed": base})
        name = config.model_dump_json()
        times[name] = times.get(name, -1) + 1
        config = config.model_copy(update={"seed": base + times[name]})
        demands.append(Demand(config, drawn=partial and not space.parameters.keys() <= point.keys()))
    return demands


def example_of(space: SearchSpace, listed: Sequence[Demand]) -> Demand:
    """A trial whose values are not known yet."""
    return Demand(listed[0].config if listed else space.trial_config({}), drawn=True)


def planned_demands(space: SearchSpace) -> list[Demand]:
    """All trials and controls of a search as far as they are known, in the order of their start."""
    listed, controls = listed_demands(space), [Demand(space.trial_config(control)) for control in space.controls]
    if space.search.listed:
        return listed + controls

    example, replicates = example_of(space, listed), space.search.replicates
    reruns = replicates.top * (replicates.seeds - 1) if replicates else 0
    demands = listed[: space.budget.trials]
    demands += [example] * (space.budget.trials - reruns - len(listed))
    for more in range(1, replicates.seeds) if replicates else ():
        config = example.config.model_copy(update={"seed": example.config.seed + more})
        demands += [Demand(config, drawn=True)] * (replicates.top if replicates else 0)
    return demands + controls


def planned_epochs(space: SearchSpace) -> tuple[int, int]:
    """Epochs of all trials and controls of a search, each trained alone, and with shared prefixes.

    Of trials whose values are not known yet, those count that any of them shares.
    """
    planner, demands = StagePlanner(space), planned_demands(space)
    alone = trained = 0
    prefixes: list[Prefix] = []
    for index, demand in enumerate(demands):
        chain = planner.chain(demand.config, demands[index + 1 :], prefixes, len(prefixes))
        if demand.drawn:
            chain = [prefix for prefix in chain if prefix.until <= planner.parted(demand.config)]
        new = [prefix for prefix in chain if prefix not in prefixes]
        prefixes += new
        alone += demand.config.optim.epochs
        trained += demand.config.optim.epochs - (chain[-1].until.inherited if chain else 0)
        trained += sum(prefix.own_epochs for prefix in new)
    return alone, trained
