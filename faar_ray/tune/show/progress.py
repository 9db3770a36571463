"""The reporter for people: a live table of bounded height in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from faar_ray.records import MEASURED, TrialResult
from faar_ray.report.statistics.groups import is_cost
from faar_ray.report.words.wording import count
from faar_ray.tune.propose.budget import format_duration
from faar_ray.tune.run.jobs import Job, format_params

MOST_ROWS = 14
STYLES = {"running": "cyan", "complete": "green", "pruned": "yellow", "fail": "red bold"}


@dataclass(slots=True)
class Line:
    """One job as the table shows it."""

    job: Job
    started: float
    state: str = "running"
    epochs: int = 0
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    reason: str = ""


class Progress:
    """A `Reporter` that writes to a console.

    Args:
        console: where to write.
        name: of the search.
        objectives: metrics to show.
        trials: budget of trials.
        verbosity: -1 notes only; 0 starts and ends too, as a live table in a terminal; 1 every epoch too.
    """

    def __init__(self, console: Console, name: str, objectives: Sequence[str], trials: int, verbosity: int = 0) -> None:
        self.console, self.name, self.trials, self.verbosity = console, name, trials, verbosity
        self.shown = list(objectives)
        self.begun = time.monotonic()
        self.lines: dict[str, Line] = {}
        self.phase_text = ""
        self.backlog: Callable[[], int] = lambda: 0
        """Updates that wait because MLflow is unavailable."""
        self.waiting: Callable[[], int] = lambda: 0
        """Updates that MLflow lacks."""
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self.verbosity >= 0 and self.console.is_terminal:
            self._live = Live(get_renderable=self._table, console=self.console, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.phase_text = ""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def phase(self, text: str) -> None:
        """Show what the driver does now, outside trials."""
        self.phase_text = text
        if self._live is None and text:
            self._print(text)

    def machines(self, text: str, waiting: bool) -> None:
        """Show that the search waits for machines, or that they have come."""
        self.phase(text)
        if not waiting:
            self.phase_text = ""

    def note(self, text: str) -> None:
        """Show what a person must read, even with -q."""
        self.console.print(Text(text, "yellow"), soft_wrap=True)

    def started(self, job: Job) -> None:
        """A job was submitted."""
        self.phase_text = ""
        self.lines[job.trial_id] = Line(job, time.monotonic())
        if not job.cached:
            self._print_of(job, "started")

    def epoch(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> None:
        """A job finished an epoch."""
        line = self.lines[job.trial_id]
        line.epochs, line.metrics = epoch + 1, dict(metrics)
        if self.verbosity > 0 and (job.role != "point" or epoch + 1 >= job.inherited):  # others are its trunk's
            self._print_of(job, f"epoch {epoch + 1}/{job.epochs}  {self._values(line)}")

    def ended(self, job: Job, result: TrialResult) -> None:
        """A job ended."""
        line = self.lines[job.trial_id]
        line.state, line.epochs, line.metrics = result.state.lower(), result.reached, result.metrics
        line.seconds, line.reason = result.seconds, result.reason
        if result.state == "FAIL":
            self._print_failure(f"{job.trial_id:<16} failed in {format_duration(line.seconds)}: {result.reason}")
            return
        state = "from the cache" if job.cached else f"{line.state} in {format_duration(line.seconds)}"
        self._print_of(job, "  ".join(part for part in (state, self._values(line), result.reason) if part))

    def _print_of(self, job: Job, text: str) -> None:
        self._print(f"{job.trial_id:<16} {text}  [{parameters(job)}]")

    def _print_failure(self, text: str) -> None:
        """A failure with its reason, also where no lines are printed (live table, -q)."""
        if self._live is None and self.verbosity >= 0:
            self._print(text)
        else:
            self.note(text)

    def _print(self, text: str) -> None:
        if self._live is None and self.verbosity >= 0:
            stamp = format_duration(time.monotonic() - self.begun)
            self.console.print(Text(f"{stamp:>7}  {text}"), soft_wrap=True)

    def _values(self, line: Line) -> str:
        known = [(name, line.metrics[name]) for name in self._columns(line) if name in line.metrics]
        return "  ".join(f"{name} {metric(name, value)}" for name, value in known)

    def _columns(self, line: Line) -> list[str]:
        if line.job.role != "reference":
            return self.shown
        task = line.job.config.data.tasks[0]
        return [name for name in line.metrics if name.startswith(f"val/{task}/")][:1]

    def _table(self) -> RenderableType:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for title in ("trial", "parameters", "epoch"):
            table.add_column(title, no_wrap=True, overflow="ellipsis", ratio=1 if title == "parameters" else None)
        for title in self.shown:
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        for line in self._visible():
            table.add_row(*self._cells(line))
        return Group(self._headline(), table)

    def _visible(self) -> list[Line]:
        """All running jobs that fit, after the jobs that ended last."""
        most = min(MOST_ROWS, max(4, self.console.height - 4))
        lines = list(self.lines.values())
        running = [line for line in lines if line.state == "running"][:most]
        ended = [line for line in lines if line.state != "running"]
        return ended[max(0, len(ended) - (most - len(running))) :] + running

    def _cells(self, line: Line) -> list[Text]:
        style = STYLES.get(line.state, "")
        seconds = time.monotonic() - line.started if line.state == "running" else line.seconds
        state = f"{line.state} {format_duration(seconds)}" if not line.job.cached else "from the cache"
        values = [metric(name, line.metrics[name]) if name in line.metrics else "" for name in self.shown]
        if line.job.role == "reference":
            values = [self._values(line).removeprefix("val/"), *values[1:]] if line.metrics else values
        epochs = f"{line.epochs}/{line.job.epochs}"
        left = (line.job.trial_id, parameters(line.job), epochs)
        return [*map(Text, (*left, *values)), Text(state, style)]

    def _headline(self) -> Text:
        ended = [line for line in self.lines.values() if line.job.role == "trial" and line.state != "running"]
        running = sum(1 for line in self.lines.values() if line.state == "running")
        hidden = len(self.lines) - len(self._visible())
        parts = [
            f"{len(ended)} of {self.trials} trials",
            f"{running} running",
            format_duration(time.monotonic() - self.begun),
        ]
        parts += [f"{waiting} updates wait for MLflow" for waiting in [self.backlog()] if waiting]
        parts += [f"{hidden} more above"] * (hidden > 0) + [self.phase_text] * bool(self.phase_text)
        return Text.assemble((self.name, "bold"), "  ", "  ·  ".join(parts))


def parameters(job: Job) -> str:
    """The parameters of a job, keys cut to their last part; for a reference its task."""
    if job.role == "reference":
        return f"single task {job.config.data.tasks[0]}"
    if job.role == "prefix":
        return f"the beginning that trials of seed {job.config.seed} share"
    values = [(key.split(".")[-1], value) for key, value in job.params.items()]
    return format_params(values + [("seed", job.config.seed)] * job.replicate) or "base"


def metric(name: str, value: float) -> str:
    """A metric's value for people."""
    return count(value) if is_cost(name) and not name.startswith(MEASURED) else f"{value:.2f}"
