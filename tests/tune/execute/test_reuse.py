"""An actor that dies while the next trial is on its way into it costs that trial a retry, and no more."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from faar_ray.bench.replay.paced import PacedActor
from faar_ray.bench.replay.replay import replay_space
from faar_ray.tune.run.resolved_search import resolve
from faar_ray.tune.search import Parts, run_search
from faar_ray.tune.show.progress import Progress

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


class Dying(PacedActor):
    """Replays; the first process that is to take a second trial dies of it."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Once for all processes."""
        try:
            Path(new_config["run"]["path"], "died").touch(exist_ok=False)
        except FileExistsError:
            return super().reset_config(new_config)
        os._exit(1)


def test_a_trial_whose_actor_died_before_it_began_is_tried_again(tmp_path: Path) -> None:
    space = replay_space(tmp_path, 4)
    console = Console(file=io.StringIO())
    with Progress(console, space.name, ["delta_m"], 4, -1) as progress:
        result = run_search(resolve(space), progress, resume=False, parts=Parts(actor=Dying))
    assert (result.place.path / "died").exists()
    assert result.counts["failed"] == 0
    assert sum(result.counts.values()) == 4
