"""Reads the results of a search (Parquet, MLflow) and writes its report."""

from __future__ import annotations

from pathlib import Path


def build_report(run_folder: Path, out: Path | None = None) -> Path:
    """Write `index.html` and its PNGs; `faar_ray.report.build`, imported when called (matplotlib, MLflow)."""
    from faar_ray.report.build import build_report as build

    return build(run_folder, out)
