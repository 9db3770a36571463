"""Where MLflow is, when neither the file nor the command line says so."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from faar_ray.config.quoting import quote_value
from faar_ray.config.run_sections import Tracking
from faar_ray.config.secrets import EXPERIMENT_VARIABLE, URI_VARIABLE
from faar_ray.errors import ConfigError

VARIABLES = {"uri": URI_VARIABLE, "experiment": EXPERIMENT_VARIABLE}
"""MLflow's own environment variable for each key."""


def default_tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, else the database of the working directory."""
    return os.environ.get(URI_VARIABLE) or str(Tracking.model_fields["uri"].default)


def tracking_place(tracking: Tracking, recorded: Mapping[str, Any] | None = None) -> tuple[Tracking, str]:
    """The section with the keys that nobody named: those of the run to resume, else of the environment.

    Args:
        tracking: as read.
        recorded: of the run to resume; None starts a new one.

    Returns:
        the section, and a sentence on what the environment gave, "" for nothing.

    Raises:
        ConfigError: a variable holds what MLflow cannot use.
    """
    found = {key: os.environ[name] for key, name in VARIABLES.items() if os.environ.get(name)}
    values = found if recorded is None else {key: recorded[key] for key in VARIABLES if recorded.get(key)}
    values = {key: value for key, value in values.items() if key not in tracking.model_fields_set}
    if not values:
        return tracking, ""

    try:
        filled = Tracking.model_validate(tracking.model_dump() | values)
    except ValidationError:
        name, value = VARIABLES["uri"], quote_value(values["uri"])
        rule = "must be an MLflow database or server, such as sqlite:///mlflow.db or http://host:5000"
        raise ConfigError(f"{name}: {rule}, got {value}; unset it, or give tracking.uri=...") from None
    if recorded is not None:
        return filled, ""
    named = [f"{getattr(filled, key)} ({VARIABLES[key]})" for key in values]
    return filled, f"MLflow: {', experiment '.join(named) if 'uri' in values else f'experiment {named[0]}'}"
