"""optuna-dashboard on the journal of a search that runs: in a real browser, and without a trace in the journal."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image
from optuna.trial import TrialState

from faar_ray.tune.propose.journal import SPENT, read_journal
from faar_ray.tune.run.jobs import Job
from faar_ray.tune.space.space import SearchSpace
from tests.commands import start_command

DASHBOARD = shutil.which("optuna-dashboard", path=str(Path(sys.executable).parent))
pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(900),
    pytest.mark.skipif(DASHBOARD is None, reason="no optuna-dashboard (pip install -e '.[test]')"),
]
WINDOW = ("--window-size=1400,1800", "--virtual-time-budget=20000")
TRIALS = 6
TIMED = {"worker_id", "datetime_start", "datetime_complete", "seconds", "result", *SPENT}
Trainer = Callable[[Job, int], dict[str, float]]


@dataclass
class Watched:
    """A search, and what was seen of it while it ran."""

    journal: Path
    code: int = -1
    stderr: str = ""
    pages: list[str] = field(default_factory=list)
    """The page of the trials, as the browser had it."""
    trial: dict[str, Any] = field(default_factory=dict)
    """The first finished trial, as the dashboard's server told it."""


def asked(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=20) as answer:
        return json.load(answer)


def until(condition: Callable[[], Any], seconds: float = 300) -> Any:
    """The first result of the condition that is not empty."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if what := condition():
                return what
        except OSError:
            pass
        time.sleep(0.2)
    raise TimeoutError


@contextmanager
def dashboard(journal: Path) -> Iterator[str]:
    """`optuna-dashboard JOURNAL` on this machine alone; gives its address once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(DASHBOARD), str(journal), "--host", "127.0.0.1", "--port", str(port), "--server", "wsgiref"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: asked(f"http://127.0.0.1:{port}/api/studies"))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def searched(folder: Path, write: Callable[..., Path], watch: Callable[[Watched], None]) -> Watched:
    """A real search, one trial at a time; `watch` looks on while it runs."""
    folder.mkdir()
    one_by_one = {"resources": {"max_concurrent": 1}, "scheduler": {"type": "none"}}
    write(folder / "space.yaml", budget={"trials": TRIALS}, **one_by_one)
    seen = Watched(folder / "runs" / "tiny" / "study.log")
    with (folder / "stderr").open("w+") as stderr:
        process = start_command("tune", folder, "space.yaml", "-q", stdout=subprocess.DEVNULL, stderr=stderr)
        try:
            watch(seen)
            seen.code = process.wait(500)
        finally:
            process.terminate()
            process.wait(60)
        stderr.seek(0)
        seen.stderr = stderr.read()
    return seen


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dashboard")


@pytest.fixture(scope="module")
def watched(folder: Path, space_file: Callable[..., Path], chromium: Callable[..., str]) -> Watched:
    """A search that the dashboard looks at from its first trial on."""

    def watch(seen: Watched) -> None:
        until(lambda: seen.journal.exists() and b'"op_code":4' in seen.journal.read_bytes().replace(b" ", b""))
        with dashboard(seen.journal) as address:
            (study,) = asked(f"{address}/api/studies")["study_summaries"]
            number = study["study_id"]

            def finished() -> Any:
                trials = asked(f"{address}/api/studies/{number}?after=0")["trials"]
                return [trial for trial in trials if trial["state"] == "Complete"]

            seen.trial = until(finished)[0]
            remote = f"{address}/dashboard/studies/{number}/trials?numbers={seen.trial['number']}"
            seen.pages.append(chromium(folder / "profile", *WINDOW, "--dump-dom", remote))
            chromium(folder / "profile", *WINDOW, f"--screenshot={folder / 'trials.png'}", remote)

    return searched(folder / "watched", space_file, watch)


def test_the_dashboard_shows_the_trials_of_a_search_that_runs(watched: Watched, folder: Path) -> None:
    (page,) = watched.pages
    assert "tiny" in page
    assert {"Complete", "Running"} <= set(re.findall("Complete|Running", page))
    assert "1 - pdrs.rho_shared" in page
    for message in ("trainable_params", "mlflow_run_id", watched.trial["params"][0]["param_external_value"][:8]):
        assert message in page
    pixels = image.imread(folder / "trials.png")[..., :3]
    assert len(np.unique((pixels * 15).astype(int).reshape(-1, 3), axis=0)) > 20


def test_a_watched_search_ends_well_with_every_trial(watched: Watched) -> None:
    assert watched.code == 0, watched.stderr
    trials = read_journal(watched.journal).get_trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * TRIALS
    assert "results.parquet" in os.listdir(watched.journal.parent)


def written(journal: Path) -> list[dict[str, Any]]:
    """What a journal holds, without the writer's name and what depends on the clock."""
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    kept = [line for line in lines if line.get("user_attr", {"": 0}).keys().isdisjoint(TIMED)]
    return [{key: value for key, value in line.items() if key not in TIMED} for line in kept]


def test_the_dashboard_writes_nothing_and_locks_nothing(
    tmp_path: Path, driver: Callable[..., Any], space: Callable[..., SearchSpace], trainer: Trainer
) -> None:
    alone, watched = tmp_path / "alone.log", tmp_path / "watched.log"
    driver(space(), alone).run()

    looked: list[str] = []
    running = driver(space(), watched)
    with dashboard(watched) as address:

        def states() -> set[str]:
            return {trial["state"] for trial in asked(f"{address}/api/studies/0?after=0")["trials"]}

        def train(job: Job, epoch: int) -> dict[str, float]:
            looked.extend(states())
            return trainer(job, epoch)

        running.train = train
        running.run()
        until(lambda: states() == {"Complete", "Pruned"}, seconds=60)  # it keeps what it read for ten seconds

    assert "Running" in looked
    assert written(watched) == written(alone)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone.log", "watched.log"]
