from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from faar_ray.config.trial import TrialConfig
from faar_ray.errors import DataError
from faar_ray.records import TrialResult
from faar_ray.report import build_report
from faar_ray.report.__main__ import main
from faar_ray.report.page import format_measured, format_number, typeset
from faar_ray.report.results import write_results

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Collects text, pictures and links, and checks that elements nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.pictures: list[str | None] = []
        self.links: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links += [given[k] or "" for k in ("src", "href") if k in given]
        if tag == "img":
            self.pictures.append(given["alt"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def out(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_report(finished_run, tmp_path_factory.mktemp("out") / "report")


@pytest.fixture(scope="module")
def page(out: Path) -> Page:
    return Page((out / "index.html").read_text())


@pytest.fixture
def copy(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "runs" / "rho"))


def test_the_answer_comes_before_everything_else(page: Page) -> None:
    text = re.sub(r"\s+", " ", page.text)

    assert text.index("Of the searched configurations take rho_shared 0.95") < text.index("The front")
    assert "but a control wins over it: lora, init_rank 16." in text
    assert "2 degrees of freedom" in text


def test_the_page_is_well_formed_and_needs_nothing_from_elsewhere(page: Page, out: Path) -> None:
    assert page.open == []
    assert page.links
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert not re.search(r"https?://|<script|@import|url\(", (out / "index.html").read_text())


def test_it_shows_front_curves_ranks_and_heat_maps(page: Page, out: Path) -> None:
    assert page.pictures[:5] == [
        "Mean final ranks by layer and task", "Quality against cost", "The search over time", "Learning curves",
        "How well early order told the end",
    ]  # fmt: skip
    assert page.pictures[6] == "Rank heat map of t000-s0: rho_shared 0.95"
    assert {
        "front.png",
        "over_time.png",
        "over_time.json",
        "curves.png",
        "early_order.png",
        "ranks.png",
        "ranks_by_depth.png",
        "rank_trace_t000-s0.png",
    } <= {p.name for p in out.iterdir()}


def test_the_recommended_ranks_and_the_worth_of_early_order_are_put_into_words(page: Page, out: Path) -> None:
    text = re.sub(r"\s+", " ", page.text)
    assert "Ranks of rho_shared 0.95 (65 adapters, 2 seeds): " in text
    assert "The order of the adapters repeats" in text or "The order of the adapters does not repeat" in text
    assert re.search(r"Stages: stage \d above stage \d by \d\.\d ± \d\.\d; \d of 6 pairs differ beyond noise", text)
    assert re.search(r"stage 3\s*[\d.]+ ± [\d.]+\s*stage 0", text)
    assert "8 complete trials of 6 epochs" in text
    found = TrialConfig.resolve(yaml.safe_load((out / "ranks.yaml").read_text())).ranks
    assert found.kind == "fixed" and found.pattern is not None and len(found.pattern) == 65


def test_every_trial_is_in_the_table_with_its_state_and_reason(page: Page) -> None:
    for output in ("t000-s1", "t005-s0", "pruned", "asha: delta_m among the lowest third", "t007-s0", "fail",
                 "not finite", "c02-s0", "ref-normals", "mean_angle", "17.30"):  # fmt: skip
        assert output in page.text


def test_protocol_command_and_environment_are_there(page: Page) -> None:
    assert page.text.count("Measured on val and test: 64x64.") == 3  # under every table of values
    for output in ("compared at 64 x 64 pixels", "the test split was read once", "last epoch",
                 "python -m faar_ray.tune runs/rho/space.yaml --name rho-again", "torch", "search seed"):  # fmt: skip
        assert output in page.text


def test_without_mlflow_it_says_so_and_makes_no_database(copy: Path, tmp_path: Path) -> None:
    run = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(run | {"tracking_uri": f"sqlite:///{tmp_path}/gone.db"}))

    page = Page((build_report(copy) / "index.html").read_text())

    assert "MLflow could not be read (gone.db does not exist)" in page.text
    assert "Learning curves" not in page.pictures
    assert "How well early order told the end" not in page.text  # nor are there files of epochs
    assert "Quality against cost" in page.pictures
    assert not (tmp_path / "gone.db").exists()


@pytest.mark.parametrize(
    ("uri", "reason"),
    [("http://127.0.0.1:1", "Connection refused"), ("postgresql+nodriver://me@127.0.0.1:1/x", "nodriver")],
)
def test_an_mlflow_that_cannot_be_reached_is_said_and_no_end(
    copy: Path, uri: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = json.loads((copy / "run.json").read_text())
    facts = {"tracking_uri": uri, "parent_run_id": uri[:4] * 8}  # MLflow caches where a run's artifacts are
    (copy / "run.json").write_text(json.dumps(run | facts))

    assert main([str(copy)]) == 0

    page, told = Page((copy / "report" / "index.html").read_text()), capsys.readouterr().err
    assert "MLflow could not be read" in page.text and reason in page.text
    assert told.startswith("not logged to MLflow: ") and reason in told
    assert "Quality against cost" in page.pictures


def test_a_run_id_that_mlflow_does_not_know_is_no_end(copy: Path) -> None:
    run = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(run | {"parent_run_id": "0" * 32}))
    shutil.rmtree(copy / "rank_trace")

    assert "MLflow could not be read" in Page((build_report(copy) / "index.html").read_text()).text


def test_without_traces_and_space_there_is_still_a_report(copy: Path) -> None:
    shutil.rmtree(copy / "rank_trace")
    (copy / "space.yaml").unlink()

    page = Page((build_report(copy) / "index.html").read_text())

    assert not any("Rank" in p for p in page.pictures if p)


def test_text_from_outside_is_escaped(copy: Path) -> None:
    (copy / "space.yaml").write_text("name: '<script>alert(1)</script>'\n")
    shutil.rmtree(copy / "rank_trace")

    html = (build_report(copy) / "index.html").read_text()

    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_the_command_takes_a_name_says_where_it_wrote_and_logs_to_the_parent(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(finished_run.parents[1])

    assert main(["rho", "--out", str(tmp_path / "r")]) == 0

    assert capsys.readouterr().out.strip() == str(tmp_path / "r" / "index.html")
    run = json.loads((finished_run / "run.json").read_text())
    logged = MlflowClient(run["tracking_uri"]).list_artifacts(run["parent_run_id"], "report")
    assert "report/index.html" in [f.path for f in logged]


@pytest.mark.parametrize("name", ["rho-2", "/nowhere/at/all"])
def test_an_unknown_run_exits_2_with_one_line(
    name: str, finished_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(finished_run.parents[1])

    assert main([name]) == 2

    assert capsys.readouterr().err == f"{name}: no such folder, and no run of that name under ./runs (runs has: rho)\n"


@pytest.mark.parametrize(
    ("file", "content"),
    [("run.json", "{"), ("run.json", "{}"), ("results.parquet", "x"), ("rank_trace/t000-s0.parquet", "x")],
)
def test_a_broken_file_exits_2_and_is_named(
    copy: Path, file: str, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / file).write_text(content)

    assert main([str(copy)]) == 2

    assert file in capsys.readouterr().err


def test_a_run_without_results_and_without_a_journal_is_named(copy: Path) -> None:
    (copy / "results.parquet").unlink()

    with pytest.raises(DataError, match=r"results\.parquet: no such results"):
        build_report(copy)


def test_an_out_that_is_a_file_exits_2(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")

    assert main([str(copy), "--out", str(tmp_path / "file")]) == 2

    assert "cannot be written" in capsys.readouterr().err


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])

    assert "python -m faar_ray.report rho" in capsys.readouterr().out


def test_cells_are_set_with_true_minus_signs() -> None:
    assert [
        format_number(None),
        format_number(0.95),
        format_number(16),
        format_number("pooled"),
        format_number(True),
    ] == ["", "0.95", "16", "pooled", "True"]
    assert format_number(362_477, whole=True) == "362\u202f477"
    assert [format_measured(-0.8), format_measured(17.3), format_measured(0.0123), format_measured(None)] == [
        "\u22120.80",
        "17.30",
        "0.0123",
        "",
    ]
    assert typeset("t000-s0: delta_m -3.1, 1e-3") == "t000-s0: delta_m \u22123.1, 1e-3"


def test_a_list_of_configurations_is_told_row_by_row_with_findings(copy: Path) -> None:
    space = (copy / "space.yaml").read_text()
    (copy / "space.yaml").write_text(space + "search: {sampler: points, seeds: 5}\n")
    levels = {"cw_sp": -4.0, "ts_pd": -3.0, "full_ft": -5.0}
    write_results(copy / "results.parquet", [row(m, level, seed) for m, level in levels.items() for seed in range(5)])
    text = Page((build_report(copy) / "index.html").read_text()).text
    assert "Every row, mean and 95% interval" in text
    assert re.search(r"ts_pd\s*\u22122\.8 ± 0\.\d+", text)
    assert "XT-Cons adds on top of CW-SP: holds" in text


def row(method: str, level: float, seed: int) -> TrialResult:
    metrics = {"delta_m": level + 0.1 * seed, "trainable_params": 1e5, "params/adapters": 5e4}
    trial = f"{method}-s{seed}"
    return TrialResult(trial, method, seed, "trial", "COMPLETE", {"method": method}, metrics, 1.0, 6, "")
