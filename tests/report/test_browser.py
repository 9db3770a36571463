"""The page and MLflow's own view of it, in a real browser."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image

from faar_ray.report import build_report
from faar_ray.report.history import log_report

pytestmark = pytest.mark.browser
Chromium = Callable[..., str]


@pytest.mark.parametrize("width", [1280, 500])
def test_nothing_of_the_page_is_wider_than_the_window(
    finished_run: Path, tmp_path: Path, chromium: Chromium, width: int
) -> None:
    html = build_report(finished_run, tmp_path / "report") / "index.html"
    probe = "<script>document.title = document.documentElement.scrollWidth + '/' + innerWidth</script></body>"
    html.write_text(html.read_text().replace("</body>", probe))

    dom = chromium(tmp_path / "profile", f"--window-size={width},900", "--dump-dom", html.as_uri())

    inside, window = map(int, dom.partition("<title>")[2].partition("</title>")[0].split("/"))
    assert inside <= window


def test_the_page_paints_its_pictures(finished_run: Path, tmp_path: Path, chromium: Chromium) -> None:
    html = build_report(finished_run, tmp_path / "report") / "index.html"
    shot = tmp_path / "shot.png"

    chromium(tmp_path / "profile", "--window-size=1280,3000", f"--screenshot={shot}", html.as_uri())

    pixels = image.imread(shot)[..., :3]
    assert (np.ptp(pixels.reshape(-1, 3), axis=0) > 0.8).all()
    assert len(np.unique((pixels * 15).astype(int).reshape(-1, 3), axis=0)) > 60


def test_mlflow_ui_shows_the_runs_and_the_report(
    finished_run: Path, tmp_path: Path, chromium: Chromium, mlflow_ui: Callable[[Path], AbstractContextManager[str]]
) -> None:
    run = json.loads((finished_run / "run.json").read_text())
    report = build_report(finished_run, tmp_path / "report")
    assert log_report(run["tracking_uri"], run["parent_run_id"], report) == ""

    with mlflow_ui(finished_run.parents[1]) as address:
        runs = chromium(tmp_path / "a", "--virtual-time-budget=30000", "--dump-dom", f"{address}/#/experiments/1/runs")
        artifact = chromium(
            tmp_path / "b", "--virtual-time-budget=30000", "--dump-dom",
            f"{address}/#/experiments/1/runs/{run['parent_run_id']}/artifacts/report/index.html",
        )  # fmt: skip

    assert "matching run" in runs
    assert "rho" in runs
    assert "report/index.html" in artifact
    assert "iframe" in artifact
