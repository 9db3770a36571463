"""What a person sees while a search runs."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable

from rich.console import Console

from faar_ray.records import TrialResult
from faar_ray.tune.run.jobs import Job
from faar_ray.tune.show.json_lines import JsonLines
from faar_ray.tune.show.progress import Progress
from faar_ray.tune.show.reporter import Reporter
from faar_ray.tune.space.space import SearchSpace

Space = Callable[..., SearchSpace]
METRICS = {"delta_m": -3.456, "trainable_params": 336_912.0}


def play(progress: Reporter, space: Space, trials: int) -> None:
    for number in range(trials):
        job = Job(f"t{number:03d}-s0", "trial", space().trial_config({}), {"pdrs.rho_shared": 0.95}, number)
        progress.started(job)
        progress.epoch(job, 0, METRICS)
        done = TrialResult(job.trial_id, "abc", 0, "trial", "PRUNED", {}, METRICS, 65.0, 1, reason="too weak")
        progress.ended(job, done)


def board(terminal: bool, height: int = 20, verbosity: int = 0) -> tuple[Progress, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100, height=height, color_system=None)
    return Progress(console, "rho", ["delta_m", "trainable_params"], 40, verbosity), out


def test_a_pipe_gets_a_line_per_event(space: Space) -> None:
    progress, out = board(terminal=False)
    with progress:
        play(progress, space, 1)
    started, ended = out.getvalue().splitlines()
    assert started.endswith("t000-s0          started  [rho_shared 0.95]")
    assert "pruned in 1:05  delta_m -3.46  trainable_params 337k  too weak" in ended
    assert "\x1b" not in out.getvalue()


def test_a_program_gets_a_json_line_per_event(space: Space) -> None:
    out = io.StringIO()
    with JsonLines(out) as progress:
        progress.phase("starting Ray")
        play(progress, space, 1)
        progress.note("MLflow is unavailable")
    phase, started, epoch, ended, note = map(json.loads, out.getvalue().splitlines())
    assert (phase["event"], phase["text"]) == ("phase", "starting Ray")
    assert (started["event"], started["trial_id"], started["params"]) == (
        "started",
        "t000-s0",
        {"pdrs.rho_shared": 0.95},
    )
    assert (epoch["event"], epoch["epoch"], epoch["metrics"]) == ("epoch", 0, METRICS)
    assert (ended["event"], ended["state"], ended["reason"]) == ("ended", "PRUNED", "too weak")
    assert (note["event"], note["text"]) == ("note", "MLflow is unavailable")


def test_a_metric_that_is_not_finite_is_null_in_a_json_line(space: Space) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    out = io.StringIO()
    job = Job("t000-s0", "trial", space().trial_config({}), {}, 0)
    metrics = {"delta_m": math.inf, "val/normals/mean_angle": math.nan, "train/loss": 1.0}
    with JsonLines(out) as progress:
        progress.epoch(job, 0, metrics)
        progress.ended(job, TrialResult("t000-s0", "abc", 0, "trial", "FAIL", {}, metrics, 6.0, 1))
    for line in out.getvalue().splitlines():
        event = json.loads(line, parse_constant=refuse)
        assert event["metrics"] == {"delta_m": None, "val/normals/mean_angle": None, "train/loss": 1.0}


def test_verbose_shows_every_epoch_and_quiet_nothing(space: Space) -> None:
    loud, output = board(terminal=False, verbosity=1)
    play(loud, space, 1)
    assert "epoch 1/3  delta_m -3.46" in output.getvalue()
    quiet, output = board(terminal=False, verbosity=-1)
    play(quiet, space, 1)
    assert output.getvalue() == ""


def test_the_table_never_outgrows_the_terminal(space: Space) -> None:
    for trials in (1, 5, 40):
        progress, out = board(terminal=True, height=12, verbosity=-1)
        play(progress, space, trials)
        progress.console.print(progress._table())
        lines = out.getvalue().splitlines()
        assert len(lines) <= 12
        assert lines[-1].startswith(f"t{trials - 1:03d}-s0")
        assert f"{trials} of 40 trials" in lines[0]
        assert ("more above" in lines[0]) == (trials > 8)
