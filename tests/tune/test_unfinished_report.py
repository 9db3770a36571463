"""A report on a search that runs, was interrupted or was killed: from what is there, and it says so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from faar_ray.records import EpochRecord, TrialResult
from faar_ray.report.__main__ import main
from faar_ray.report.results import write_results
from faar_ray.report.source import read_search
from faar_ray.storage.interruption import write_note
from faar_ray.storage.run_location import TrialPaths
from faar_ray.tracking.files.epoch_file import add_epoch
from faar_ray.tracking.files.trial_files import write_config
from faar_ray.tune.propose.journal import keep_end
from faar_ray.tune.run.run_folder import RunFolder, lock_run
from faar_ray.tune.space.space import SearchSpace


class Running:
    """A search in the middle: t000 and t001 have ended, t002 is in its second epoch."""

    def __init__(self, folder: RunFolder, play: Any, finished: int) -> None:
        self.folder, self.path, self.play = folder, folder.path, play
        for _ in range(finished):
            play.take()
            for _ in range(3):
                play.step(play.order[-1])
        play.take()
        self.job, _ = play.open[play.order[-1]]
        self.metrics = play.train(self.job, 0) | {"time/epoch_s": 2.5}
        trial = TrialPaths(folder.path, self.job.trial_id)
        write_config(trial, self.job.config)
        add_epoch(trial, EpochRecord(0, self.metrics))

    def report(self, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
        """The page's text and what the terminal is told, apart from MLflow."""
        assert main([str(self.path)]) == 0
        told = capsys.readouterr()
        assert told.out.strip() == str(self.path / "report" / "index.html")
        page = re.sub(r"<[^>]+>|\s+", " ", (self.path / "report" / "index.html").read_text().partition("<main>")[2])
        return re.sub(r"\s+", " ", page), told.err.partition("not logged to MLflow")[0]


@pytest.fixture
def search(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    space: Callable[..., SearchSpace],
    driver: Callable[..., Any],
    request: pytest.FixtureRequest,
) -> Iterator[Running]:
    monkeypatch.chdir(tmp_path)  # where mlflow.db is not
    tiny = space(scheduler={"type": "none"})
    folder = lock_run(tmp_path / "runs" / "tiny", tiny)
    yield Running(folder, driver(tiny, folder.study_log), getattr(request, "param", 2))
    folder.close()


def test_a_running_search_is_reported_with_the_trial_that_runs(
    search: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    page, told = search.report(capsys)
    sentence = "This search is not finished: it is running. Of its trials of 6: 2 complete, 1 running."
    assert told == f"{sentence}\n"
    assert page.index(sentence) < page.index("t000-s0")
    assert re.search(r"t002-s0 running 0 0\.\d+", page)
    row = next(r for r in read_search(search.path).results if r.state == "RUNNING")
    assert (row.trial_id, row.params, row.metrics, row.epochs, row.seconds) == (
        search.job.trial_id, search.job.params, search.metrics, 1, 2.5,
    )  # fmt: skip


def test_a_killed_search_has_lost_trials_which_resume_goes_on_with(
    search: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    search.folder.close()
    search.folder.path.joinpath(".lock").touch()  # the system freed it, the file stays
    with search.folder.study_log.open("a") as journal:
        journal.write('{"op_code": 2, "worker_')  # the driver was writing
    page, told = search.report(capsys)
    assert told == (
        "This search is not finished: it was interrupted or killed. Of its trials of 6: 2 complete, 1 lost; --resume "
        "goes on with what was lost.\n"
    )
    assert told.strip() in page and "t002-s0 lost" in page


def test_an_interrupted_search_names_its_cause_and_the_command(
    search: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = [TrialResult("t000-s0", "c", 0, "trial", "COMPLETE", {}, {"delta_m": 1.0}, 1.0, 3)]
    write_results(search.path / "results.parquet", stale)
    write_note(search.path, "interrupted by SIGHUP", "python -m faar_ray.tune tiny.yaml --resume")
    search.folder.close()
    page, told = search.report(capsys)
    assert "2 complete, 1 lost" in told
    for text in ("interrupted by SIGHUP", "python -m faar_ray.tune tiny.yaml --resume"):
        assert text in told and text in page


@pytest.mark.parametrize("search", [0], indirect=True)
def test_a_search_of_which_no_trial_has_finished_is_a_page_too(
    search: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    page, told = search.report(capsys)
    assert "Of its trials of 6: 0 complete, 1 running" in told
    assert "No trial of the search finished: there is nothing to compare" in page
    assert "t000-s0 running" in page


def test_a_search_that_ended_says_nothing_of_the_kind_until_it_is_resumed(
    search: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    search.play.step("t002-s0")
    search.play.step("t002-s0")
    search.play.step("t002-s0")
    write_results(search.path / "results.parquet", search.play.proposer.results())
    keep_end(search.play.study, ended=True)
    page, told = search.report(capsys)
    assert told == "" and "not finished" not in page
    keep_end(search.play.study, ended=False)
    assert "not finished" in search.report(capsys)[1]
