"""Reads what a search left (Parquet, MLflow) and says what it found."""

from __future__ import annotations

from pathlib import Path


def build_report(run_folder: Path, out: Path | None = None) -> Path:
    """Write `index.html` and its PNGs; `faar_ray.report.build`, imported when called (matplotlib, MLflow)."""
    from faar_ray.report.build import build_report as build

    return build(run_folder, out)
