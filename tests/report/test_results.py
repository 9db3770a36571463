from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faar_ray.errors import DataError
from faar_ray.records import TrialResult
from faar_ray.report.results import read_results, write_results


def result(trial: str = "t000-s0", **changed: Any) -> TrialResult:
    plain: dict[str, Any] = {
        "trial_id": trial, "config_id": "ab", "seed": 0, "role": "trial", "state": "COMPLETE",
        "params": {"pdrs.rho_shared": 0.95, "ranks.init_rank": 16}, "metrics": {"delta_m": -1.0}, "seconds": 3.5,
        "epochs": 6, "run_id": "f00", "reason": "",
    }  # fmt: skip
    return TrialResult(**{**plain, **changed})


def test_columns_are_the_contracts(tmp_path: Path) -> None:
    write_results(tmp_path / "results.parquet", [result()])

    table = pq.read_table(tmp_path / "results.parquet")

    assert table.column_names[:2] == ["trial_id", "config_id"]
    assert {"seed", "state", "role", "pdrs.rho_shared", "delta_m", "seconds", "epochs"} <= set(table.column_names)
    assert table.schema.field("pdrs.rho_shared").type == pa.float64()
    assert table.schema.field("ranks.init_rank").type == pa.int64()


def test_what_a_trial_does_not_have_stays_absent(tmp_path: Path) -> None:
    rows = [result(), result("ref", role="reference", params={}, metrics={"val/depth/rmse": 1.0})]

    write_results(tmp_path / "r.parquet", rows)

    assert read_results(tmp_path / "r.parquet") == rows


def test_a_parameter_named_like_a_column_does_not_lose_either(tmp_path: Path) -> None:
    rows = [result(params={"seed": 7, "param.seed": 8}, metrics={"seconds": 1.0, "trial_id": 2.0})]

    write_results(tmp_path / "r.parquet", rows)

    assert read_results(tmp_path / "r.parquet") == rows


def test_mixed_lists_and_explicit_nulls_come_back(tmp_path: Path) -> None:
    values: list[Any] = [None, ["qkv", "proj"], "null", True, 1, 1.5]
    rows = [result(f"t{i}", params={"placement.layers": v}) for i, v in enumerate(values)]

    write_results(tmp_path / "r.parquet", rows)

    assert read_results(tmp_path / "r.parquet") == rows


def test_a_metric_that_is_nan_is_not_an_absent_one(tmp_path: Path) -> None:
    write_results(tmp_path / "r.parquet", [result(metrics={"a": math.nan, "b": 1.0}), result("t1", metrics={"b": 2.0})])

    first, second = read_results(tmp_path / "r.parquet")

    assert math.isnan(first.metrics["a"])
    assert "a" not in second.metrics


def test_no_trials_is_a_file_too(tmp_path: Path) -> None:
    write_results(tmp_path / "r.parquet", [])

    assert read_results(tmp_path / "r.parquet") == []


scalars = st.one_of(st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.text(), st.none())
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.dictionaries(names, scalars, max_size=4), st.dictionaries(names, st.floats(allow_nan=False))),
             max_size=4)
)  # fmt: skip
def test_every_table_comes_back_as_it_went(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[dict[str, Any], dict[str, float]]]
) -> None:
    results = [result(f"t{i}", params=p, metrics=m) for i, (p, m) in enumerate(rows)]
    path = tmp_path_factory.getbasetemp() / "property.parquet"

    write_results(path, results)

    assert read_results(path) == results


def test_files_that_are_no_results_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")

    for name, rule in [("other", "not a results file"), ("broken", "not a readable"), ("no", "no such results")]:
        with pytest.raises(DataError, match=rf"{name}\.parquet: {rule}"):
            read_results(tmp_path / f"{name}.parquet")
