"""Epochs of real trials of `search_spaces/rho.yaml`, kept beside this file, and what they say of any rho between.

`python -m faar_ray.bench.replay.recorded RUN` makes the two files from the folder of such a run.
"""

from __future__ import annotations

import functools
import sys
from bisect import bisect
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from faar_ray.config.trial import TrialConfig, config_id
from faar_ray.records import EpochRecord, RankRecord
from faar_ray.seeding import seed_of
from faar_ray.storage.run_location import RunLocation
from faar_ray.tracking.files.epoch_file import read_epochs

HERE = Path(__file__).parent
EPOCHS, RANKS = HERE / "recorded.parquet", HERE / "recorded_ranks.parquet"
RHO, SEEDS = "pdrs.rho_shared", (0, 1)
BASELINE = ("trainable_params", "params/adapters")
"""Counts: whole numbers also between recorded rhos."""


class Recorded:
    """The recorded trials: four rhos, two seeds each."""

    def __init__(self) -> None:
        table = pq.read_table(EPOCHS)
        self.names = [name for name in table.column_names if name not in ("rho", "seed", "epoch")]
        self.rhos: list[float] = sorted(set(table["rho"].to_pylist()))
        order = table.sort_by([("rho", "ascending"), ("seed", "ascending"), ("epoch", "ascending")])
        columns = np.column_stack([order[name].to_numpy() for name in self.names])
        self.epochs = len(columns) // (len(self.rhos) * len(SEEDS))
        self._values: NDArray[np.float64] = columns.reshape(len(self.rhos), len(SEEDS), self.epochs, -1)
        self._ranks = _rank_records(pq.read_table(RANKS))

    def epochs_of(self, config: TrialConfig) -> tuple[list[EpochRecord], dict[str, float]]:
        """All epochs of a trial, and what the test split gave.

        Metrics are interpolated linearly in log(1 - rho) between the recorded rhos, at the mean of the two recorded
        seeds plus z times their difference / sqrt(2), which is their standard deviation; z is drawn from a standard
        normal by configuration and seed, one for the trial. Rank traces are those of the nearest recorded rho.
        """
        rho = float(np.clip(_rho_of(config), self.rhos[0], self.rhos[-1]))
        z = np.random.default_rng(seed_of("replay", config_id(config), config.seed)).standard_normal()
        first, second = self._between(rho)
        values = (first + second) / 2 + z * (second - first) / np.sqrt(2)
        ranks = self._ranks[min(self.rhos, key=lambda known: abs(np.log1p(-known) - np.log1p(-rho)))]
        rows = [dict(zip(self.names, map(float, row), strict=True)) for row in values]
        test = {name: value for name, value in rows[-1].items() if name.startswith("test/")}
        records = [EpochRecord(epoch, _val(row), ranks[epoch]) for epoch, row in enumerate(rows)]
        return records[: config.optim.epochs], test

    def seconds(self) -> float:
        """Mean training time of a recorded epoch, evaluation included, on one core of two."""
        return float(self._values[..., self.names.index("time/epoch_s")].mean())

    def _between(self, rho: float) -> NDArray[np.float64]:
        """Both seeds' metrics (seed, epoch, metric) at any rho."""
        left = min(bisect(self.rhos, rho), len(self.rhos) - 1) - 1
        low, high = (np.log1p(-self.rhos[i]) for i in (left, left + 1))
        share = (np.log1p(-rho) - low) / (high - low)
        between: NDArray[np.float64] = (1 - share) * self._values[left] + share * self._values[left + 1]
        return between


@functools.cache
def recorded() -> Recorded:
    """Read once in a process."""
    return Recorded()


def record(run: Path) -> None:
    """Make the files from a run in which every configuration has both seeds to its last epoch."""
    from faar_ray.report.results import read_results

    place, rows, traces = RunLocation(run), [], []
    for result in read_results(run / "results.parquet"):
        if result.role != "trial":
            continue
        trial, rho = place.trial(result.trial_id), result.params[RHO]
        test = {name: value for name, value in result.metrics.items() if name.startswith("test/")}
        for epoch, metrics in read_epochs(trial).items():
            rows.append({"rho": rho, "seed": result.seed, "epoch": epoch, **metrics, **test})
        if result.seed == SEEDS[0]:
            trace = pq.read_table(trial.trace, partitioning=None).drop_columns("trial_id")
            traces.append(trace.add_column(0, "of_rho", pa.array([rho] * len(trace))))
    pq.write_table(pa.Table.from_pylist(rows), EPOCHS, compression="zstd")
    pq.write_table(pa.concat_tables(traces), RANKS, compression="zstd", compression_level=19)


def _rho_of(config: TrialConfig) -> float:
    rho = config.pdrs.rho_shared
    return rho if isinstance(rho, int | float) else min(rho.values())


def _val(row: dict[str, float]) -> dict[str, float]:
    """An epoch's own metrics."""
    return {name: round(v) if name in BASELINE else v for name, v in row.items() if not name.startswith("test/")}


def _rank_records(table: pa.Table) -> dict[float, list[tuple[RankRecord, ...]]]:
    epochs_by_rho: dict[float, list[list[RankRecord]]] = {}
    for row in table.to_pylist():
        epochs = epochs_by_rho.setdefault(row.pop("of_rho"), [])
        while len(epochs) <= row["epoch"]:
            epochs.append([])
        epochs[row["epoch"]].append(RankRecord(**row | {"importance": tuple(row["importance"])}))
    return {rho: [tuple(rows) for rows in epochs] for rho, epochs in epochs_by_rho.items()}


def main(argv: Sequence[str]) -> None:
    """Make the files from the run that is named."""
    record(Path(argv[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
