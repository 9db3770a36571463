from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE
from mlflow.utils.validation import _validate_metric_name
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.base import PGDialect

from faar_ray.errors import ConfigError
from faar_ray.tracking.mlflow.store import (
    absolute_uri,
    artifact_location,
    config_error_on_failure,
    database_file,
    download_artifact,
    is_unavailable,
    metric_name,
)
from faar_ray.tracking.mlflow.writer import Tracker


def test_a_relative_database_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert absolute_uri("sqlite:///mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    assert absolute_uri("sqlite:///a/b.db?timeout=9") == f"sqlite:///{tmp_path}/a/b.db?timeout=9"
    assert absolute_uri(absolute_uri("sqlite:///mlflow.db")) == absolute_uri("sqlite:///mlflow.db")


@pytest.mark.parametrize("name", ["50%20off", "100%", "a b", "x#y", "w?z", "ünï-💡", "a;b&c=d", 'it\'s "so"'])
def test_a_folder_of_any_name_holds_database_and_artifacts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_mlflow: Path, name: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    shutil.copyfile(empty_mlflow, folder / "mlflow.db")
    monkeypatch.chdir(folder)

    tracker = Tracker("sqlite:///mlflow.db", "rho")
    run = tracker.start_search("rho", "name: rho\n", {})
    tracker.log_file(run, empty_mlflow, "copy.db")
    tracker.end_search("FINISHED")

    assert tracker.uri == absolute_uri(tracker.uri)
    assert database_file(tracker.uri) == folder / "mlflow.db"
    assert (folder / "mlartifacts" / "rho" / run / "artifacts" / "space.yaml").is_file()
    assert download_artifact(tracker.uri, run, "copy.db").read_bytes() == empty_mlflow.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert absolute_uri("sqlite:///~/db/mlflow.db?timeout=9") == f"sqlite:///{tmp_path}/home/db/mlflow.db?timeout=9"


def test_a_file_that_is_no_database_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("no database" * 100)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with pytest.raises(ConfigError, match=r"MLflow cannot use .*: file is not a database"):  # MLflow: after 102 s
        Tracker(uri, "rho")


class RecordedDialect(PGDialect):
    """Postgres whose driver keeps what it is given, and refuses it."""

    supports_statement_cache = True
    given: ClassVar[dict[str, Any]] = {}

    @classmethod
    def import_dbapi(cls) -> Any:
        return sqlite3

    def connect(self, *_: Any, **options: Any) -> Any:
        self.given.update(options)
        raise sqlite3.OperationalError('password authentication failed for user "u"')


def test_a_database_gets_the_password_and_no_message_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setitem(registry.impls, "postgresql.recorded", lambda: RecordedDialect)
    with pytest.raises(ConfigError, match="password authentication failed") as error:
        Tracker("postgresql+recorded://u:s3%40cr3t@h/db", "rho")
    assert RecordedDialect.given == {"host": "h", "database": "db", "username": "u", "password": "s3@cr3t"}
    assert "cr3t" not in str(error.value)

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    with pytest.raises(ConfigError, match=r"a password that is not in tracking.uri is taken from MLFLOW_TRACKING_URI"):
        Tracker("postgresql+recorded://u@h/db", "rho")


def test_a_driver_that_is_not_installed_is_named() -> None:
    with pytest.raises(ConfigError, match=r"MLflow cannot use .*: No module named 'asyncmy'"):
        Tracker("mysql+asyncmy://u@h/db", "rho")


def test_a_server_that_wants_a_password_says_where_it_comes_from() -> None:
    sentence = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD hold"
    with pytest.raises(ConfigError, match=sentence), config_error_on_failure("http://host"):
        raise MlflowException("API request failed with error code 401 != 200")


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
