"""optuna-dashboard on the journal of a search that runs: in a real browser, and without a trace in the search."""

from __future__ import annotations

import json
import os
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
import optuna
import pytest
from matplotlib import image
from optuna.trial import FrozenTrial

from faar_ray.tune.journal import SPENT, read_journal

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DASHBOARD = shutil.which("optuna-dashboard", path=str(Path(sys.executable).parent))
pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH (apt-get install chromium)"),
    pytest.mark.skipif(DASHBOARD is None, reason="no optuna-dashboard (pip install -e '.[test]')"),
]
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--window-size=1400,1800",
    "--virtual-time-budget=20000",
)  # fmt: skip
SOURCE = Path(__file__).parents[2]


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
    running: bool = False
    """Whether the search still ran when the last page was there."""


def asked(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=20) as answer:
        return json.load(answer)


def until(found: Callable[[], Any], seconds: float = 300) -> Any:
    """What is found first that is not empty."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if what := found():
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


def chromium(profile: Path, *arguments: str) -> str:
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def searched(folder: Path, write: Callable[..., Path], watch: Callable[[Watched], None]) -> Watched:
    """A real search, one trial at a time; `watch` looks on while it runs."""
    folder.mkdir()
    write(folder / "space.yaml", budget={"trials": 6}, resources={"max_concurrent": 1}, scheduler={"type": "none"})
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-m", "faar_ray.tune", "space.yaml", "-q"]
    seen = Watched(folder / "runs" / "tiny" / "study.log")
    with (folder / "stderr").open("w+") as stderr:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=stderr)
        try:
            watch(seen)
            seen.running = process.poll() is None
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
def watched(folder: Path, space_file: Callable[..., Path]) -> Watched:
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
            there = f"{address}/dashboard/studies/{number}/trials?numbers={seen.trial['number']}"
            seen.pages.append(chromium(folder / "profile", "--dump-dom", there))
            chromium(folder / "profile", f"--screenshot={folder / 'trials.png'}", there)

    return searched(folder / "watched", space_file, watch)


@pytest.fixture(scope="module")
def alone(folder: Path, watched: Watched, space_file: Callable[..., Path]) -> Watched:
    """The same search, unwatched."""
    return searched(folder / "alone", space_file, lambda seen: None)


def test_the_dashboard_shows_the_trials_of_a_search_that_runs(watched: Watched, folder: Path) -> None:
    assert watched.running
    (page,) = watched.pages
    assert "tiny" in page
    assert "1 - pdrs.rho_shared" in page
    for told in ("trainable_params", "mlflow_run_id", watched.trial["params"][0]["param_external_value"][:8]):
        assert told in page
    pixels = image.imread(folder / "trials.png")[..., :3]
    assert len(np.unique((pixels * 15).astype(int).reshape(-1, 3), axis=0)) > 20


def kept(trial: FrozenTrial) -> tuple[Any, ...]:
    """What of a trial depends on its config and seed alone."""
    return trial.number, trial.state, trial.params, trial.values, sorted(trial.user_attrs)


def test_a_watched_search_ends_as_one_that_is_not(watched: Watched, alone: Watched) -> None:
    assert (watched.code, alone.code) == (0, 0), watched.stderr
    one, other = read_journal(watched.journal), read_journal(alone.journal)
    assert [kept(trial) for trial in one.get_trials()] == [kept(trial) for trial in other.get_trials()]
    assert sorted(one.user_attrs) == sorted(other.user_attrs)
    assert len(one.get_trials(states=[optuna.trial.TrialState.COMPLETE])) == 6
    assert {path.name for path in watched.journal.parent.iterdir()} == {
        path.name for path in alone.journal.parent.iterdir()
    }


def test_the_dashboard_writes_nothing_into_the_journal(watched: Watched, alone: Watched) -> None:
    def written(run: Watched) -> list[tuple[int, str]]:
        lines = map(json.loads, run.journal.read_text().splitlines())
        told = ((line["op_code"], next(iter(line.get("user_attr", {"": 0})))) for line in lines)
        return [pair for pair in told if pair[1] not in SPENT]  # how often these are written is a matter of time

    assert written(watched) == written(alone)
