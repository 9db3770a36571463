from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE
from mlflow.utils.validation import _validate_metric_name

from faar_ray.errors import ConfigError
from faar_ray.tracking.mlflow.store import absolute_uri, artifact_location, is_unavailable, metric_name


def test_a_relative_database_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert absolute_uri("sqlite:///mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    assert absolute_uri("sqlite:///a/b.db?timeout=9") == f"sqlite:///{tmp_path}/a/b.db?timeout=9"
    assert absolute_uri(absolute_uri("sqlite:///mlflow.db")) == absolute_uri("sqlite:///mlflow.db")


@pytest.mark.parametrize("uri", ["http://127.0.0.1:5000", "https://host", "postgresql://u@host/db"])
def test_servers_stay_as_they_are(uri: str) -> None:
    assert absolute_uri(uri) == uri
    assert artifact_location(uri, "rho") is None


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns", "sqlite://", "sqlite:///", "sqlite:///:memory:", ""])
def test_what_mlflow_cannot_keep_is_refused_with_the_key(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.uri: must"):
        absolute_uri(uri)


def test_artifacts_lie_beside_the_database() -> None:
    assert artifact_location("sqlite:////data/my runs/mlflow.db", "rho/1") == "file:///data/my%20runs/mlartifacts/rho_1"


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=300))
def test_every_name_is_one_that_mlflow_takes(name: str) -> None:
    _validate_metric_name(metric_name(name))
    assert len(metric_name(name)) <= 250


@pytest.mark.parametrize("name", ["val/semseg/miou", "rank/stage0", "time/step_ms", "pdrs.rho_shared"])
def test_our_own_names_stay(name: str) -> None:
    assert metric_name(name) == name


@pytest.mark.parametrize(
    ("error", "unavailable"),
    [
        (MlflowException("locked", error_code=TEMPORARILY_UNAVAILABLE), True),
        (MlflowException("no connection", error_code=INTERNAL_ERROR), True),
        (MlflowException("bad name", error_code=INVALID_PARAMETER_VALUE), False),
        (ConnectionResetError(), True),
        (KeyError("run"), False),
    ],
)
def test_unavailable_and_rejected_are_distinguished(error: Exception, unavailable: bool) -> None:
    assert is_unavailable(error) is unavailable
