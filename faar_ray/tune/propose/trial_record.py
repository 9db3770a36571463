"""What the search keeps about a trial in its Optuna user attributes: their names, and typed access to them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from faar_ray.records import TrialResult, result_of
from faar_ray.report.progress import RESULT, TRIAL_ID, WARM_START

CONFIG_ID = "config_id"
CONFIG_NUMBER = "config_number"
SEED = "seed"
REPLICATE = "replicate"
STOP_REASON = "stop_reason"
EPOCH = "epoch/"
"""With the epoch's number: the metrics that the stopping rule looks at; null for none."""
PARENT = "parent"
"""Id of the trial from whose checkpoint this one goes on."""
INHERITED = "inherited_epochs"
WAITS = "waits"
"""Of a trial that waits for its population: the result that it would end with now."""
OLDER_ID = "warm_start_trial"


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """A trial's user attributes, typed."""

    trial: FrozenTrial | optuna.Trial

    @property
    def attrs(self) -> dict[str, Any]:
        """All of them, as Optuna has them."""
        return self.trial.user_attrs

    @property
    def trial_id(self) -> str:
        """ "" until the trial's values are drawn."""
        return str(self.attrs.get(TRIAL_ID, ""))

    @property
    def config_id(self) -> str:
        """Of its configuration on the base's seed; "" until its values are drawn."""
        return str(self.attrs.get(CONFIG_ID, ""))

    @property
    def config_number(self) -> int | None:
        """Number of the first trial with its configuration."""
        return self.attrs.get(CONFIG_NUMBER)

    @property
    def seed(self) -> int | None:
        """None until its values are drawn, unless it was given before."""
        return self.attrs.get(SEED)

    @property
    def is_replicate(self) -> bool:
        """Whether it runs a leading configuration on one more seed."""
        return bool(self.attrs.get(REPLICATE))

    @property
    def stop_reason(self) -> str:
        """Why it was stopped, "" where it was not."""
        return str(self.attrs.get(STOP_REASON, ""))

    @property
    def parent(self) -> str:
        """Id of the trial whose checkpoint it began with, "" for none."""
        return str(self.attrs.get(PARENT, ""))

    @property
    def inherited_epochs(self) -> int:
        """Epochs of that checkpoint."""
        return int(self.attrs.get(INHERITED, 0))

    @property
    def is_older(self) -> bool:
        """Whether it comes from `warm_start.from`."""
        return WARM_START in self.attrs

    @property
    def result(self) -> TrialResult | None:
        """How it ended; None while it has not."""
        return result_of(self.attrs[RESULT]) if RESULT in self.attrs else None

    @property
    def waiting(self) -> TrialResult | None:
        """Its result so far, if it has ever waited for its population."""
        return result_of(self.attrs[WAITS]) if WAITS in self.attrs else None

    @property
    def epochs(self) -> list[list[float]]:
        """Of each finished epoch, the metrics that the stopping rule looks at; NaN where one has no value."""
        rows = [value for name, value in sorted(self.attrs.items()) if name.startswith(EPOCH)]
        return [
            [math.nan if value is None else value for value in (row if isinstance(row, list) else [row])]
            for row in rows
        ]
