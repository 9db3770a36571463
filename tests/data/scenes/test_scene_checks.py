"""Values outside their range are named; those of a rendered shard are not."""

from __future__ import annotations

import pytest
import torch

from faar_ray.data.dense import DenseDataset
from faar_ray.data.scenes.scene_checks import value_problems


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("semseg", 9, "semseg: must be 0..8 or 255, got 9"),
        ("human_parts", 7, "human_parts: must be 0..6 or 255, got 7"),
        ("normals", 0, "normals: must have length 1, got 0.00..1.0"),
        ("depth", float("nan"), "depth: must be 0..20 m, got nan"),
    ],
)
def test_a_value_outside_its_range_is_a_problem(dataset: DenseDataset, name: str, value: float, problem: str) -> None:
    columns = {task: values.clone() for task, values in dataset.stored.items()}
    assert value_problems(columns) == []
    columns[name][0, ..., 0, 0] = torch.tensor(value).to(columns[name].dtype)
    (message,) = value_problems(columns)
    assert message.startswith(problem)
