"""One trial's file, for `python -m faar_ray.train CONFIG.yaml`: a trial config with run-level keys beside it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, model_validator

from faar_ray.config.overrides import apply_overrides
from faar_ray.config.run_sections import FolderName, Resources, Storage, Tracking
from faar_ray.config.trial import Positive, TrialConfig
from faar_ray.config.validation_messages import format_issues, issues_of, raise_issues, reference_faults
from faar_ray.config.yaml_document import Document, read_yaml
from faar_ray.errors import ConfigError


class TrialFile(TrialConfig):
    """A trial config, flat, and what surrounds the run."""

    name: FolderName | None = Field(None, description="Name of the run and of its folder; null: the file's stem.")
    references: dict[str, Positive] | None = Field(
        None, description="Single-task metric of each task, for delta_m; null: no delta_m."
    )
    resources: Resources = Resources()
    storage: Storage = Storage()
    tracking: Tracking = Tracking()

    @model_validator(mode="after")
    def _references_match(self) -> Self:
        if self.references is not None:
            raise_issues(reference_faults(self.references, self.data.tasks, ("references",)))
        return self

    @property
    def config(self) -> TrialConfig:
        """The trial alone."""
        return TrialConfig.model_validate({key: getattr(self, key) for key in TrialConfig.model_fields})


def read_trial(path: Path, overrides: Sequence[str] = ()) -> TrialFile:
    """The trial of a file, `key=value` overrides on top.

    Raises:
        ConfigError: with every fault, one line each.
    """
    return trial_of(trial_document(path, overrides))


def trial_of(document: Document) -> TrialFile:
    """The trial of a document.

    Raises:
        ConfigError: with every fault, one line each.
    """
    try:
        return TrialFile.model_validate(document.data)
    except ValidationError as error:
        raise ConfigError(format_issues(issues_of(error, TrialFile, document.data), document)) from None


def trial_document(path: Path, overrides: Sequence[str] = ()) -> Document:
    """A trial's file with `key=value` overrides on top, not yet checked."""
    document = read_yaml(path)
    if {"parameters", "objectives"} <= document.data.keys():
        text = f"is a search space, not a trial's config; search it: python -m faar_ray.tune {shlex.quote(str(path))}"
        raise ConfigError(f"{document.file}:1:1: {text}")
    return apply_overrides(document, overrides)
