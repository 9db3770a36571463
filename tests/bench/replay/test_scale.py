"""What `bench scale` measures, that its actor answers as a trial's does, and one small run of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from faar_ray.bench.__main__ import main
from faar_ray.bench.replay.paced import WRITE_MS, PacedActor, at_pace
from faar_ray.bench.replay.replay import ReplayActor, replay_space
from faar_ray.bench.replay.scale import figures
from faar_ray.bench.replay.stopwatch import Clock
from faar_ray.storage.run_location import RunLocation
from faar_ray.train.trial_spec import TrialSpec
from tests.commands import environment


def spec(folder: Path) -> dict[str, Any]:
    config = replay_space(folder, 4).trial_config({})
    return TrialSpec("t000-s0", config, RunLocation(folder / "run"), test=True, keep_checkpoints=1).to_dict()


def answers(actor: Any) -> list[dict[str, Any]]:
    given = [actor.step()]
    while not given[-1]["done"]:
        given.append(actor.step())
    for answer in given:
        assert answer["metrics"].pop(WRITE_MS) < 5000
    return given


def test_the_actor_at_pace_answers_as_a_replaying_trial_does(tmp_path: Path) -> None:
    replaying, paced = ReplayActor(spec(tmp_path / "a")), PacedActor(spec(tmp_path / "b"))
    assert answers(paced) == answers(replaying)
    paced.reset_config(spec(tmp_path / "b"))
    assert answers(paced)
    files = {path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert (
        files == {path.relative_to(tmp_path / "b") for path in (tmp_path / "b").rglob("*") if path.is_file()} != set()
    )


def test_the_actor_imports_no_torch() -> None:
    """Else two hundred of them need more memory than a machine has."""
    code = "import sys; import faar_ray.bench.replay.paced; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_an_epoch_takes_its_pace(tmp_path: Path) -> None:
    actor = at_pace(0.3)(spec(tmp_path))
    actor.step()
    started = time.monotonic()
    actor.step()
    assert time.monotonic() - started >= 0.3


def test_the_facts_are_those_of_full_load() -> None:
    """Two machines, six trials: a trial a second is handed out, its first result comes 5 s later, all end at 20 s."""
    clock = Clock()
    clock.handed = {f"t{i}": 100.0 + i for i in range(6)}
    clock.waited = dict.fromkeys(clock.handed, 5.0)
    clock.asked = dict.fromkeys(clock.handed, 0.02)
    clock.written = [1.0] * 12
    rows = [
        {
            "s": 100.0 + s, "handed": min(6, s // 3), "reporting": min(6, max(0, s - 4)), "ended": 6 if s >= 20 else 0,
            "results": 2 * s, "waiting": 3 * s, "cpu_s": s / 4, "gcs_cpu_s": s / 100,
            "driver_mb": 100 + s, "gcs_mb": 50.0,
        }
        for s in range(0, 30)
    ]  # fmt: skip
    result = figures(clock, [{name: float(value) for name, value in row.items()} for row in rows], 2, pace_s=4.0)
    assert result["all_handed_out_s"] == 1.0
    assert result["all_busy_s"] == 2.0  # the second machine's first result came at 6 s, of an epoch of 4 s
    assert result["loaded_s"] == 11.0  # from 6 s on both report; at 18 s all are handed out
    assert (result["results_per_s"], result["driver_cpu_percent"], result["gcs_cpu_percent"]) == (2.0, 25, 1)
    assert result["driver_mb"] == [100, 129]
    assert result["mlflow"] == {"asked_per_s": 2.0, "made_per_s": -1.0, "most_waiting": 87, "late_s": 9.0}


@pytest.mark.parametrize("words", [["--machines", "6"], ["--pace", "-1"], ["--pace", "nan"]])
def test_faults_are_told(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scale", *words]) == 2
    assert capsys.readouterr().err.startswith(f"{words[0]}: must be ")


@pytest.mark.cluster
def test_a_small_cluster_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scale", "--machines", "4", "--rounds", "2", "--pace", "0.5", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["replay"] is True
    assert sum(result["ended"].values()) == result["trials"] == 8
    assert result["all_busy_s"] > 0 and result["results_per_s"] > 0 and result["gcs_mb"][1] > 10
