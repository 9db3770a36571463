"""Ctrl-C, SIGTERM and a closed terminal: nothing stays open, and `--resume` ends as if nothing had been."""

from __future__ import annotations

import signal
import time

import pytest

from faar_ray.bench.faults.campaign import Baseline
from faar_ray.bench.faults.search_harness import SearchHarness
from faar_ray.report.source import read_search
from faar_ray.storage.interruption import read_note

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


@pytest.mark.parametrize(
    "stop",
    [signal.SIGINT, *(pytest.param(stop, marks=pytest.mark.nightly) for stop in (signal.SIGHUP, signal.SIGTERM))],
)
def test_a_stop_closes_everything_and_names_the_command_that_resumes(
    harness: SearchHarness, baseline: Baseline, stop: signal.Signals
) -> None:
    name = f"stopped-{stop.name}"
    driver = harness.start(name)
    deadline = time.monotonic() + 240
    while not list(harness.run(name).glob("trials/*/checkpoints/epoch_0001.pt")):
        assert time.monotonic() < deadline and driver.poll() is None, harness.log_text(name)
        time.sleep(0.02)
    assert len(harness.processes()) > 1
    for process in harness.processes() if stop == signal.SIGHUP else []:  # it reaches the whole group
        process.send_signal(stop)
    if stop != signal.SIGHUP:
        driver.send_signal(stop)
    assert driver.wait(120) == 130, harness.log_text(name)
    output = harness.log_text(name)
    assert f"python -m faar_ray.tune space.yaml --name {name} --resume" in output
    assert "Traceback" not in output
    assert f"interrupted by {stop.name}" in read_note(harness.run(name))
    assert "This search is not finished: it was interrupted" in str(read_search(harness.run(name)).progress)
    assert harness.leaks(name) == []
    harness.finish(harness.start(name, "--resume"), name)
    assert harness.record(name).equal(baseline.record)
    assert (read_note(harness.run(name)), str(read_search(harness.run(name)).progress)) == ("", "")
