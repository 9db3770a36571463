"""A placement group whose maker was killed is freed; others stay."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
import ray
from ray.util.placement_group import placement_group, placement_group_table

from faar_ray.cluster.ray_cluster import connected
from faar_ray.tune.execute.node_loss import PlacementGroupReaper

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


class Owner:
    def make(self) -> int:
        self.group = placement_group([{"CPU": 1}])
        ray.get(self.group.ready())
        return os.getpid()


def groups() -> int:
    return sum(group["state"] != "REMOVED" for group in placement_group_table().values())


def test_a_killed_actors_placement_group_is_freed() -> None:
    with connected(None):
        actor: Any = ray.remote(num_cpus=0)(Owner).remote()
        pid = ray.get(actor.make.remote())
        PlacementGroupReaper().on_step_end(0, [])
        assert groups() == 1
        os.kill(pid, signal.SIGKILL)
        sweeper, deadline = PlacementGroupReaper(), time.monotonic() + 60
        while groups():
            assert time.monotonic() < deadline, "the placement group is still there"
            sweeper.on_step_end(0, [])
            time.sleep(0.1)
