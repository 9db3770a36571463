"""kill -9 of the driver and of a trial's process: the search ends as if nothing had been, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from faar_ray.bench.faults.campaign import FaultResult
from faar_ray.bench.faults.search_harness import Target
from faar_ray.bench.faults.watch import MOMENTS, Moment

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


@pytest.mark.parametrize("moment", MOMENTS[:3])
@pytest.mark.parametrize("target", ["driver", "trial"])
def test_a_kill_loses_one_epoch_at_most_and_changes_nothing(
    strike: Callable[..., FaultResult], target: Target, moment: Moment
) -> None:
    kill = strike(target, moment)
    assert kill.passed(exactly=True), kill
