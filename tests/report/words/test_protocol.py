"""How numbers were measured stands beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from faar_ray.config.data_section import DataConfig
from faar_ray.config.trial import TrialConfig
from faar_ray.records import TrialResult
from faar_ray.report.results import read_results, write_results
from faar_ray.report.words.protocol import measured_as, protocol


def result(metrics: dict[str, float], **params: Any) -> TrialResult:
    return TrialResult("t000-s0", "id", 0, "trial", "COMPLETE", params, metrics, 1.0, 1)


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"name": "scenes", "image_size": 64}, "64x64"),
        ({"image_size": 448}, "resized 448x448"),
        ({"image_size": [96, 128], "protocol": "papers"}, "resized 96x128, published val"),
        ({"image_size": 448, "evaluation": "original"}, "original from 448x448"),
        ({"image_size": 448, "absent_classes": "zero", "depth_floor": 1e-9}, "resized 448x448, depth at least 1e-09"),
        ({"tasks": ["semseg"], "absent_classes": "zero", "depth_floor": 1e-9}, "resized 64x64, absent classes 0"),
    ],
)
def test_a_label_names_what_decides_the_numbers(changes: dict[str, Any], label: str) -> None:
    data = DataConfig.model_validate({"name": "nyud", "root": "data", "tasks": ["depth"], **changes})
    assert data.evaluated_as == label
    assert measured_as(data, []) == f"val: {label}"
    assert measured_as(data, [result({"test/delta_m": 1.0})]) == f"val and test: {label}"


def test_sizes_and_evaluations_that_were_searched_are_all_named() -> None:
    data = DataConfig.model_validate({"name": "nyud", "root": "data", "tasks": ["depth"], "image_size": 448})
    params: list[dict[str, Any]] = [
        {},
        {"data.image_size": [96, 128]},
        {"data.evaluation": "original", "optim.lr": 1.0},
    ]
    results = [result({}, **one) for one in params]
    assert measured_as(data, results) == "val: resized 448x448 or resized 96x128 or original from 448x448"


@pytest.mark.parametrize(("evaluation", "said"), [("resized", "compared at 32 x 32"), ("original", "labels' own size")])
def test_the_report_says_at_which_size_predictions_are_compared(evaluation: str, said: str) -> None:
    data = {"name": "nyud", "root": "data", "tasks": ["depth", "edge"], "image_size": 32, "evaluation": evaluation}
    sentences = " ".join(protocol(TrialConfig.resolve({"data": data}), []))
    assert said in sentences
    assert "on test odsF" in sentences


def test_the_report_says_what_the_means_are_over() -> None:
    keys: dict[str, Any] = {"name": "nyud", "root": "data", "tasks": ["semseg", "depth"]}
    ours = " ".join(protocol(TrialConfig.resolve({"data": keys}), []))
    assert (
        "mean IoU over classes that occur in labels or predictions" in ours and "RMSE over pooled pixels (m)." in ours
    )
    forks = {**keys, "absent_classes": "zero", "depth_floor": 1e-9}
    assert "over all classes, absent ones as 0" in " ".join(protocol(TrialConfig.resolve({"data": forks}), []))
    assert "(m), predictions raised to 1e-09." in " ".join(protocol(TrialConfig.resolve({"data": forks}), []))


def test_results_keep_how_they_were_measured(tmp_path: Path) -> None:
    rows = [result({"delta_m": 1.0})]
    write_results(tmp_path / "results.parquet", rows, "val: resized 448x448")
    assert pq.read_schema(tmp_path / "results.parquet").metadata[b"faar_ray.protocol"] == b"val: resized 448x448"
    assert read_results(tmp_path / "results.parquet") == rows
