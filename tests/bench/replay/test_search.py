"""What is replayed, what is measured, and one real search of replayed trials on two nodes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from faar_ray.bench.__main__ import main
from faar_ray.bench.replay.paced import WRITE_MS
from faar_ray.bench.replay.recorded import BASELINE, EPOCHS, RHO, Recorded, recorded
from faar_ray.bench.replay.replay import replay_space
from faar_ray.bench.replay.search import GOALS, figures, growth, quantile, table_of
from faar_ray.bench.replay.stopwatch import Clock
from faar_ray.config.trial import TrialConfig
from faar_ray.report.results import read_results
from faar_ray.tracking.files.rank_trace import read_rank_trace


@pytest.fixture(scope="module")
def known() -> Recorded:
    return recorded()


def config(tmp_path: Path, rho: float, seed: int = 0, beta: float = 0.98) -> TrialConfig:
    return replay_space(tmp_path, 4).trial_config({RHO: rho, "pdrs.beta": beta, "seed": seed})


def test_a_recorded_rho_gives_what_its_two_seeds_gave_plus_one_draw_of_their_spread(
    known: Recorded, tmp_path: Path
) -> None:
    table = pq.read_table(EPOCHS).to_pylist()
    for rho in known.rhos:
        rows = [row for row in table if row["rho"] == rho]
        given, _ = known.epochs_of(config(tmp_path, rho))
        drawn = set()
        for record in given:
            first, second = (
                next(r for r in rows if (r["seed"], r["epoch"]) == (seed, record.epoch)) for seed in (0, 1)
            )
            gap = (second["delta_m"] - first["delta_m"]) / math.sqrt(2)
            drawn.add(round((record.metrics["delta_m"] - (first["delta_m"] + second["delta_m"]) / 2) / gap, 6))
        assert len(given) == known.epochs
        assert len(drawn) == 1  # the same z in every epoch


def test_between_recorded_rhos_metrics_lie_between(known: Recorded) -> None:
    left, right = known.rhos[1], known.rhos[2]
    middle = 1 - math.sqrt((1 - left) * (1 - right))
    low, between, high = (known._between(rho) for rho in (left, middle, right))
    np.testing.assert_allclose(between, (low + high) / 2, rtol=1e-9)


def test_counts_are_whole_and_more_rho_holds_more(known: Recorded, tmp_path: Path) -> None:
    sizes = []
    for rho in np.linspace(known.rhos[0], known.rhos[-1], 7):
        last = known.epochs_of(config(tmp_path, float(rho)))[0][-1].metrics
        assert all(last[name] == int(last[name]) for name in BASELINE)
        sizes.append(last["trainable_params"])
    assert sizes[-1] > 1.5 * sizes[0]


def test_a_trial_replays_the_same_again_and_its_seed_and_config_another(known: Recorded, tmp_path: Path) -> None:
    def ending(**of: float) -> float:
        return known.epochs_of(config(tmp_path, 0.9, **of))[0][-1].metrics["delta_m"]

    assert ending() == ending()
    assert len({ending(), ending(seed=1), ending(beta=0.95)}) == 3


def clock_of(trials: int, nodes: int) -> Clock:
    """Asks of 1 ms but for the last 100 of 9 ms; first results after 0.5 s, those of new processes after 30 s."""
    clock = Clock(ended=trials, wall=10.0, thread=2.0, process=4.0)
    for number in range(trials):
        name = f"t{number}"
        clock.asked[name] = clock.computed[name] = 0.009 if number >= trials - 100 else 0.001
        clock.handed[name] = float(number)
        clock.waited[name] = 30.0 if number < nodes else 0.5
    clock.waited = dict(reversed(clock.waited.items()))
    clock.written = [20.0] * (2 * trials)
    clock.memory = [(0, 100.0), (100, 150.0), (200, 160.0), (300, 170.0), (400, 180.0), (400, 500.0)]
    return clock


def test_figures_are_of_what_their_names_say() -> None:
    result = figures(clock_of(400, 4), 4, report_s=7.0)
    goals = {row["name"]: row for row in result["goals"]}
    asked, driver, following, report, beside = (goals[name]["measured"] for name in GOALS)
    assert (asked, result["ask_tell_ms"]["p50"]) == (9.0, 1.0)
    assert driver == 1000 * 2.0 / 800
    assert following == 0.5  # without those that started a process
    assert report == 7.0
    assert beside == round((1000 * 4.0 / 800 + 20.0) / recorded().seconds() / 10, 2)
    assert (result["process_cpu_ms_per_result"], result["written_ms_per_result"]) == (5.0, 20.0)
    assert result["memory_mb_per_100_trials"] == 10.0
    assert all(row["met"] == (row["measured"] <= row["goal"]) for row in result["goals"])


def test_a_missed_goal_is_said_and_so_is_the_replay() -> None:
    result = figures(clock_of(400, 4), 4, report_s=31.0) | {"journal": {"mb": 1.0, "read_s": 0.1}}
    table = table_of(result)
    assert str(table.title).startswith("REPLAY of 400 trials")
    assert [str(cell) for cell in table.columns[3].cells][:5] == ["", "", "", "missed", ""]
    assert "10.0" in [str(cell) for cell in table.columns[1].cells]


def test_growth_and_percentiles_of_little() -> None:
    assert growth([(0, 10.0), (50, 20.0)]) == 20.0
    assert math.isnan(quantile([], 95))


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_a_replayed_search_leaves_all_that_a_search_leaves_within_ten_times_the_goals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "kept"
    assert main(["search", "--trials", "24", "--nodes", "2", "--out", str(out), "--json"]) == 0
    output = capsys.readouterr()
    outcome = json.loads(output.out)
    assert outcome["replay"] is True
    assert "24 of 24 replayed trials" in output.err
    assert outcome["ended"]["failed"] == 0
    assert outcome["ended"]["complete"] + outcome["ended"]["pruned"] == 24
    for row in outcome["goals"]:
        assert 0 < row["measured"] < 10 * row["goal"], row["name"]

    run = out / "runs" / "replay"
    results = read_results(run / "results.parquet")
    trials = [result for result in results if result.role == "trial"]
    assert len(trials) == 24
    assert outcome["results"] == sum(result.epochs for result in trials)
    traces = {path.stem for path in (run / "rank_trace").glob("*.parquet")}
    assert traces == {result.trial_id for result in trials}
    assert read_rank_trace(run / "rank_trace" / f"{trials[0].trial_id}.parquet").num_rows > 0
    for report in (run / "report", out / "report"):
        assert (report / "index.html").stat().st_size > 10_000
        assert (report / "front.png").is_file()

    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("replay")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    children = [r for r in runs if r.data.tags["faar_ray.role"] == "trial"]
    assert len(children) == 24
    assert {r.info.status for r in runs} == {"FINISHED", "KILLED"}
    assert all(WRITE_MS in r.data.metrics for r in children)
