"""The test split is read once, after the search, for the final table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import optuna

from faar_ray.tune import cluster, journal
from faar_ray.tune.pen import Pen
from faar_ray.tune.roster import config_of
from faar_ray.tune.space import SearchSpace


def read_test_once(
    space: SearchSpace,
    study: optuna.Study,
    folder: Path,
    references: Mapping[str, float],
    pen: Pen,
    say: Callable[[str], None],
) -> None:
    """Read it for every complete trial and control that it was not read for; the journal keeps what it gave."""
    complete = [r for r in journal.results(study) if r.state == "COMPLETE" and r.role != "reference"]
    due = [result for result in complete if not any(name.startswith("test/") for name in result.metrics)]
    if not due:
        return
    configs = {result.trial_id: config_of(space, result) for result in due}
    say(f"reading the test split, once: {len(due)} trials")
    found = cluster.read_tests(
        due, configs, folder, references, space.resources, lambda n: say(f"reading the test split, once: {n} of {len(due)}")
    )
    for trial_id, metrics in found.items():
        study.set_user_attr(journal.TEST_RESULT + trial_id, metrics)
        pen.tested(trial_id, metrics)
    if lost := [result.trial_id for result in due if result.trial_id not in found]:
        pen.complain(f"the test split could not be read for {', '.join(lost)}")
