"""The folder of a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faar_ray.errors import ConfigError, DataError
from faar_ray.tune.run.run_folder import (
    check_resumable,
    differences,
    lock_run,
    read_run,
    recorded_tracking,
    resolved,
    stored_space,
    write_run,
)
from faar_ray.tune.space.space import SearchSpace, read_space

Space = Callable[..., SearchSpace]


def test_a_name_in_use_is_refused_and_nothing_is_touched(space: Space, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="exists already: --resume goes on with it, --name NEW starts another"):
        check_resumable(tmp_path, space(), resume=False)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_run_that_is_not_there_cannot_be_resumed(space: Space, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no run in"):
        check_resumable(tmp_path / "gone", space(), resume=True)
    assert not (tmp_path / "gone").exists()


def test_a_changed_space_is_not_resumed_and_the_difference_is_named(space: Space, tmp_path: Path) -> None:
    lock_run(tmp_path, space()).close()
    check_resumable(tmp_path, space(), resume=True)
    changed = space(parameters={"pdrs.rho_shared": {"max": 0.9, "prior": 0.8}}, base={"pdrs": {"beta": 0.5}})
    with pytest.raises(ConfigError) as caught:
        check_resumable(tmp_path, changed, resume=True)
    text = "\n".join(caught.value.faults)
    assert "parameters.pdrs.rho_shared.max was 0.99 when the run was started and is 0.9 now" in text
    assert "base.pdrs.beta was absent when the run was started and is 0.5 now" in text


def test_another_password_or_user_of_the_same_database_is_no_difference(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    first, other = (space(tracking={"uri": f"postgresql://{user}@h/db"}) for user in ("u:s3cr3t", "v:other"))
    assert "s3cr3t" not in json.dumps(resolved(first))
    assert list(differences(resolved(first), resolved(other))) == []


def test_the_recorded_place_is_read_of_the_run(space: Space, tmp_path: Path) -> None:
    assert recorded_tracking(tmp_path) == {}
    lock_run(tmp_path, space(tracking={"uri": "http://host", "experiment": "x"})).close()
    assert recorded_tracking(tmp_path) == {"uri": "http://host", "experiment": "x"}


def test_a_run_from_before_a_key_existed_goes_on(space: Space, tmp_path: Path) -> None:
    lock_run(tmp_path, space()).close()
    stored = stored_space(tmp_path)
    del stored["scheduler"]["min_trials"]
    (tmp_path / "space.yaml").write_text(json.dumps(stored))
    check_resumable(tmp_path, space(), resume=True)
    with pytest.raises(ConfigError, match=r"scheduler\.min_trials was 3 when the run was started and is 5 now"):
        check_resumable(tmp_path, space(scheduler={"min_trials": 5}), resume=True)


def test_more_budget_and_other_resources_may_be_given_on_resume(space: Space) -> None:
    more = space(budget={"trials": 60, "time": "2h"}, resources={"max_concurrent": 1}, failure={"max_failures": 9})
    assert list(differences(resolved(space()), resolved(more))) == []


def test_the_stored_space_is_one_that_tune_reads(space: Space, tmp_path: Path) -> None:
    lock_run(tmp_path, space(constraints=["trainable_params <= 4.0e6"])).close()
    assert resolved(read_space(tmp_path / "space.yaml")) == stored_space(tmp_path)


def test_one_driver_at_a_time(space: Space, tmp_path: Path) -> None:
    stored = lock_run(tmp_path, space())
    with pytest.raises(ConfigError, match="a search is running in"):
        lock_run(tmp_path, space())
    stored.close()
    lock_run(tmp_path, space()).close()


def test_run_json_survives_and_a_missing_one_is_empty(space: Space, tmp_path: Path) -> None:
    stored = lock_run(tmp_path, space())
    assert read_run(stored.path) == {}
    facts: dict[str, Any] = {"name": "tiny", "tracking_uri": "sqlite:///x", "parent_run_id": "1", "objectives": []}
    write_run(stored, facts)
    assert read_run(stored.path) == json.loads((tmp_path / "run.json").read_text()) == facts
    stored.close()


def test_a_broken_stored_space_is_named(tmp_path: Path, space: Space) -> None:
    (tmp_path / "space.yaml").write_text("[")
    with pytest.raises(DataError, match=r"space\.yaml: is not readable"):
        check_resumable(tmp_path, space(), resume=True)
