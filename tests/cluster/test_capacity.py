"""How many trials run at once."""

from __future__ import annotations

import pytest

from faar_ray.cluster.capacity import Node, capacity, this_machine
from faar_ray.config.run_sections import Resources
from faar_ray.errors import ConfigError


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
    with pytest.raises(ConfigError, match="cpus_per_worker: 64 CPUs, at most 2 on one machine"):
        capacity(Resources(cpus_per_worker=64), [Node(2, 0)])
    with pytest.raises(ConfigError, match="gpus_per_worker: 1 GPUs, at most 0 on one machine"):
        capacity(Resources(gpus_per_worker=1), [Node(2, 0)])
    with pytest.raises(ConfigError, match="different machines"):
        capacity(Resources(gpus_per_worker=1, cpus_per_worker=4), [Node(8, 0), Node(1, 1)])


def test_why_names_need_and_supply() -> None:
    assert capacity(Resources(), [Node(2, 0)]).why == "a trial needs 1 CPU, there are 2 CPUs"


def test_this_machine_has_a_cpu() -> None:
    assert this_machine().cpus >= 1


def test_machines_that_may_come_count_and_are_told_apart_from_those_there() -> None:
    result = capacity(Resources(gpus_per_worker=0.5), [Node(0, 0), Node(4, 1)], [Node(4, 1)] * 3)
    assert (result.concurrent, result.now) == (8, 2)
    assert result.why == (
        "a trial needs 1 CPU and 0.5 GPUs, there are 4 CPUs and 1 GPU now, "
        "3 machines may be added: 16 CPUs and 4 GPUs in all"
    )
    assert capacity(Resources(max_concurrent=3), [Node(2, 0)], [Node(2, 0)]).concurrent == 3


def test_a_trial_that_fits_nowhere_even_when_all_have_come_is_refused() -> None:
    assert capacity(Resources(workers=2), [], [Node(1, 0), Node(1, 0)]).now == 0
    with pytest.raises(
        ConfigError, match=r"any of 3 machines \(2 of them not started yet\): gpus_per_worker: 2 GPUs, at most 1 "
    ):
        capacity(Resources(gpus_per_worker=2), [Node(0, 0)], [Node(4, 1)] * 2)
    with pytest.raises(ConfigError, match=r"all of 3 machines .*workers: 3 of 1 CPU each, 2 would fit"):
        capacity(Resources(workers=3), [Node(0, 0)], [Node(1, 0)] * 2)


def test_a_single_machine_is_called_one_where_only_the_workers_are_too_many() -> None:
    with pytest.raises(ConfigError, match=r"^resources: no trial can ever start on this machine: workers: 5 of 1 CPU"):
        capacity(Resources(workers=5), [Node(4, 0)])
