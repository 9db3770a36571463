"""The fence around Ray's internals: nobody else imports them, and each is there in the version that was tested."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
import ray
import ray._private.state
import ray._private.worker
from ray.tune.execution.tune_controller import TuneController

import faar_ray
from faar_ray.cluster.ray_internals import TABLES, TESTED_VERSION, job_with_path

PACKAGE = Path(faar_ray.__file__).parent


def test_this_is_the_ray_that_the_internals_were_tested_with() -> None:
    assert ray.__version__.startswith(f"{TESTED_VERSION}."), (
        "read faar_ray/cluster/ray_internals.py again, run the tests marked `faults` and `cluster`, set TESTED_VERSION"
    )


@pytest.mark.parametrize("name", ["get_cluster_config", "_connect_and_get_accessor"])
def test_the_state_of_the_cluster_has_what_is_called(name: str) -> None:
    assert callable(getattr(ray._private.state.state, name))
    assert callable(ray._private.state.actors)


def test_the_tables_have_the_fields_that_are_read() -> None:
    group, actor = TABLES.PlacementGroupTableData(), TABLES.ActorTableData()
    for field in ("state", "creator_job_id", "creator_actor_id", "placement_group_id", "bundles"):
        assert hasattr(group, field)
    assert {group.REMOVED, group.CREATED} <= set(group.PlacementGroupState.values())
    assert isinstance(actor.address.node_id, bytes)


def test_the_worker_still_prints_by_the_name_that_is_replaced() -> None:
    assert callable(ray._private.worker.print_to_stdstream)


def test_a_driver_still_hands_on_its_path_by_that_name() -> None:
    assert "/data" in job_with_path(["/data"])._get_proto_job_config().py_driver_sys_path


def test_tune_s_controller_has_what_is_changed_when_an_actor_dies() -> None:
    assert callable(TuneController._set_trial_status)
    source = inspect.getsource(TuneController)
    assert "self._resetting_trials: Set[Trial] = set()" in source


def test_no_other_file_imports_rays_internals() -> None:
    strays = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.startswith(("ray._", "ray.core.generated")) or "._private" in name for name in names):
                strays.add(path.relative_to(PACKAGE).as_posix())
    assert strays == {"cluster/ray_internals.py"}
