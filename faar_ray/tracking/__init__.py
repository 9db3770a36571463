"""What a search leaves: the trials' files (Parquet, the truth) and MLflow runs (a view of them).

MLflow's own settings are set here, before any file of this package imports it.
"""

import os

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # the sync thread repeats what failed; MLflow's own 7 retries of 120 s hide an outage for minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
"""Defaults; the environment has precedence."""
for _key, _value in SETTINGS.items():
    os.environ.setdefault(_key, _value)
