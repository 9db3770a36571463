"""What surrounds a trial but is no part of it: resources, storage, tracking."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from faar_ray.config.paths import STORAGE, storage_fault
from faar_ray.config.secrets import take_credentials
from faar_ray.config.trial import Section
from faar_ray.config.validation_messages import rule

Count = Annotated[int, Field(ge=1)]
FolderName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"),
    rule("a folder's name: letters, digits, '.', '_' and '-', at most 100"),
]


TRACKING_URI = re.compile(r"^(sqlite:///|(postgresql|mysql|mssql)(\+[a-z0-9]+)?://|https?://).")
TrackingUri = Annotated[
    str,
    Field(pattern=TRACKING_URI.pattern),
    AfterValidator(take_credentials),
    rule("an MLflow database or server, such as sqlite:///mlflow.db or http://host:5000"),
]
"""What is read, stored and shown is without a password; see `faar_ray.config.secrets`."""


class Resources(Section):
    """What one trial needs."""

    workers: Count = Field(
        1, description="Workers of a trial, each on its part of every batch; 2 or more run under Ray Train."
    )
    cpus_per_worker: Count = Field(1, description="CPUs, and torch threads, of a worker.")
    gpus_per_worker: Annotated[float, Field(ge=0)] = Field(0, description="GPUs of a worker; a fraction shares one.")
    max_concurrent: Count | Literal["auto"] = Field(
        "auto", description="Trials at the same time; `auto`: as many as fit."
    )


class Storage(Section):
    """Where results go: `<path>/<name>/`."""

    path: Annotated[str, Field(min_length=1)] = Field(
        "./runs", description=f"Folder of all runs, of this machine or shared; or {STORAGE}."
    )
    keep_checkpoints: Count = Field(2, description="Newest checkpoints that a trial keeps.")

    @field_validator("path")
    @classmethod
    def _known_kind(cls, path: str) -> str:
        if fault := storage_fault(path):
            raise ValueError(fault)
        return path


class Tracking(Section):
    """Where MLflow writes."""

    uri: TrackingUri = Field(
        "sqlite:///mlflow.db",
        description="MLflow tracking URI; a relative sqlite path counts from the working directory. The environment's "
        "MLFLOW_TRACKING_URI, if it is set, replaces this default.",
    )
    experiment: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="MLflow experiment; null: the name of the search or trial. The environment's "
        "MLFLOW_EXPERIMENT_NAME, if it is set, replaces this default.",
    )
