"""Where MLflow is: the command line, the file, the run to resume, the environment, `./mlflow.db`, in this order."""

from __future__ import annotations

import pytest

from faar_ray.config.run_sections import Tracking
from faar_ray.errors import ConfigError
from faar_ray.tracking.place import default_tracking_uri, tracking_place

SERVER = "http://host:5000"


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", SERVER)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)


def test_the_environment_is_the_default_and_is_said() -> None:
    tracking, sentence = tracking_place(Tracking())
    assert (tracking.uri, tracking.experiment) == (SERVER, None)
    assert sentence == f"MLflow: {SERVER} (MLFLOW_TRACKING_URI)"
    assert default_tracking_uri() == SERVER


def test_a_named_place_has_precedence() -> None:
    assert tracking_place(Tracking(uri="sqlite:///mlflow.db"))[0].uri == "sqlite:///mlflow.db"
    assert tracking_place(Tracking(uri="http://other")) == (Tracking(uri="http://other"), "")


def test_the_experiment_follows_the_same_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "ours")
    tracking, sentence = tracking_place(Tracking())
    assert tracking.experiment == "ours"
    assert sentence == f"MLflow: {SERVER} (MLFLOW_TRACKING_URI), experiment ours (MLFLOW_EXPERIMENT_NAME)"
    assert tracking_place(Tracking(experiment="mine", uri=SERVER)) == (Tracking(experiment="mine", uri=SERVER), "")
    assert tracking_place(Tracking(uri=SERVER))[1] == "MLflow: experiment ours (MLFLOW_EXPERIMENT_NAME)"


def test_a_resumed_run_stays_where_it_is() -> None:
    recorded = {"uri": "sqlite:////data/mlflow.db", "experiment": "rho"}
    tracking, sentence = tracking_place(Tracking(), recorded)
    assert (tracking.uri, tracking.experiment, sentence) == ("sqlite:////data/mlflow.db", "rho", "")
    assert tracking_place(Tracking(uri="http://new"), recorded)[0].uri == "http://new"


def test_without_the_variable_it_is_the_database_of_the_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert tracking_place(Tracking()) == (Tracking(), "")
    assert default_tracking_uri() == Tracking().uri == "sqlite:///mlflow.db"


def test_a_place_that_cannot_be_used_is_refused_by_the_variables_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "htp://me:s3cr3t@host")
    with pytest.raises(ConfigError, match=r"^MLFLOW_TRACKING_URI: must be an MLflow database or server") as error:
        tracking_place(Tracking())
    assert "s3cr3t" not in str(error.value)
