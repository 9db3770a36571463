"""The next command to type is one that works."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from faar_ray.tools import tool_command, where_to_look


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with a virtual environment in it that is not activated."""
    binaries = tmp_path / ".venv" / "bin"
    binaries.mkdir(parents=True)
    for name in ("python", "mlflow"):
        (binaries / name).write_text("#!/bin/sh\n")
        (binaries / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(binaries / "python"))
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.chdir(tmp_path)
    return binaries


def test_a_program_is_called_by_its_path_where_the_shell_would_not_find_it(environment: Path) -> None:
    assert tool_command("mlflow") == ".venv/bin/mlflow"


def test_a_program_is_called_by_its_name_in_an_activated_environment(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{environment}:/usr/bin")
    assert tool_command("mlflow") == "mlflow"


def test_the_ui_needs_no_address_where_it_finds_the_database_by_itself(environment: Path) -> None:
    assert where_to_look(f"sqlite:///{Path.cwd() / 'mlflow.db'}", "1") == ".venv/bin/mlflow ui"
    assert where_to_look("sqlite:////data/m.db", "1") == ".venv/bin/mlflow ui --backend-store-uri sqlite:////data/m.db"


def test_it_finds_a_database_in_a_folder_of_any_name(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from faar_ray.tracking.mlflow.store import absolute_uri

    folder = environment / "50%20off a#b w?z"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert where_to_look(absolute_uri("sqlite:///mlflow.db"), "1") == f"{environment}/mlflow ui"


def test_of_a_server_the_page_is_named() -> None:
    assert where_to_look("http://host:5000", "3") == "http://host:5000/#/experiments/3"
    assert where_to_look("https://host/mlflow", "3", "ab12") == "https://host/mlflow/#/experiments/3/runs/ab12"
