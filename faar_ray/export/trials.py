"""TRIAL on a command line: a trial's folder or URI, `<name>/<trial_id>` under ./runs, or an MLflow run id."""

from __future__ import annotations

import re
from pathlib import Path

from faar_ray.config.paths import is_remote
from faar_ray.errors import ConfigError
from faar_ray.storage.run_location import download_run
from faar_ray.tracking.mlflow.store import download_artifact

FILE = "adapter.safetensors"
RUN_ID = re.compile(r"[0-9a-f]{32}")


def adapter_of(trial: str, *, tracking_uri: str = "sqlite:///mlflow.db", runs: Path = Path("runs")) -> Path:
    """The trial's adapter file.

    Raises:
        ConfigError: there is no such trial, or it has not finished.
    """
    if is_remote(trial):
        return _of_uri(trial)
    given = Path(trial)
    name, _, trial_id = trial.rpartition("/")
    candidates = [given, *([runs / name / "trials" / trial_id] if name else [])]
    for folder in candidates:
        if folder.is_file():
            return folder
        if folder.is_dir():
            if (folder / FILE).is_file():
                return folder / FILE
            raise ConfigError(f"{folder}: has no {FILE}; a trial writes it after its last epoch")
    if RUN_ID.fullmatch(trial):
        return download_artifact(tracking_uri, trial, FILE)
    known = sorted(f"{p.parents[1].name}/{p.name}" for p in runs.glob("*/trials/*") if (p / FILE).is_file())
    hint = f" (finished ones under {runs}: {', '.join(known[:8])})" if known else ""
    raise ConfigError(f"{trial}: no such folder, no such NAME/TRIAL_ID under {runs}, and no MLflow run id{hint}")


def _of_uri(uri: str) -> Path:
    """Of `s3://bucket/prefix/<name>/trials/<trial_id>`, or of the file in it."""
    run, mark, trial_id = uri.rstrip("/").removesuffix(f"/{FILE}").rpartition("/trials/")
    if not mark or "/" in trial_id:
        raise ConfigError(f"{uri}: must be the URI of a trial, .../NAME/trials/TRIAL_ID")
    part = f"trials/{trial_id}/{FILE}"
    return download_run(run, part).path / part
