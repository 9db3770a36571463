"""The prefixes of a running search: which are trained, which trials wait for them, which no trial needs any more.

All state that a resumed search needs is in the journal: each prefix, and where each trial forked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Container, Iterable
from typing import Any, Literal

from faar_ray.config.moments.moment import Moment
from faar_ray.config.trial import TrialConfig
from faar_ray.report.progress import PREFIX
from faar_ray.tune.propose import journal
from faar_ray.tune.propose.distributions import from_optuna
from faar_ray.tune.propose.journal_file import transaction
from faar_ray.tune.propose.proposer import Proposer
from faar_ray.tune.propose.trial_record import TrialRecord
from faar_ray.tune.run.jobs import Job
from faar_ray.tune.share.stages import Demand, Prefix, StagePlanner, example_of, listed_demands, why_not_shared
from faar_ray.tune.space.space import SearchSpace

FORK = "fork/"
"""With a trial's id, user attribute of the study: the prefix that it forks from, and those that count as its own."""
State = Literal["planned", "running", "trained", "failed", "removed"]


class Prefixes:
    """The prefixes of one search.

    Args:
        space: the search space.
        proposer: over its journal.
        controls: gives the configs of the controls that have not begun.
        over: ids of the trials that have ended.
        remove: deletes the files of a prefix.
    """

    def __init__(
        self,
        space: SearchSpace,
        proposer: Proposer,
        controls: Callable[[], list[TrialConfig]],
        over: Collection[str] = (),
        remove: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.proposer, self.study, self.controls, self.remove = proposer, proposer.study, controls, remove
        self._planned = listed_demands(space)
        self.planner = None if why_not_shared(space) else StagePlanner(space)
        self.prefixes: dict[str, Prefix] = {}
        self.states: dict[str, State] = {}
        self.held: list[Job] = []
        """Trials that wait for their prefixes."""
        self._unforked: dict[str, str] = {}
        """Trials that were handed out and may not have their checkpoint yet -> the prefix that they fork from."""
        self._read(over)

    def admit(self, job: Job, begun: bool = False) -> None:
        """Take a job of the search: it is given back by `next_job`, once the prefix that it begins with is trained.

        Args:
            job: a trial or a control.
            begun: whether it has trained epochs, before the driver was killed.
        """
        alone = bool(job.parent or job.keep_epochs)  # it is a fork already, or others fork from it
        if self.planner is not None and not alone and FORK + job.trial_id not in self.study.user_attrs:
            if not begun:
                self._plan(job, self.planner)
            else:
                self._keep_fork(job.trial_id, {"parent": "", "pays": [], "begun": True})
        self.held.append(job)

    def next_job(self, propose: Callable[[], Job | None], begun: Container[int | None], most: int) -> Job | None:
        """The next job of a search: a trial that can begin, or a prefix; None while there is none.

        Args:
            propose: gives the next trial or control, None while there is none.
            begun: numbers of trials that have trained epochs.
            most: how many trials may wait for prefixes.
        """
        while (job := self._ready_job()) is None:
            if len(self.held) >= most or (proposed := propose()) is None:
                return None
            with transaction(self.study):
                self.admit(proposed, begun=proposed.number in begun)
        return job

    def _ready_job(self) -> Job | None:
        """A trial whose prefix is there, else a prefix to train; None where all wait."""
        for index, job in enumerate(self.held):
            fork = self._fork(job)
            if fork["begun"] or self._state(fork["parent"]) in ("trained", "failed"):
                del self.held[index]
                return self._forked(job)
        for name, prefix in self.prefixes.items():
            needed = self.states[name] == "planned" and any(name in self._chain(job) for job in self.held)
            if needed and self._state(prefix.parent) in ("trained", "failed"):
                return self._prefix_job(prefix)
        return None

    def started(self, job: Job) -> None:
        """A job has its first epoch, and so a checkpoint of its own."""
        if self._unforked.pop(job.trial_id, ""):
            if job.role != "prefix":
                self._keep_fork(job.trial_id, self._fork(job) | {"begun": True})
            self.collect()

    def ended(self, job: Job, trained: bool, failed: bool = False) -> None:
        """A job ended.

        Args:
            job: a trial, control or prefix.
            trained: whether a prefix was trained to its end.
            failed: whether it will never be; its trials then train alone, and will fail as it did, or not.
        """
        self._unforked.pop(job.trial_id, None)
        if job.role == "prefix":
            self._keep(job.trial_id, "trained" if trained else "failed" if failed else "planned")
        self.collect()

    def collect(self) -> None:
        """Remove the prefixes that no trial will fork from any more."""
        if self.planner is None or not self.prefixes:
            return
        others = self.upcoming()
        for name, prefix in self.prefixes.items():
            if self.states[name] == "trained" and not self._needed(name) and not self.planner.wanted(prefix, others):
                self.remove(name)
                self._keep(name, "removed")

    def upcoming(self) -> list[Demand]:
        """The trials and controls that have not begun; values that depend on results are left open."""
        space, trials = self.proposer.space, journal.own(self.study)
        begun = sum(1 for trial in trials if not TrialRecord(trial).is_replicate)
        explored = self.proposer.explored()
        listed, drawn = self._planned[begun:explored], explored - max(begun, len(self._planned))
        due = self.proposer.replicates_due(trials)
        reruns = [{**from_optuna(space.parameters, leader.params), "seed": seed} for leader, seed in due]
        known = [*map(space.trial_config, reruns), *self.controls()]
        return listed + [example_of(space, self._planned)] * (drawn > 0) + [Demand(config) for config in known]

    def _needed(self, name: str) -> bool:
        """Whether a trial waits for a prefix, or is about to fork from it."""
        return name in self._unforked.values() or any(name in self._chain(job) for job in self.held)

    def _plan(self, job: Job, planner: StagePlanner) -> None:
        """Decide which prefixes a trial begins with, and which of them are counted as its own."""
        live = [prefix for name, prefix in self.prefixes.items() if self.states[name] not in ("failed", "removed")]
        chain = planner.chain(job.config, self.upcoming(), live, len(self.prefixes))
        for prefix in chain:
            if prefix.name not in self.prefixes:
                self.prefixes[prefix.name] = prefix
                self._keep(prefix.name, "planned")

        paid = {name for fork in self._forks() for name in fork["pays"]}
        pays = [prefix.name for prefix in chain if prefix.name not in paid]
        self._keep_fork(job.trial_id, {"parent": chain[-1].name if chain else "", "pays": pays, "begun": False})

    def _forked(self, job: Job) -> Job:
        """The job as a fork of its prefix; as it is without one, or where that failed."""
        fork = self._fork(job)
        name = fork["parent"]
        if not name or self.states[name] == "failed":
            return job
        until = self.prefixes[name].until
        self._unforked[job.trial_id] = name
        paid = sum(self.prefixes[one].own_epochs for one in fork["pays"])
        return dataclasses.replace(
            job, parent=name, inherited=until.inherited, redo=until.at_end, shared=True, paid=paid
        )

    def _prefix_job(self, prefix: Prefix) -> Job:
        self.states[prefix.name] = "running"
        parent = "" if self._state(prefix.parent) == "failed" else prefix.parent
        if parent:
            self._unforked[prefix.name] = parent
        return Job(
            prefix.name,
            "prefix",
            prefix.config,
            {},
            parent=parent,
            inherited=prefix.begins.inherited if parent else 0,
            redo=prefix.begins.at_end and bool(parent),
            betas=prefix.betas,
            shared=True,
            stop_after=prefix.until.inherited,
            leave_end=prefix.until.at_end,
        )

    def _chain(self, job: Job) -> list[str]:
        """Names of the prefixes that a waiting trial still needs, those before the last trained one left out."""
        names, name = [], self._fork(job)["parent"]
        while name:
            names.append(name)
            name = "" if self.states[name] == "trained" else self.prefixes[name].parent
        return names

    def _state(self, name: str) -> State:
        """Of a prefix; no prefix is there from the start. A removed one that is needed again is trained again."""
        if name and self.states[name] == "removed":
            self._keep(name, "planned")
        return self.states[name] if name else "trained"

    def _fork(self, job: Job) -> dict[str, Any]:
        return self.study.user_attrs.get(FORK + job.trial_id) or {"parent": "", "pays": [], "begun": True}

    def _keep_fork(self, trial_id: str, fork: dict[str, Any]) -> None:
        self.study.set_user_attr(FORK + trial_id, fork)

    def _forks(self) -> Iterable[dict[str, Any]]:
        return (value for name, value in self.study.user_attrs.items() if name.startswith(FORK))

    def _keep(self, name: str, state: State) -> None:
        self.states[name] = state
        self.study.set_user_attr(PREFIX + name, row_of_prefix(self.prefixes[name]) | {"state": state})

    def _read(self, over: Collection[str]) -> None:
        """Take over what an earlier driver left; what it trained when it died is trained on."""
        attrs = self.study.user_attrs
        forks = {name.removeprefix(FORK): attrs[name] for name in attrs if name.startswith(FORK)}
        self._unforked |= {
            name: fork["parent"]
            for name, fork in forks.items()
            if fork["parent"] and not fork["begun"] and name not in over
        }
        for name, row in sorted(attrs.items()):
            if name.startswith(PREFIX):
                prefix = prefix_of_row(row)
                self.prefixes[prefix.name] = prefix
                self.states[prefix.name] = row["state"]


def row_of_prefix(prefix: Prefix) -> dict[str, Any]:
    """A prefix as JSON."""
    moments = {key: [at.epoch, at.at_end] for key, at in (("until", prefix.until), ("begins", prefix.begins))}
    facts = {"name": prefix.name, "betas": list(prefix.betas), "parent": prefix.parent}
    return facts | moments | {"config": prefix.config.model_dump(mode="json")}


def prefix_of_row(row: dict[str, Any]) -> Prefix:
    """Undo `row_of_prefix`."""
    until, begins = (Moment(int(row[key][0]), bool(row[key][1])) for key in ("until", "begins"))
    config = TrialConfig.model_validate(row["config"])
    return Prefix(row["name"], config, until, tuple(row["betas"]), row["parent"], begins)
