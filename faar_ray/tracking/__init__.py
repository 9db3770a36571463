"""What a search leaves behind: rank traces (Parquet, the truth) and MLflow runs (the view).

MLflow's own settings are made here, before any file of this room imports it.
"""

import os

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # a server that is away is tried again by the outbox; MLflow's own 7 retries of 120 s hide it for minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
"""Defaults; what the environment has wins."""
for _key, _value in SETTINGS.items():
    os.environ.setdefault(_key, _value)
