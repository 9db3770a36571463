"""Makes the documents' tables and pictures: `python docs/make.py rho [ablation methods front_embedded ...]`.

Runs `search_spaces/NAME.yaml` unless `runs/NAME` is there (one that was interrupted goes on), draws the picture of it
that a document shows, `docs/images/NAME.png`, and replaces what stands between `<!-- NAME: ... -->` and
`<!-- end of NAME -->` in the documents. `front_STUDY` is a study of `bench front`; of one that was interrupted, what is
there is compared. `step` is `bench step` on one thread, kept in `runs/step.json`. Arguments with `=` are keys of the
searches, such as `base.data.root=FOLDER`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from faar_ray.records import TrialResult, known
from faar_ray.report import build_report
from faar_ray.report.plots.costs_plot import Costed, plot_costs
from faar_ray.report.source import Search, read_search
from faar_ray.report.statistics.groups import Config, complete_configs, short_names, with_names
from faar_ray.report.statistics.noise import mean_of
from faar_ray.report.statistics.table import Row
from faar_ray.report.words.answer import Answer, build_answer
from faar_ray.report.words.key_findings import key_findings
from faar_ray.report.words.protocol import protocol
from faar_ray.report.words.wording import axis_label, count, label, plus_minus
from faar_ray.tasks import Task, tasks_of

ROOT = Path(__file__).resolve().parents[1]
STEP, SIZE = "time/step_ms", "trainable_params"
STUDY = "front_"
STEPS = "step"
PLAIN, OTHERS = "decoder_only", "others"
"""Method whose step is 1."""
FAMILIES = {
    "Free Sinewich": ("sinewich",),
    "TADFormer": ("tadformer",),
    "MTLoRA": ("mtlora",),
    "DiTASK": ("ditask",),
    "FAAR": ("faar",),
    "LoRA, ranks decided": ("pdrs", "adalora", "dylora", "autolora"),
    "LoRA, DoRA": ("lora", "dora", "cw_sp", "ts_pd"),
    "no adapters": ("full_ft", PLAIN),
    OTHERS: ("",),
}
"""What a method's name contains, the first that fits."""
PARTS = {"adapters": "adapters", "norms": "norms", "decoder": "decoder", "other": "rest of the backbone"}
"""`params/PART` and its column."""
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def main(arguments: Sequence[str]) -> int:
    """Make the blocks of these searches anew, with the keys of theirs that are given; gives the exit code."""
    overrides = [argument for argument in arguments if "=" in argument]
    for name in (argument for argument in arguments if argument not in overrides):
        if name == STEPS:
            lines = steps()
        else:
            lines = study(name, overrides) if name.startswith(STUDY) else search_of(name, overrides)
        for document in DOCUMENTS:
            replace_block(document, name, "\n".join(lines))
    return 0


def search_of(name: str, overrides: Sequence[str]) -> list[str]:
    """A search, run unless it was: its table; its picture is drawn where a document shows it."""
    folder = ROOT / "runs" / name
    if not (folder / "results.parquet").is_file():
        begun = (folder / "study.log").is_file()
        run("faar_ray.tune", f"search_spaces/{name}.yaml", *overrides, *(["--resume"] if begun else []))
    search = read_search(folder)
    if yaml.safe_load(search.space_yaml)["search"]["sampler"] == "points":
        timed = steps_of(name)
        draw_costs(search, timed, picture_of(name))
        return [f"![delta_m over parameters and steps](images/{name}.png)", "", *list_lines(search, timed)]
    if any(f"images/{name}.png" in document.read_text(encoding="utf-8") for document in DOCUMENTS):
        shutil.copyfile(build_report(folder) / "front.png", picture_of(name))
    return list(front_lines(search))


def steps_of(name: str) -> dict[str, float]:
    """Milliseconds of a step by configuration, of a short run of the same rows one at a time (`runs/NAME_steps`)."""
    folder = ROOT / "runs" / f"{name}_steps"
    if not (folder / "results.parquet").is_file():
        return {}
    configs = with_names(complete_configs(read_search(folder).results))
    return {config.name: ms for config in configs if (ms := config.mean(STEP)) is not None}


def study(name: str, overrides: Sequence[str]) -> list[str]:
    """A study of `bench front`, run unless it was begun: its picture and its tables."""
    begun = any((ROOT / "runs").glob(f"{name}*/space.yaml"))
    run("faar_ray.bench", "front", name.removeprefix(STUDY), *overrides, *(["--tables"] if begun else []))
    folder = ROOT / "runs" / name
    shutil.copyfile(folder / "front.png", picture_of(name))
    lines = (folder / "result.md").read_text(encoding="utf-8").rstrip().splitlines()
    return [f"![{name.removeprefix(STUDY)}](images/{name}.png)", "", *lines]


def steps() -> list[str]:
    """`bench step` on one thread, unless it was run: a row for each variant."""
    file = ROOT / "runs" / f"{STEPS}.json"
    if not file.is_file():
        command = [sys.executable, "-m", "faar_ray.bench", "step", "--threads", "1", "--pairs", "5", "--json"]
        measured = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(measured)
    return list(step_lines(json.loads(file.read_text(encoding="utf-8"))))


def step_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The table of `bench step --json`: each variant before and after it is shrunk; one without ranks once."""
    variants: dict[str, list[Mapping[str, Any]]] = {}
    for row in result["rows"]:
        variants.setdefault(row["variant"], []).append(row)
    ranks = sorted({row["rank"] for row in result["rows"] if row["rank"]}, reverse=True)

    yield (
        f"{result['image_size']} px, batch {result['batch']}, {result['device']}, {result['threads']} thread(s); "
        f"a step of the floor took {result['floor_ms']:,.0f} ms."
    )
    yield ""
    first = ranks[0]
    columns = ["", *(f"rank {rank}" for rank in ranks), f"by MACs, rank {first}", f"peak MB, rank {first}", "trainable"]
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for variant, rows in variants.items():
        at = {row["rank"] or first: row for row in rows}
        ratios = [f"{at[rank]['ratio']:.2f}" if rank in at else "" for rank in ranks]
        macs, peak = at[first]["macs_ratio"], at[first]["peak_mb"]
        measures = ["" if macs is None else f"{macs:.2f}", "" if peak is None else f"{peak:,.0f}"]
        yield f"| {' | '.join([f'`{variant}`', *ratios, *measures, count(at[first]['trainable_params'])])} |"


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


@dataclass(frozen=True)
class Listed:
    """A list of configurations, best first, and what a step of each takes."""

    configs: list[Config]
    steps: Mapping[str, float]
    """Milliseconds by configuration, or ratios to the decoder alone where that is among them."""
    ratios: bool
    timed: bool
    """Whether steps are of a run of their own."""

    @property
    def split(self) -> bool:
        """Whether parameters are known by part."""
        return any(config.mean("params/decoder") is not None for config in self.configs)


def listed(search: Search, timed: Mapping[str, float]) -> Listed:
    """The configurations of a list.

    Args:
        search: with all results.
        timed: milliseconds of a step, of a short run of the same rows where there is one (`steps_of`); minutes are left
            out then: the search itself may have shared its cores with other work.
    """
    configs = with_names(complete_configs(search.results))
    configs.sort(key=lambda config: -(config.mean("delta_m") or 0.0))
    steps = timed or {config.name: ms for config in configs if (ms := config.mean(STEP)) is not None}
    plain = next((steps.get(config.name) for config in configs if config.params.get("method") == PLAIN), None)
    return Listed(configs, {name: ms / (plain or 1.0) for name, ms in steps.items()}, bool(plain), bool(timed))


def draw_costs(search: Search, timed: Mapping[str, float], out: Path) -> None:
    """Quality of a list over parameters and over steps, on the test split where it was read."""
    rows = listed(search, timed)
    metric = "test/delta_m" if any(config.values("test/delta_m") for config in rows.configs) else "delta_m"
    points = []
    for config, name in zip(rows.configs, names_by_method(rows.configs), strict=True):
        quality, parameters, step = mean_of(config.values(metric)), config.mean(SIZE), rows.steps.get(config.name)
        if parameters is not None and step is not None and config.values(metric):
            points.append(Costed(name, family_of(config), quality.value, quality.ci95, parameters, step))

    split = "test" if metric.startswith("test/") else "val"
    step_label = "step, ratio to the decoder alone" if rows.ratios else "step (ms)"
    plot_costs(points, list(FAMILIES), f"{axis_label('delta_m')}, {split} split", step_label, out)


def family_of(config: Config) -> str:
    """The family of a configuration's method."""
    method = str(config.params.get("method", ""))
    return next(family for family, parts in FAMILIES.items() if any(part in method for part in parts))


def names_by_method(configs: Sequence[Config]) -> list[str]:
    """A short name for each: its method, and what differs between configurations of one method."""
    methods = [str(config.params.get("method", "")) for config in configs]
    names = []
    for config, method in zip(configs, methods, strict=True):
        alike = [other for other, its in zip(configs, methods, strict=True) if its == method]
        own = {other.config_id: {k: v for k, v in other.params.items() if k != "method"} for other in alike}
        names.append(f"{method}, {short_names(own)[config.config_id]}" if len(alike) > 1 else method or config.name)
    return names


def list_lines(search: Search, timed: Mapping[str, float]) -> Iterator[str]:
    """The table of a list of configurations, how it was measured, and which of the paper's key findings hold."""
    rows = listed(search, timed)
    tasks = tasks_of(search.base.data) if search.base is not None else {}
    yield " ".join(protocol(search.base, search.results))
    yield ""

    columns = ["configuration", "delta_m, val", "delta_m, test"]
    columns += [f"{name}, test: {task.metric} ({task.metric_unit})" for name, task in tasks.items()]
    columns += ["trainable", *(PARTS.values() if rows.split else ()), "step" if rows.ratios else "step, ms", "peak MiB"]
    columns += [] if rows.timed else ["minutes"]
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    if references := [result for result in search.results if result.role == "reference"]:
        yield f"| {' | '.join([*reference_cells(references, tasks, rows)][: len(columns)])} |"
    for config in rows.configs:
        yield f"| {' | '.join([*list_cells(config, tasks, rows)][: len(columns)])} |"

    yield ""
    yield from (f"- {sentence}" for sentence in key_findings(search.results, list(search.traces.values())))


def reference_cells(references: Sequence[TrialResult], tasks: Mapping[str, Task], rows: Listed) -> Iterator[str]:
    """The cells of the single-task models, one for each task, which delta_m is measured against."""
    yield from ("single-task models", "0", "0")
    for name, task in tasks.items():
        metric = f"test/{name}/{task.metric}"
        yield next((f"{r.metrics[metric]:#.3g}" for r in references if metric in known(r.metrics)), "")
    for name in [SIZE, *(f"params/{part}" for part in PARTS if rows.split)]:
        counts = [known(r.metrics).get(name) for r in references]
        yield count(sum(n for n in counts if n is not None)) if None not in counts else ""
    yield from ("", "", f"{sum(r.seconds for r in references) / 60:.1f}")


def list_cells(config: Config, tasks: Mapping[str, Task], rows: Listed) -> Iterator[str]:
    """A configuration's cells: quality with 95% intervals, each task's mean, and what it costs."""
    yield config.name
    for metric in ("delta_m", "test/delta_m"):
        mean = mean_of(config.values(metric))
        yield plus_minus(mean.value, mean.ci95)
    for name, task in tasks.items():
        value = config.mean(f"test/{name}/{task.metric}")
        yield "" if value is None else f"{value:#.3g}"
    for name in [SIZE, *(f"params/{part}" for part in PARTS if rows.split)]:
        params = config.mean(name)
        yield "" if params is None else count(params)
    step, memory = rows.steps.get(config.name), config.mean("memory/peak_mb")
    yield "" if step is None else f"{step:.2f}x" if rows.ratios else f"{step:.0f}"
    yield "" if memory is None else f"{memory:.0f}"
    yield f"{fmean(trial.seconds for trial in config.trials) / 60:.1f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["rho"]))
