"""What surrounds a trial but is no part of it: resources, storage, tracking."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from faar_ray.config import Section

STORAGE = "s3://BUCKET/PREFIX"
Count = Annotated[int, Field(ge=1)]
FolderName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        json_schema_extra={"words": "a folder's name: letters, digits, '.', '_' and '-', at most 100"},
    ),
]


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


def storage_fault(path: str) -> str:
    """What is wrong with a storage path as text, "" for nothing; never quotes what may be a secret."""
    scheme, mark, rest = path.partition("://")
    if not mark and not path.startswith("s3:"):
        return ""
    if "@" in rest.partition("/")[0] or "?" in rest:
        return f"must be {STORAGE} without user, key or options: credentials come from the environment"
    if not mark or scheme != "s3":
        return f"must be a folder or {STORAGE}, got {path!r}"
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^/#]+)*/?", rest):
        return f"must be {STORAGE} with a bucket's name as S3 takes it (3 to 63 of a-z, 0-9, '.', '-'), got {path!r}"
    return ""


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

    uri: str = Field(
        "sqlite:///mlflow.db",
        description="MLflow tracking URI; a relative sqlite path counts from the working directory.",
        pattern=r"^(sqlite:///|(postgresql|mysql|mssql)(\+[a-z0-9]+)?://|https?://).",
        json_schema_extra={"words": "an MLflow database or server, such as sqlite:///mlflow.db or http://host:5000"},
    )
    experiment: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="MLflow experiment; null: the name of the search or trial."
    )
