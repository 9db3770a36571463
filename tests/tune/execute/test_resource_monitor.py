"""A search without a machine reports it once, and reports when one is available again."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from faar_ray.cluster.capacity import Node
from faar_ray.cluster.ray_cluster import Machine
from faar_ray.config.run_sections import Resources
from faar_ray.tune.execute.resource_monitor import START_TIMEOUT_S, ResourceMonitor
from faar_ray.tune.show.json_lines import JsonLines
from faar_ray.tune.show.progress import Progress
from faar_ray.tune.space.space import SearchSpace

Space = Callable[..., SearchSpace]

Messages = list[tuple[str, bool]]


class Clock:
    """Seconds that a test turns on."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def nodes() -> list[Machine]:
    return [Machine("head", Node(0, 0), True, {})]


@pytest.fixture
def messages() -> Messages:
    return []


@pytest.fixture
def watch(
    driver: Callable[..., Any], space: Space, clock: Clock, nodes: list[Machine], messages: Messages
) -> ResourceMonitor:
    def notify(text: str, waiting: bool) -> None:
        messages.append((text, waiting))

    return ResourceMonitor(driver(space()).search_state, Resources(gpus_per_worker=1), notify, lambda: nodes, clock)


def test_a_search_that_waits_says_so_once_and_again_when_machines_come(
    watch: ResourceMonitor, clock: Clock, nodes: list[Machine], messages: Messages
) -> None:
    for second in range(100):
        clock.s = float(second)
        watch.update(has_machines=False)
    assert messages == [("waiting for machines: a trial needs 1 CPU and 1 GPU, the cluster has 0 CPUs now", True)]
    nodes.append(Machine("worker", Node(8, 1), False, {}))
    clock.s = 100.0
    watch.update(has_machines=True)
    watch.update(has_machines=True)
    assert messages[1:] == [("machines are there after 1:40: 8 CPUs and 1 GPU", False)]
    clock.s = 101.0
    watch.update(has_machines=False)
    clock.s = 101.0 + START_TIMEOUT_S
    watch.update(has_machines=False)
    assert [waiting for _, waiting in messages] == [True, False, True]  # lost again


def test_the_start_of_a_trial_is_no_wait(watch: ResourceMonitor, clock: Clock, messages: Messages) -> None:
    for second in (0.0, START_TIMEOUT_S - 1):
        clock.s = second
        watch.update(has_machines=False)
    watch.update(has_machines=True)
    assert messages == []


def test_nobody_waits_without_an_open_job(watch: ResourceMonitor, clock: Clock, messages: Messages) -> None:
    assert not watch.state.running
    for second in range(60):
        clock.s = float(second)
        watch.on_step_end(0, [])  # without a job Ray is not even asked
    assert messages == []


def test_a_pipe_gets_a_plain_line_a_terminal_the_headline_and_a_program_an_event() -> None:
    text = "waiting for machines: a trial needs 1 CPU, the cluster has 0 CPUs now"
    out = io.StringIO()
    with Progress(Console(file=out, force_terminal=False), "rho", ["delta_m"], 8) as plain:
        plain.machines(text, True)
    assert out.getvalue().strip().endswith(text)
    board = Progress(Console(file=io.StringIO(), force_terminal=True, width=160), "rho", ["delta_m"], 8)
    board.machines(text, True)
    assert board._headline().plain.endswith(text)
    board.machines("machines are there", False)
    assert "machines" not in board._headline().plain
    out = io.StringIO()
    with JsonLines(out) as lines:
        lines.machines(text, True)
    event = json.loads(out.getvalue())
    assert (event["event"], event["waiting"], event["text"]) == ("machines", True, text)
