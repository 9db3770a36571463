"""What a command reads before anything starts, and that it reads it once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faar_ray.cluster import autoscaling
from faar_ray.errors import ConfigError
from faar_ray.tune.__main__ import main
from faar_ray.tune.run import resolved_search
from faar_ray.tune.run.resolved_search import resolve
from faar_ray.tune.space import space as space_module
from faar_ray.tune.space.space import SearchSpace

Space = Callable[..., SearchSpace]
AWS = str(Path(__file__).parents[3] / "clusters" / "aws.yaml")


def counted(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[str]:
    """One entry for each call of a module's function."""
    calls, real = list[str](), getattr(module, name)

    def call(*args: Any, **named: Any) -> Any:
        calls.append(name)
        return real(*args, **named)

    monkeypatch.setattr(module, name, call)
    return calls


def test_a_dry_run_reads_each_file_and_counts_this_machine_once(
    space_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spaces = counted(monkeypatch, space_module, "read_yaml")
    clusters = counted(monkeypatch, autoscaling, "read_cluster")
    machines = counted(monkeypatch, resolved_search, "this_machine")
    path = space_file(tmp_path / "a.yaml", storage={"path": str(tmp_path / "runs")})
    assert main([str(path), "--dry-run"]) == 0
    assert (len(spaces), len(clusters), len(machines)) == (1, 0, 1)
    assert main([str(path), "--dry-run", f"resources.cluster={AWS}"]) == 0
    assert (len(spaces), len(clusters), len(machines)) == (2, 1, 1)


def test_a_fault_found_later_is_located_without_reading_the_file_again(
    space_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spaces = counted(monkeypatch, space_module, "read_yaml")
    path = space_file(tmp_path / "a.yaml", resources={"cpus_per_worker": 4096})
    assert main([str(path), "--dry-run"]) == 2
    assert f"{path}:" in capsys.readouterr().err
    assert len(spaces) == 1


def test_a_search_for_a_cluster_is_not_run_on_this_machine(space: Space) -> None:
    with pytest.raises(ConfigError, match=r"resources\.cluster: needs --address"):
        resolve(space(resources={"cluster": AWS}))


def test_the_cluster_file_prices_a_trial(space: Space) -> None:
    search = resolve(space(resources={"cluster": AWS}), "auto")
    assert search.cluster_file is not None
    assert search.capacity is None
    assert search.space.resources.usd_per_hour is not None
    assert resolve(space()).capacity is not None
