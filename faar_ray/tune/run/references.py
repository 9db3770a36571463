"""Single-task references, S_t of delta_m: trained once and kept as JSON in the cache for every search that needs them.

`<cache>/references/<key>.json`; the key covers data, backbone, optimizer, decoder, seed and the code that trains.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import faar_ray
from faar_ray.config.paths import default_cache_dir
from faar_ray.config.trial import TrialConfig
from faar_ray.data.fingerprint import fingerprint
from faar_ray.records import TrialResult, result_of, row_of
from faar_ray.storage.atomic import atomic_write
from faar_ray.tasks import primary, tasks_of
from faar_ray.tune.run.jobs import Job, reference_job
from faar_ray.tune.space.space import SearchSpace

ROOMS_THAT_TRAIN = ("tasks", "models", "decoders", "train", "data")


class References:
    """The references of one search.

    Args:
        space: numbers in its `references` are taken as they are; `auto` looks into the cache, then trains.
        finished: what this search has trained already.
        cache: folder of the cache.
        weights: digests of the weights that backbones begin with (`train.weights.weights_of`).
    """

    def __init__(
        self,
        space: SearchSpace,
        finished: Sequence[TrialResult] = (),
        cache: Path | None = None,
        *,
        weights: Mapping[str, str] | None = None,
    ) -> None:
        self._weights = weights or {}
        self.folder = (cache or default_cache_dir()) / "references"
        self.val: dict[str, float] = {}
        """Task -> its metric on val; what delta_m uses. NaN for a task without labels there, which it leaves out."""
        self.test: dict[str, float] = {}
        self._cached: list[tuple[Job, TrialResult]] = []
        self._jobs: list[Job] = []
        self._data = fingerprint(space.trial_config({}).data) if space.references == "auto" else ""
        if space.references == "auto":
            done = {result.trial_id: result for result in finished if result.state == "COMPLETE"}
            for task in space.trial_config({}).data.tasks:
                self._look_up(reference_job(space, task), done)
        else:
            self.val, self.test = dict(space.references), dict(space.references)

    def jobs(self) -> list[Job]:
        """References to train."""
        return list(self._jobs)

    def cached(self) -> list[tuple[Job, TrialResult]]:
        """References that an earlier search trained."""
        return list(self._cached)

    def note(self, job: Job) -> str:
        """What is odd about a reference that is known now: no labels, or a value of 0; "" for nothing."""
        task = job.config.data.tasks[0]
        values = {"val": self.val[task], "test": self.test[task]}
        if lacking := [split for split, value in values.items() if math.isnan(value)]:
            return f"{task}: no labels on {' and '.join(lacking)}, delta_m leaves it out there"
        if zero := [split for split, value in values.items() if value == 0]:
            return f"{task}: the single-task reference is 0 on {' and '.join(zero)}, delta_m is not defined there"
        return ""

    def keep(self, job: Job, result: TrialResult, test: Mapping[str, float]) -> None:
        """Use a reference that was trained, and cache it; a cache that cannot be written is ignored."""
        result = dataclasses.replace(result, metrics={**result.metrics, **test})
        self._take(job, result)
        row = row_of(dataclasses.replace(result, run_id=""))
        row["metrics"] = dict.fromkeys(_needed(job)) | row["metrics"]  # null: no evidence
        try:
            with atomic_write(self._path(job)) as scratch:
                kept = {"depends_on": facts(job.config, self._weights, self._data), "result": row}
                scratch.write_text(json.dumps(kept, indent=1, allow_nan=False))
        except OSError:
            return

    def _look_up(self, job: Job, finished: dict[str, TrialResult]) -> None:
        result = finished.get(job.trial_id)
        if result is None and (result := self._read(job)) is not None:
            self._cached.append((dataclasses.replace(job, cached=True), result))
        if result is None:
            self._jobs.append(job)
        else:
            self._take(job, result)

    def _take(self, job: Job, result: TrialResult) -> None:
        tasks = tasks_of(job.config.data)
        metrics = dict.fromkeys(_needed(job), math.nan) | result.metrics
        self.val |= primary(metrics, tasks, "val")
        self.test |= primary(metrics, tasks, "test")

    def _path(self, job: Job) -> Path:
        text = json.dumps(facts(job.config, self._weights, self._data), sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"

    def _read(self, job: Job) -> TrialResult | None:
        """A cached reference; an unreadable one counts as none."""
        try:
            row = json.loads(self._path(job).read_text())["result"]
            return result_of(row) if {*_needed(job)} <= row["metrics"].keys() else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


def _needed(job: Job) -> list[str]:
    """The reference's metric on val and on test, by name."""
    tasks = tasks_of(job.config.data).items()
    return [f"{split}/{name}/{task.metric}" for split in ("val", "test") for name, task in tasks]


def facts(config: TrialConfig, weights: Mapping[str, str], data: str = "") -> dict[str, Any]:
    """Everything that a reference's metrics depend on; weights in a file count by what they are, not by its name.

    Args:
        config: of the reference.
        weights: digests by checkpoint or backbone.
        data: what the data set's files and code are (`data.fingerprint`).
    """
    plain, path = config.model_dump(mode="json"), config.backbone.checkpoint
    digest = weights.get(path or config.backbone.name, "")
    if digest and path:
        plain["backbone"]["checkpoint"] = ""
    return {"config": plain, "code": code_version(), "weights": digest, "data": data}


@functools.cache
def code_version() -> str:
    """Hash of the package's files that take part in training."""
    package = Path(faar_ray.__file__).parent
    digest = hashlib.sha256()
    for room in ROOMS_THAT_TRAIN:
        for path in sorted((package / room).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]
