"""Single-task references, S_t of delta_m: trained once and kept as JSON in the cache for every search that needs them.

`<cache>/references/<key>.json`; the key covers data, backbone, optimizer, decoder, seed and the code that trains.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import faar_ray
from faar_ray.config.paths import default_cache_dir
from faar_ray.config.trial import TrialConfig
from faar_ray.records import TrialResult, result_of
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
    """

    def __init__(self, space: SearchSpace, finished: Sequence[TrialResult] = (), cache: Path | None = None) -> None:
        self.folder = (cache or default_cache_dir()) / "references"
        self.val: dict[str, float] = {}
        """Task -> its metric on val; what delta_m uses."""
        self.test: dict[str, float] = {}
        self._cached: list[tuple[Job, TrialResult]] = []
        self._jobs: list[Job] = []
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

    def keep(self, job: Job, result: TrialResult, test: Mapping[str, float]) -> None:
        """Use a reference that was trained, and cache it; a cache that cannot be written is ignored."""
        result = dataclasses.replace(result, metrics={**result.metrics, **test})
        self._take(job, result)
        row = {**dataclasses.asdict(result), "run_id": ""}
        try:
            with atomic_write(self._path(job)) as scratch:
                scratch.write_text(json.dumps({"depends_on": facts(job.config), "result": row}, indent=1))
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
        self.val |= primary(result.metrics, tasks, "val")
        self.test |= primary(result.metrics, tasks, "test")

    def _path(self, job: Job) -> Path:
        text = json.dumps(facts(job.config), sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"

    def _read(self, job: Job) -> TrialResult | None:
        """A cached reference; an unreadable one counts as none."""
        try:
            result = result_of(json.loads(self._path(job).read_text())["result"])
            for split in ("val", "test"):
                primary(result.metrics, tasks_of(job.config.data), split)
            return result
        except (OSError, ValueError, KeyError, TypeError):
            return None


def facts(config: TrialConfig) -> dict[str, Any]:
    """Everything that a reference's metrics depend on."""
    return {"config": config.model_dump(mode="json"), "code": code_version()}


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
