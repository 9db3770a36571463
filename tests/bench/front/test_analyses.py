"""From finished runs to a table, a picture and numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from faar_ray.bench.__main__ import main
from faar_ray.bench.front.searches import OURS, STOCK, Trace, found_by_fronts, gain, sentences, trace_of
from faar_ray.bench.front.stages import read_stage
from faar_ray.bench.front.studies import Box
from faar_ray.bench.front.volume import ONE_RUN, ONLY_CUT
from faar_ray.records import TrialResult
from tests.bench.front.made_up import as_measured, write_run

BOX = Box(quality=(-10.0, 0.0), size=(100.0, 10.0))


def tables(study: str, out: Path, capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    """The JSON and the Markdown of a study whose runs are there."""
    assert main(["front", study, "--tables", "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert json.loads((out / f"runs/front_{study}/result.json").read_text()) == found
    assert (out / f"runs/front_{study}/front.png").stat().st_size > 10_000
    return found, (out / f"runs/front_{study}/result.md").read_text()


def test_a_study_of_sizes_says_what_each_row_gains_at_equal_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage in ("front_embedded_baselines", "front_embedded_spectral"):
        write_run(tmp_path / "runs", read_stage(stage), as_measured)

    found, text = tables("embedded", tmp_path, capsys)

    by_seed = [as_measured({"ranks.kind": "fixed", "ranks.init_rank": 4}, seed)[0] for seed in range(5)]
    point = {"ranks.kind": "spectral", "ranks.budget": 100_512, "spectral.rotation": "fisher", "spectral.cut_epoch": 4}
    gains = [as_measured(point, seed)[0] - value for seed, value in enumerate(by_seed)]
    row = next(
        one
        for one in found["equal_size"]
        if one["row"] == "spectral (Fisher), fork after 5 of 6" and one["against"] == "DoRA, fixed rank 4"
    )
    assert row["delta_m"]["value"] == pytest.approx(sum(gains) / 5)
    assert row["delta_m"]["dof"] == 4
    assert "| 101k | DoRA, fixed rank 4 |" in text
    assert "The front against fixed ranks of its size: val ahead at 5 of 5 sizes, behind at 0; test" in text
    last = found["curves"][0]["steps"][-1]
    assert last["hypervolume_test"].keys() == last["hypervolume"].keys() == set("01234")
    assert all(last["hypervolume_test"][seed] < volume for seed, volume in last["hypervolume"].items())
    assert [curve["name"] for curve in found["curves"]] == [ONE_RUN, ONLY_CUT, "fixed ranks", "FAAR"]
    assert found["curves"][2]["steps"][-1]["epochs"] == 36


def test_variants_are_compared_with_the_plain_one_and_at_their_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage in ("front_embedded_baselines", "front_pdrs"):
        write_run(tmp_path / "runs", read_stage(stage), as_measured)

    found, text = tables("pdrs", tmp_path, capsys)

    assert "rho 0.8, spectral basis, masks in 25% of the steps, normalised losses" in text
    against = {row["row"] for row in found["against_plain"]}
    assert "rho 0.5, normalised losses" in against
    assert not any("plain" in row or "0.95" in row for row in against)
    assert {row["row"] for row in found["against_fixed"]} >= {"rho 0.8, plain", "rho 0.95, spectral basis"}


def test_a_front_pays_for_its_trunk_its_forks_and_their_rotations() -> None:
    def result(name: str, role: Any, epochs: int, quality: float, size: float) -> TrialResult:
        metrics = {"delta_m": quality, "params/adapters": size}
        return TrialResult(name, name, 0, role, "COMPLETE", {}, metrics, 1.0, epochs)

    results = [
        result("t000-s0-27pct", "point", 1, -3.0, 30.0),
        result("t000-s0", "trial", 6, -1.0, 90.0),
        result("ref-semseg", "reference", 6, 0.0, 0.0),
    ]

    trace = trace_of(found_by_fronts(results), BOX)

    assert trace.epochs == (6.0, 7.5)
    assert trace.volumes == pytest.approx((0.9 * 10 / 90, 0.9 * 10 / 90 + 0.7 * 60 / 90))


def test_a_quarter_of_the_epochs_holds_only_with_the_whole_interval() -> None:
    stock = {seed: Trace((40.0, 80.0), (0.4, 0.5)) for seed in range(5)}

    def verdict(volumes: list[float]) -> str:
        ours = {seed: Trace((20.0, 80.0), (volume, 0.9)) for seed, volume in enumerate(volumes)}
        return next(sentences({OURS: ours, STOCK: stock}))

    assert "holds, **+10.0" in verdict([0.6, 0.61, 0.59, 0.6, 0.6])
    assert "is open" in verdict([0.9, 0.5, 0.4, 0.45, 0.6])
    assert "does not hold" in verdict([0.3, 0.31, 0.29, 0.3, 0.3])


def test_a_search_is_read_at_the_epochs_that_it_had_spent() -> None:
    trace = Trace((6.0, 12.0), (0.3, 0.6))
    assert (trace.at(5.9), trace.at(6.0), trace.at(99.0)) == (0.0, 0.3, 0.6)
    assert (trace.until(0.5), trace.until(0.7)) == (12.0, None)
    both = {OURS: {0: trace, 1: trace}, STOCK: {0: Trace((24.0,), (0.2,)), 1: Trace((24.0,), (0.3,))}}
    assert gain(both, 0.25).value == pytest.approx(5.0)
    assert math.isfinite(gain(both, 0.25).ci95)
