"""A trial that replays recorded epochs; needs no torch, so that hundreds of processes fit into one machine."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from typing import Any

from faar_ray.bench.recorded import recorded
from faar_ray.config import TrialConfig
from faar_ray.records import EpochRecord
from faar_ray.tracking.place import place_of_trial
from faar_ray.tracking.trial_files import clear_leftovers_of, write_config, write_down

WRITE_MS = "time/replay_ms"
"""A replayed epoch's own time: what a trial writes."""


def replayed(spec: Mapping[str, Any], pace_s: float = 0.0) -> Generator[EpochRecord, None, dict[str, float]]:
    """What `fit_spec` gives, without training.

    Args:
        spec: of the trial.
        pace_s: seconds that an epoch takes, asleep.
    """
    config, place = TrialConfig.model_validate(spec["config"]), place_of_trial(spec)
    given, test = recorded().epochs_of(config)
    started, done = time.perf_counter(), list[EpochRecord]()
    clear_leftovers_of(place.folder, place.trace)
    write_config(place.folder, config)
    for record in given:
        time.sleep(pace_s)
        done.append(record)
        write_down(place.folder, place.trace, spec["trial_id"], done)
        record.metrics[WRITE_MS] = 1000 * (time.perf_counter() - started - pace_s)
        yield record
        started = time.perf_counter()
    return test if spec["test"] else {}
