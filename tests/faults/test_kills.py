"""kill -9 of the driver and of a trial's process: the search ends as if nothing had been, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from faar_ray.bench.faults.campaign import FaultResult
from faar_ray.bench.faults.search_harness import Target
from faar_ray.bench.faults.watch import MOMENTS, Moment

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


REAL = {("driver", "while writing a checkpoint"), ("trial", "after a shrink")}
"""One real kill of each; the other moments are tested by replayed trials, and for real at night."""
KILLS = [
    pytest.param(target, moment, marks=[] if (target, moment) in REAL else [pytest.mark.nightly])
    for target in ("driver", "trial")
    for moment in MOMENTS[:3]
]


@pytest.mark.parametrize(("target", "moment"), KILLS)
def test_a_kill_loses_one_epoch_at_most_and_changes_nothing(
    inject: Callable[..., FaultResult], target: Target, moment: Moment
) -> None:
    kill = inject(target, moment)
    assert kill.passed(exactly=True), kill
