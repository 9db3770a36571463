"""State of a search in the driver: which job is next, what each job has done, when it stops, how it ended.

All decisions are made here, without Ray. Ray Tune's searcher, scheduler and callback (`execute/ray_tune_adapters.py`)
only call these methods.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from faar_ray.errors import FaarRayError, StorageError, TooManyFailures
from faar_ray.records import TrialResult, known
from faar_ray.report.statistics.table import ADAPTERS
from faar_ray.tune.propose import journal
from faar_ray.tune.propose.budget import BudgetTracker, trial_limit
from faar_ray.tune.propose.comparison import Compared, StoppingRule
from faar_ray.tune.propose.journal_file import transaction
from faar_ray.tune.propose.proposer import Proposer
from faar_ray.tune.propose.stopping_rules import build_stopping_rule
from faar_ray.tune.run.jobs import Job, Running, job_of, result_of_running
from faar_ray.tune.run.references import References
from faar_ray.tune.share.prefixes import Prefixes
from faar_ray.tune.space.space import SearchSpace

EPOCH_TIME = "time/epoch_s"


class Watcher(Protocol):
    """Is notified of what happens: MLflow's writer, the progress display, the copy in object storage."""

    def started(self, job: Job) -> None:
        """A job was handed to Ray."""

    def epoch(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> None:
        """A job finished an epoch; called once for each epoch."""

    def ended(self, job: Job, result: TrialResult) -> None:
        """A job ended."""


class SearchState:
    """State of one search in the driver.

    Args:
        space: the search space.
        proposer: over the run's journal.
        references: single-task runs still to train, and their values.
        controls: jobs beside the search.
        concurrent: how many jobs may be open at once; set when the machines are known.
        watchers: are notified of everything.
        run_id: gives MLflow's run of a trial id.
        notify: gets the warnings of trials, as text.
        remove_prefix: deletes the files of a prefix that no trial will fork from any more.
        trim_trunk: deletes the checkpoints of a trunk that no point will fork from any more.
        now: clock in seconds.
    """

    def __init__(
        self,
        space: SearchSpace,
        proposer: Proposer,
        references: References,
        controls: Sequence[Job],
        *,
        concurrent: int = 0,
        watchers: Sequence[Watcher] = (),
        run_id: Callable[[str], str] = lambda trial_id: "",
        notify: Callable[[str], None] = lambda text: None,
        remove_prefix: Callable[[str], None] = lambda name: None,
        trim_trunk: Callable[[str], None] = lambda name: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.space, self.proposer, self.references = space, proposer, references
        self.concurrent, self.watchers, self.run_id, self.notify, self.now = concurrent, watchers, run_id, notify, now
        self.trim_trunk = trim_trunk
        self.running: dict[str, Running] = {}
        self.waiting: dict[str, Running] = {}
        """Open jobs without a machine, which wait until all of the population have come as far."""
        self.limit = ""
        self.fatal: FaarRayError | None = None
        done = {result.trial_id for result in proposer.results()}
        self.failures = sum(1 for result in proposer.results() if result.state == "FAIL")
        self._import_cached_references([pair for pair in references.cached() if pair[0].trial_id not in done])
        self._controls = [job for job in controls if job.trial_id not in done]
        self._references = [job for job in references.jobs() if job.trial_id not in done]
        self._history = proposer.history()
        self._rule = self._replayed_rule()
        self._budget = BudgetTracker(space, journal.spent(proposer.study), now)
        self._prefixes = Prefixes(space, proposer, lambda: [job.config for job in self._controls], done, remove_prefix)
        self._trim_trunks()

    def next_job(self) -> Job | None:
        """The next job to hand to Ray; None while there is none (see `finished`)."""
        self._advance_population()
        if self.fatal or self.limit or self._budget_exhausted() or len(self.running) >= self.concurrent:
            return None
        job = self._references.pop(0) if self._references else self._search_job()
        if job is not None:
            try:
                self._open_trial(job)
            except BaseException:  # it will never be trained, so `ended` will never be called
                self.running.pop(job.trial_id, None)
                raise
        return job

    def finished(self) -> bool:
        """Whether no job is open and none will come."""
        if self.running:
            return False
        stopped = bool(self.fatal or self.limit or self._budget_exhausted())
        open_jobs = self._references or self._controls or self._prefixes.held
        return stopped or not (open_jobs or not self.proposer.finished())

    @property
    def aborted(self) -> bool:
        """Whether the run's storage failed."""
        return isinstance(self.fatal, StorageError)

    def abort(self, fault: StorageError) -> None:
        """End the search because its storage failed. Its jobs stay open in the journal, and `--resume` goes on."""
        if not self.aborted:
            self.fatal = fault

    def resources_acquired(self, trial_id: str) -> None:
        """A job has its machine and costs budget from now on."""
        self._budget.acquire(trial_id)

    def resources_released(self, trial_id: str) -> None:
        """A job's process died and will be started again; until then it costs nothing."""
        self._budget.release(trial_id)

    def set_placed(self, trials: int) -> None:
        """How many jobs have the machines of their workers now; the others cost nothing while they wait."""
        self._budget.set_placed(trials)

    def stop_reason(self, trial_id: str, epoch: int, metrics: Mapping[str, float]) -> str:
        """Why a job stops after this epoch, "" where it goes on. Epochs in the journal are not decided again."""
        if self.aborted:
            return str(self.fatal)
        running = self.running[trial_id]
        if not running.stop_reason and epoch >= max(running.journalled_epochs, running.epochs):
            running.stop_reason = (
                self._global_stop_reason()
                or self._early_stop_reason(running.job, epoch, metrics)
                or self._trial_time_reason(running, metrics)
            )
        return running.stop_reason if epoch + 1 >= running.journalled_epochs else ""

    def epoch(self, trial_id: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """A job finished an epoch. One that is in the journal already changes only the last metrics."""
        if self.aborted:
            return
        running, metrics = self.running[trial_id], known(metrics)
        running.metrics = metrics
        if epoch < running.epochs:
            return
        running.epochs = epoch + 1
        if running.job.inherited <= epoch or running.job.shared:
            running.trained_s += metrics.get(EPOCH_TIME, 0.0)
        if running.job.inherited <= epoch < running.journalled_epochs:
            running.seconds_before += metrics.get(EPOCH_TIME, 0.0)
        number = running.job.number
        with transaction(self.proposer.study):
            if epoch >= running.journalled_epochs and number is not None:
                selected = self._rule.select_metrics(metrics)
                self.proposer.epoch(number, epoch, selected, running.stop_reason)
                self._history.setdefault(number, []).append(selected)
            self._prefixes.started(running.job)
            self.proposer.points.passed(running.job, epoch, metrics.get(ADAPTERS))
            self._store_budget()
        for watcher in self.watchers if epoch >= running.notified_epochs else ():
            watcher.epoch(running.job, epoch, metrics)

    def record_test_metrics(self, trial_id: str, metrics: Mapping[str, float]) -> None:
        """Metrics of a complete job on the test split; no decision of the search uses them."""
        self.running[trial_id].test = known(metrics)

    def prefix_trained(self, trial_id: str) -> None:
        """A prefix was trained to its end; `ended` follows."""
        self.running[trial_id].is_trained = True

    def failed(self, trial_id: str, reason: str) -> None:
        """A job reported or raised an error; `ended` follows."""
        self.running[trial_id].error = reason

    def ended(self, trial_id: str) -> None:
        """A job ended: by itself, stopped, with an error, or for now, as it waits for the population."""
        running = self.running.pop(trial_id)
        self._budget.release(trial_id)
        if self.aborted:
            return
        if running.waits and running.job.number is not None:
            self.waiting[trial_id] = running
            with transaction(self.proposer.study):
                self.proposer.wait(self._result(running), running.job.number)
                self._store_budget()
        else:
            self._close_trial(running)
        self._advance_population()

    def elapsed(self) -> float:
        """Seconds of this search over all its drivers, without the time between them."""
        return self._budget.elapsed()

    def _close_trial(self, running: Running) -> None:
        with transaction(self.proposer.study):
            result = self._store_result(running)
            self._prefixes.ended(running.job, running.is_trained, result.state == "FAIL")
            self._store_budget()
        if running.job.number is not None and running.job.may_stop_early:
            self._note_finished(self._rule, running.job.number, result)
        self._trim_trunks()
        for watcher in self.watchers:
            watcher.ended(running.job, result)
        if running.job.role == "reference":
            self._reference_ended(running, result)
        if result.state == "FAIL" and running.job.role != "prefix":  # its trials fail as it did, or not
            self._count_failure(result)

    def _trim_trunks(self) -> None:
        """Delete what only points began with; a search that was killed before does it when it goes on."""
        while self.proposer.closed_trunks:
            self.trim_trunk(self.proposer.closed_trunks.pop(0))

    def _advance_population(self) -> None:
        """End the trials that were replaced in the population, and at a limit all that wait."""
        if self.aborted:
            return
        for number, result in self.proposer.advance_population(self._global_stop_reason()):
            result = dataclasses.replace(result, run_id=self.run_id(result.trial_id))
            waiting = self.waiting.pop(result.trial_id, None)  # none after a resume
            job = waiting.job if waiting else job_of(self.space, result)
            result = self.proposer.tell(result, number)
            for watcher in self.watchers:
                if waiting is None:
                    watcher.started(job)
                watcher.ended(job, result)

    def _search_job(self) -> Job | None:
        if any(running.job.role == "reference" for running in self.running.values()):
            return None  # delta_m needs them all
        return self._prefixes.next_job(self._proposal, self._history, self.concurrent)

    def _proposal(self) -> Job | None:
        return self.proposer.next_job() or (self._controls.pop(0) if self._controls else None)

    def _open_trial(self, job: Job) -> None:
        journalled = 0 if job.number is None else len(self._history.get(job.number, ()))
        stop_reason = self.proposer.stopped_for(job.number) if journalled and job.number is not None else ""
        waited = self.waiting.pop(job.trial_id, None)
        self.running[job.trial_id] = Running(
            job,
            self.now(),
            notified_epochs=waited.epochs if waited else 0,
            journalled_epochs=journalled,
            stop_reason=stop_reason,
        )
        for watcher in self.watchers if waited is None else ():
            watcher.started(job)

    def _import_cached_references(self, cached: Sequence[tuple[Job, TrialResult]]) -> None:
        """Record references that an earlier search trained as results of this one."""
        for job, result in cached:
            journal.keep_result(self.proposer.study, result, None)
            self._note_reference(job)
            for watcher in self.watchers:
                watcher.started(job)
                watcher.ended(job, result)

    def _replayed_rule(self) -> StoppingRule:
        rule = build_stopping_rule(self.space)
        for number, values in self._history.items():
            config = self.proposer.config_of(number)
            rule.introduce(number, Compared.of(self.proposer.trial_id_of(number), config))
            for epoch, metrics in enumerate(values[: config.optim.epochs - 1]):  # none is compared after its last epoch
                rule.record(number, epoch + 1, metrics)
        for number, result in self.proposer.complete().items():
            self._note_finished(rule, number, result)
        return rule

    def _note_finished(self, rule: StoppingRule, number: int, result: TrialResult) -> None:
        """Tell a rule how a trial ended that others may be compared with."""
        if result.state == "COMPLETE" and self.proposer.feasible(result):
            rule.finish(number, rule.select_metrics(result.metrics))

    def _early_stop_reason(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> str:
        if job.number is None or not job.may_stop_early:
            return ""
        self._rule.introduce(job.number, Compared.of(job.trial_id, job.config))
        self._rule.record(job.number, epoch + 1, self._rule.select_metrics(metrics))
        return self._rule.stop_reason(job.number, epoch + 1, job.config.optim.epochs)

    def _trial_time_reason(self, running: Running, metrics: Mapping[str, float]) -> str:
        if running.job.role in ("reference", "prefix"):  # delta_m needs them all; several trials need it
            return ""
        return trial_limit(self.space.budget, running.trained_s + metrics.get(EPOCH_TIME, 0.0))

    def _global_stop_reason(self) -> str:
        return self.limit if self._budget_exhausted() else str(self.fatal or "")

    def _budget_exhausted(self) -> bool:
        self.limit = self.limit or self._budget.limit()
        return bool(self.limit)

    def _result(self, running: Running) -> TrialResult:
        seconds = running.seconds_before + self.now() - running.started
        return result_of_running(running, round(seconds, 3), self.run_id(running.job.trial_id))

    def _store_result(self, running: Running) -> TrialResult:
        """Write down how a job ended."""
        result = self._result(running)
        if running.test:
            journal.keep_test(self.proposer.study, running.job.trial_id, running.test)
        if running.job.number is not None:
            return self.proposer.tell(result, running.job.number)
        if running.job.role == "prefix":
            return result
        if running.job.trunk is not None:
            return self.proposer.tell_point(result, running.job.trunk)
        journal.keep_result(self.proposer.study, result, None)
        return result

    def _reference_ended(self, running: Running, result: TrialResult) -> None:
        if result.state == "COMPLETE":
            self.references.keep(running.job, result, running.test)
            self._note_reference(running.job)
        elif not self.limit and self.fatal is None:
            self.fatal = FaarRayError(f"the single-task reference {result.trial_id} failed: {result.reason}")

    def _note_reference(self, job: Job) -> None:
        if note := self.references.note(job):
            self.notify(note)

    def _count_failure(self, result: TrialResult) -> None:
        self.failures += 1
        allowed = self.space.failure.max_failures
        if self.failures > allowed and self.fatal is None:
            text = f"{self.failures} trials failed, failure.max_failures is {allowed}; the last: {result.reason}"
            self.fatal = TooManyFailures(text)

    def _store_budget(self) -> None:
        journal.keep_spent(self.proposer.study, self._budget.amounts())
