"""The measurement runs and has the contract's shape; no test depends on times."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest

from faar_ray.bench.__main__ import main
from faar_ray.bench.step.variants import PEFT, VARIANTS

TINY = [
    "--backbone",
    "swin_micro",
    "--image-size",
    "64",
    "--batch",
    "1",
    "--rank",
    "4",
    "--shrunk",
    "2",
    "--pairs",
    "1",
]


def test_json_has_the_contracts_shape(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["step", *TINY, "--no-memory", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result) == ["device", "threads", "image_size", "batch", "floor_ms", "rows"]
    names = ["variant", "rank", "ms", "ratio", "peak_mb", "trainable_params", "macs_ratio"]
    assert all(list(row) == names for row in result["rows"])
    rows = {(row["variant"], row["rank"]): row for row in result["rows"]}
    expected = [*VARIANTS, *([PEFT] if find_spec("peft") else [])]
    assert set(rows) == {("floor", 0), *((variant, rank) for variant in expected for rank in (4, 2))}
    assert rows["floor", 0]["ratio"] == 1
    assert all(row["ratio"] > 0 for row in result["rows"])
    for variant in VARIANTS:
        assert rows[variant, 2]["trainable_params"] < rows[variant, 4]["trainable_params"]


def test_one_method_is_a_table_with_its_peak(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["step", *TINY, "--method", "decoder_only"]) == 0
    printed = capsys.readouterr().out
    assert "decoder_only" in printed
    assert "peak MB" in printed


@pytest.mark.parametrize("wrong", [["--backbone", "vit_tiny_patch16_224"], ["--device", "cuda"]])
def test_what_cannot_be_measured_is_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["step", *wrong]) == 2
    assert f"{wrong[0]}: must be" in capsys.readouterr().err
