"""Makes the documents' tables and pictures: `python docs/make.py rho [ablation front_embedded ...]`.

Runs `search_spaces/NAME.yaml` unless `runs/NAME` is there, copies the front to `docs/images/NAME.png` where a document
shows it, and replaces what stands between `<!-- NAME: ... -->` and `<!-- end of NAME -->` in the documents.
`front_STUDY` is a study of `bench front`; of one that was interrupted, what is there is compared.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import yaml

from faar_ray.records import TrialResult, known
from faar_ray.report import build_report
from faar_ray.report.source import Search, read_search
from faar_ray.report.statistics.groups import Config, complete_configs, with_names
from faar_ray.report.statistics.noise import mean_of
from faar_ray.report.statistics.table import Row
from faar_ray.report.words.answer import Answer, build_answer
from faar_ray.report.words.key_findings import key_findings
from faar_ray.report.words.wording import count, label, plus_minus
from faar_ray.tasks import Task, tasks_of

ROOT = Path(__file__).resolve().parents[1]
STEP = "time/step_ms"
STUDY = "front_"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def main(names: Sequence[str]) -> int:
    """Make the blocks of these searches anew; gives the exit code."""
    for name in names:
        lines = study(name) if name.startswith(STUDY) else search_of(name)
        for document in DOCUMENTS:
            replace_block(document, name, "\n".join(lines))
    return 0


def search_of(name: str) -> list[str]:
    """A search, run unless it was: its table; its front is drawn where a document shows it."""
    folder = ROOT / "runs" / name
    if not (folder / "results.parquet").is_file():
        run("faar_ray.tune", f"search_spaces/{name}.yaml")
    search = read_search(folder)
    if any(f"images/{name}.png" in document.read_text(encoding="utf-8") for document in DOCUMENTS):
        shutil.copyfile(build_report(folder) / "front.png", picture_of(name))
    listed = yaml.safe_load(search.space_yaml)["search"]["sampler"] == "points"
    return list(list_lines(search, steps_of(name)) if listed else front_lines(search))


def steps_of(name: str) -> dict[str, float]:
    """Milliseconds of a step by configuration, of a short run of the same rows one at a time (`runs/NAME_steps`)."""
    folder = ROOT / "runs" / f"{name}_steps"
    if not (folder / "results.parquet").is_file():
        return {}
    configs = with_names(complete_configs(read_search(folder).results))
    return {config.name: ms for config in configs if (ms := config.mean(STEP)) is not None}


def study(name: str) -> list[str]:
    """A study of `bench front`, run unless it was begun: its picture and its tables."""
    begun = any((ROOT / "runs").glob(f"{name}*/space.yaml"))
    run("faar_ray.bench", "front", name.removeprefix(STUDY), *(["--tables"] if begun else []))
    folder = ROOT / "runs" / name
    shutil.copyfile(folder / "front.png", picture_of(name))
    lines = (folder / "result.md").read_text(encoding="utf-8").rstrip().splitlines()
    return [f"![{name.removeprefix(STUDY)}](images/{name}.png)", "", *lines]


def picture_of(name: str) -> Path:
    """Where the documents' picture is."""
    return ROOT / "docs" / "images" / f"{name}.png"


def run(module: str, *arguments: str) -> None:
    """Run a command of the package in the root of the checkout."""
    subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, check=True)


def replace_block(document: Path, name: str, block: str) -> None:
    """Put a block between a document's marks; a document without them stays as it is."""
    text = document.read_text(encoding="utf-8")
    marks = re.compile(rf"(<!-- {name}: [^\n]*-->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    document.write_text(marks.sub(lambda match: f"{match[1]}{block}\n{match[2]}", text), encoding="utf-8")


def front_lines(search: Search) -> Iterator[str]:
    """The table of a search for a front, and its recommendation.

    With the section `front` the largest comes first, so that points and controls of one size stand together, and the
    sentence about the size comes before the recommendation.
    """
    result = build_answer(search.results, search.objectives, search.limits)
    rows, cut = list(result.rows), any(row.trunk for row in result.rows)
    if cut:
        rows.sort(key=lambda row: -(row.cost or 0.0))
    quality, cost = result.quality.name, label(result.cost_name)

    yield f"| configuration | {quality}, val | against best | {cost} | {quality}, test |"
    yield "|---|---|---|---|---|"
    for row in rows:
        yield f"| {' | '.join(front_cells(row, result))} |"

    yield ""
    sized = result.noise.dof > 0 and any(row.recommended and row.budget is not None for row in rows)
    yield "> " + " ".join(result.sentences[: 2 if sized else 1])


def front_cells(row: Row, result: Answer) -> list[str]:
    """A configuration's cells, the recommended one's name in bold."""
    name = f"control: {row.name}" if row.role == "control" else row.name
    gap = row.versus_best
    return [
        f"**{name}**" if row.recommended else name,
        f"{round(row.values[result.quality.name], 1) + 0.0:.1f}",  # no -0.0
        "" if gap.value == 0 else plus_minus(gap.value, gap.ci95),
        "" if row.cost is None else count(row.cost),
        "" if row.test is None else f"{round(row.test, 1) + 0.0:.1f}",
    ]


def list_lines(search: Search, timed: Mapping[str, float]) -> Iterator[str]:
    """The table of a list of configurations, and which of the paper's key findings hold.

    Steps are those of a short run of the same rows where there is one (`steps_of`), and minutes are then left out: the
    search itself may have shared its cores with other work.
    """
    configs = with_names(complete_configs(search.results))
    configs.sort(key=lambda config: -(config.mean("delta_m") or 0.0))
    steps = timed or {config.name: ms for config in configs if (ms := config.mean(STEP)) is not None}
    plain = next((steps.get(config.name) for config in configs if config.params.get("method") == "decoder_only"), None)
    tasks = tasks_of(search.base.data) if search.base is not None else {}

    columns = ["configuration", "delta_m, val", "delta_m, test"]
    columns += [f"{name}, test: {task.metric} ({task.metric_unit})" for name, task in tasks.items()]
    columns += ["trainable", "step" if plain else "step, ms", "peak MiB", *([] if timed else ["minutes"])]
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    if references := [result for result in search.results if result.role == "reference"]:
        yield f"| {' | '.join([*reference_cells(references, tasks)][: len(columns)])} |"
    for config in configs:
        cells = list_cells(config, tasks, steps.get(config.name), plain)
        yield f"| {' | '.join([*cells][: len(columns)])} |"

    yield ""
    yield from (f"- {sentence}" for sentence in key_findings(search.results, list(search.traces.values())))


def reference_cells(references: Sequence[TrialResult], tasks: Mapping[str, Task]) -> Iterator[str]:
    """The cells of the single-task models, one for each task, which delta_m is measured against."""
    yield from ("single-task models", "0", "0")
    for name, task in tasks.items():
        metric = f"test/{name}/{task.metric}"
        yield next((f"{r.metrics[metric]:#.3g}" for r in references if metric in known(r.metrics)), "")
    yield count(sum(r.metrics["trainable_params"] for r in references))
    yield from ("", "", f"{sum(r.seconds for r in references) / 60:.1f}")


def list_cells(config: Config, tasks: Mapping[str, Task], step: float | None, plain_ms: float | None) -> Iterator[str]:
    """A configuration's cells: quality with 95% intervals, each task's mean, and what it costs."""
    yield config.name
    for metric in ("delta_m", "test/delta_m"):
        mean = mean_of(config.values(metric))
        yield plus_minus(mean.value, mean.ci95)
    for name, task in tasks.items():
        value = config.mean(f"test/{name}/{task.metric}")
        yield "" if value is None else f"{value:#.3g}"
    params, memory = (config.mean(name) for name in ("trainable_params", "memory/peak_mb"))
    yield "" if params is None else count(params)
    yield "" if step is None else f"{step / plain_ms:.2f}x" if plain_ms else f"{step:.0f}"
    yield "" if memory is None else f"{memory:.0f}"
    yield f"{fmean(trial.seconds for trial in config.trials) / 60:.1f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["rho"]))
