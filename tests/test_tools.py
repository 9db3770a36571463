"""The next command to type is one that works."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from faar_ray.tools import tool_command, ui_command


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
    assert ui_command(f"sqlite:///{Path.cwd() / 'mlflow.db'}") == ".venv/bin/mlflow ui"
    assert ui_command("sqlite:////data/m.db") == ".venv/bin/mlflow ui --backend-store-uri sqlite:////data/m.db"
