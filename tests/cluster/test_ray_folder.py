"""Ray's sockets have short paths whatever TMPDIR is."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from faar_ray.cluster import ray_folder as module
from faar_ray.cluster.ray_folder import LONGEST_SOCKET, SESSION, is_short, use_short_ray_folder
from faar_ray.errors import ConfigError
from tests.commands import environment


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_TMPDIR", "TMPDIR", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, "")  # so that the end of the test restores it
        monkeypatch.delenv(name)


@pytest.fixture
def long_folder(tmp_path: Path) -> Path:
    folder = tmp_path / ("of-a-job-" * 9)
    folder.mkdir()
    return folder


def test_a_short_folder_stays_rays_own(monkeypatch: pytest.MonkeyPatch) -> None:
    use_short_ray_folder()
    monkeypatch.setenv("TMPDIR", "/tmp")
    use_short_ray_folder()
    assert "RAY_TMPDIR" not in os.environ


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_long_one_is_replaced_by_a_short_private_one(
    monkeypatch: pytest.MonkeyPatch, long_folder: Path, variable: str
) -> None:
    monkeypatch.setenv(variable, str(long_folder))
    use_short_ray_folder()
    folder = Path(os.environ["RAY_TMPDIR"])
    assert is_short(folder / "ray")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    use_short_ray_folder()
    assert os.environ["RAY_TMPDIR"] == str(folder)


@pytest.mark.parametrize("value", ["relative", "/proc/no/such/folder"])
def test_so_is_one_that_ray_cannot_use(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("TMPDIR", value)
    use_short_ray_folder()
    assert is_short(Path(os.environ["RAY_TMPDIR"]) / "ray")


def test_a_folder_that_others_can_use_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, long_folder: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(long_folder))
    monkeypatch.setattr(module, "is_short", lambda folder: str(folder) != str(long_folder / "ray"))
    monkeypatch.setattr("os.getuid", lambda: -1)  # whose folders these are not
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match=r"^TMPDIR: Ray's sockets fit neither there nor in /tmp/faar_ray-user"):
        use_short_ray_folder()


def test_the_limit_is_the_operating_systems() -> None:
    assert is_short(Path("/" + "x" * (LONGEST_SOCKET - 2 - len(SESSION))))
    assert not is_short(Path("/" + "x" * (LONGEST_SOCKET - 1 - len(SESSION))))


@pytest.mark.slow
def test_ray_starts_below_a_long_tmpdir(long_folder: Path) -> None:
    script = (
        "from faar_ray.cluster.ray_cluster import connected\n"
        "with connected(None) as machines:\n    print(len(machines))\n"
        "from faar_ray.bench.local_cluster import local_cluster\n"
        "with local_cluster(1) as cluster:\n    print(len(cluster.raylets()))\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, env=environment({"TMPDIR": str(long_folder)}), capture_output=True, text=True, timeout=240, check=False
    )
    assert (done.returncode, done.stdout.split()) == (0, ["1", "1"]), done.stderr
