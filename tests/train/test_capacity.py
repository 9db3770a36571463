"""How many trials run at once."""

from __future__ import annotations

import pytest

from faar_ray.errors import ConfigError
from faar_ray.sections import Resources
from faar_ray.train.capacity import Node, capacity, this_machine


@pytest.mark.parametrize(
    ("need", "nodes", "expected"),
    [
        (Resources(), [Node(2, 0)], 2),
        (Resources(cpus_per_worker=2), [Node(3, 0), Node(3, 0)], 2),  # not 3: a trial does not span machines
        (Resources(gpus_per_worker=0.25), [Node(16, 1)], 4),
        (Resources(gpus_per_worker=0.3), [Node(16, 2)], 6),
        (Resources(gpus_per_worker=2), [Node(16, 5)], 2),
        (Resources(gpus_per_worker=0.25), [Node(3, 1)], 3),
        (Resources(max_concurrent=1), [Node(8, 0)], 1),
        (Resources(max_concurrent=64), [Node(8, 0)], 8),
    ],
)
def test_as_many_run_as_fit(need: Resources, nodes: list[Node], expected: int) -> None:
    assert capacity(need, nodes).concurrent == expected


def test_a_trial_that_can_never_fit_is_refused_and_the_shortfall_named() -> None:
    with pytest.raises(ConfigError, match="cpus_per_worker: 64 CPUs, 2 there are"):
        capacity(Resources(cpus_per_worker=64), [Node(2, 0)])
    with pytest.raises(ConfigError, match="gpus_per_worker: 1 GPUs, 0 there are"):
        capacity(Resources(gpus_per_worker=1), [Node(2, 0)])
    with pytest.raises(ConfigError, match="different machines"):
        capacity(Resources(gpus_per_worker=1, cpus_per_worker=4), [Node(8, 0), Node(1, 1)])


def test_why_names_need_and_supply() -> None:
    assert capacity(Resources(), [Node(2, 0)]).why == "a trial needs 1 CPU, there are 2 CPUs"


def test_this_machine_has_a_cpu() -> None:
    assert this_machine().cpus >= 1
