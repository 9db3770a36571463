"""The HTML page of a report: the values that fill its template."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from faar_ray.config.null_values import value_words
from faar_ray.records import FOUND, TrialResult
from faar_ray.report.history import History
from faar_ray.report.source import Search
from faar_ray.report.statistics.noise import Estimate
from faar_ray.report.statistics.rank_answer import Grouping
from faar_ray.report.statistics.table import ADAPTERS, TRAINABLE, Row, grouped
from faar_ray.report.words.answer import Answer
from faar_ray.report.words.key_findings import key_findings, seed_summaries
from faar_ray.report.words.protocol import measured_as, protocol, reference_values
from faar_ray.report.words.rank_words import format_components, group_title
from faar_ray.report.words.wording import label, plus_minus

SHOWN_PACKAGES = ("torch", "torchvision", "timm", "ray", "optuna", "mlflow", "pyarrow", "faar-ray")
MINUS = "\u2212"
MOST_ROWS = 40
"""Configurations in the table of groups."""
ROLES = {"trial": 0, "point": 0, "control": 1, "reference": 2}


@dataclass(frozen=True)
class Picture:
    """A plot on the page, or only its sentences."""

    file: Path | None
    heading: str
    caption: str
    sentences: tuple[str, ...] = ()
    """Shown above the picture."""

    @property
    def source(self) -> str:
        """The PNG as a data URI: the page is one file, also inside MLflow's viewer."""
        return "data:image/png;base64," + base64.b64encode(self.file.read_bytes()).decode() if self.file else ""


@dataclass(frozen=True)
class RankSection:
    """The ranks of the recommended configuration: a heat map, its sentences, and a table."""

    file: Path | None
    caption: str
    sentences: tuple[str, ...]
    groupings: tuple[Grouping, ...] = ()

    @property
    def source(self) -> str:
        """As of a `Picture`."""
        return Picture(self.file, "", "").source


def render(
    search: Search,
    answer: Answer,
    history: History,
    plots: Sequence[Picture],
    maps: Sequence[Picture],
    limit: str = "",
    ranks: RankSection | None = None,
) -> str:
    """The whole page as HTML, without scripts or external files.

    Args:
        search: the run as read from disk.
        answer: the answer to it.
        history: curves and environment, or why they are missing.
        plots: in order.
        maps: rank heat maps.
        limit: what ended the search early, if anything did.
        ranks: of the recommended configuration, if it has any.
    """
    environment = Environment(
        loader=PackageLoader("faar_ray.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "label": label,
        "number": format_number,
        "measure": format_measured,
        "interval": format_interval,
        "estimate": format_estimate,
        "typeset": typeset,
        "group_title": group_title,
        "components": format_components,
    }
    parameters = list(dict.fromkeys(k for r in search.results for k in r.params if r.role in FOUND))
    groups = grouped(answer.rows, MOST_ROWS)
    by_role = sorted(search.results, key=lambda r: (ROLES[r.role], r.trial_id))
    file = f"{search.folder.parent.name}/{search.folder.name}/space.yaml"
    return environment.get_template("template.html").render(
        name=search.name,
        unfinished=str(search.progress),
        note=search.progress.note,
        unended="running" if search.progress.how == "running" else "lost",
        answer=answer,
        groups=[[(row, format_versus_best(row, answer)) for row in group] for group in groups],
        left_out=sum(row.role == "trial" for row in answer.rows) - sum(map(len, groups)),
        others=[(row, format_versus_best(row, answer)) for row in answer.rows if row.role != "trial"],
        noise=noise_caption(answer),
        plots=plots,
        ranks=ranks,
        maps=maps,
        parameters=parameters,
        trials=[trial_cells(r, parameters, answer) for r in by_role],
        references=reference_values(search.results),
        summaries=seed_summaries(search.results, answer.quality.name) if search.listed else [],
        key_findings=list(key_findings(search.results, search.traces.values())) if search.listed else [],
        protocol=[*protocol(search.base, search.results), *([f"The search ended early: {limit}."] if limit else [])],
        environment=environment_rows(history.environment),
        missing=history.missing,
        space=search.space_yaml,
        rerun=f"python -m faar_ray.tune {file} --name {search.name}-again",
        measured=measured_as(search.base.data, search.results) if search.base else "",
        has_test=any(row.test is not None for row in answer.rows),
        has_cost=bool(answer.cost_name),
    )


def format_versus_best(row: Row, answer: Answer) -> str:
    """Difference of the quality from the best, for a cell."""
    if row.config_id == answer.best:
        return "best"
    gain = row.versus_best
    text = plus_minus(gain.value, gain.ci95).replace("-", MINUS)
    return text if gain.is_significant or not math.isfinite(gain.ci95) else f"{text}, within noise"


def noise_caption(answer: Answer) -> str:
    """Seed noise and its degrees of freedom, for the caption of the table."""
    noise = answer.noise
    if not noise.dof:
        return f"Seed noise of {noise.metric} is unknown (0 degrees of freedom): no difference below is significant."
    kind = "paired over seeds" if noise.paired else "over seeds"
    return (
        f"Seed noise of {noise.metric}: sd {noise.sd:.2g} {kind}, {noise.dof} degrees of freedom; "
        "± is the half width of a 95% interval, of a value or of a difference."
    )


def trial_cells(result: TrialResult, parameters: Sequence[str], answer: Answer) -> dict[str, Any]:
    """One row of the table of all trials."""
    quality = answer.quality.name
    if result.role == "control":
        what = ", ".join(f"{k.split('.')[-1]} {format_parameter(k, v)}" for k, v in result.params.items())
    else:
        what = "single task" if result.role == "reference" else ""
    params = result.params
    values = [format_parameter(name, params[name]) if name in params else "" for name in parameters]
    return {
        "trial": result,
        "what": what,
        "parameters": values if result.role in FOUND else None,
        "quality": format_measured(result.metrics.get(quality)),
        "test": format_measured(result.metrics.get(f"test/{quality.removeprefix('val/')}")),
        "adapters": format_number(result.metrics.get(ADAPTERS), whole=True),
        "trainable": format_number(result.metrics.get(TRAINABLE), whole=True),
        "rank": format_measured(result.metrics.get("rank/mean")),
    }


def format_interval(row: Row, metric: str) -> str:
    """A configuration's quality with its 95% interval, for a cell."""
    value = row.values[metric]
    return plus_minus(value, row.ci95).replace("-", MINUS) if math.isfinite(row.ci95) else format_measured(value)


def format_estimate(mean: Estimate) -> str:
    """A mean with the half width of its 95% interval, for a cell."""
    return "" if math.isnan(mean.value) else plus_minus(mean.value, mean.ci95).replace("-", MINUS)


def format_parameter(key: str, value: Any) -> str:
    """A searched key's value for a cell; null with its meaning."""
    return value_words(key, value) if value is None or isinstance(value, bool) else format_number(value)


def format_number(value: Any, *, whole: bool = False) -> str:
    """A value for a cell: three significant digits (or all of a count), a typographic minus, nothing for None."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if whole:
        return f"{value:,.0f}".replace(",", "\u202f")
    return f"{value:.3g}".replace("-", MINUS)


def format_measured(value: float | None) -> str:
    """A measured value for a cell: two decimals, more where it is small."""
    if value is None or not math.isfinite(value) or abs(value) >= 1000 or 0 < abs(value) < 0.05:
        return format_number(value)
    return f"{value:.2f}".replace("-", MINUS)


def typeset(sentence: str) -> str:
    """A sentence with typographic minus signs."""
    return re.sub(r"(?<![\w.])-(?=\d)", MINUS, sentence)


def environment_rows(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The part of the environment that the page shows, as (name, value)."""
    if not environment:
        return []
    versions = environment.get("packages", {})
    rows = [
        ("Python", environment.get("python")),
        ("platform", environment.get("platform")),
        ("CPUs", environment.get("cpus")),
        ("commit", environment.get("git_commit") or "unknown"),
        ("search seed", environment.get("seed")),
    ]
    rows += [(name, versions[name]) for name in SHOWN_PACKAGES if name in versions]
    return [(name, str(value)) for name, value in rows if value is not None]
