from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path

from faar_ray.tracking.mlflow.environment import environment, git_commit


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *who, "-C", str(folder), *arguments], check=True, capture_output=True)


def test_it_names_versions_and_seed() -> None:
    result = environment(seed=7)

    assert result["seed"] == 7
    assert result["packages"]["pyarrow"] == version("pyarrow")
    assert list(result["packages"]) == sorted(result["packages"], key=str.lower)


def test_a_change_to_a_tracked_file_makes_the_commit_dirty(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "a")
    clean = git_commit(tmp_path)

    (tmp_path / "a.py").write_text("2")

    assert clean is not None and len(clean) == 40
    assert git_commit(tmp_path) == f"{clean}-dirty"


def test_a_package_installed_inside_somebody_elses_checkout_has_no_commit(tmp_path: Path) -> None:
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "a")
    (tmp_path / "site-packages").mkdir()

    assert git_commit(tmp_path / "site-packages") is None
    assert git_commit(tmp_path / "absent") is None
