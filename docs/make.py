"""Makes the documents' tables and pictures: `python docs/make.py rho [ablation sinewich methods ...]`.

Runs `search_spaces/NAME.yaml` unless `runs/NAME` is there, copies the front to `docs/images/NAME.png` where a document
shows it, and replaces what stands between `<!-- NAME: ... -->` and `<!-- end of NAME -->` in the documents.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from faar_ray.report import build_report
from faar_ray.report.source import Search, read_search
from faar_ray.report.statistics.table import Row
from faar_ray.report.words.answer import Answer, build_answer
from faar_ray.report.words.key_findings import key_findings, seed_summaries
from faar_ray.report.words.wording import count, label, plus_minus

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def main(names: Sequence[str]) -> int:
    """Make the blocks of these searches anew; gives the exit code."""
    for name in names:
        folder = ROOT / "runs" / name
        if not (folder / "results.parquet").is_file():
            command = [sys.executable, "-m", "faar_ray.tune", f"search_spaces/{name}.yaml"]
            subprocess.run(command, cwd=ROOT, check=True)

        search = read_search(folder)
        picture = ROOT / "docs" / "images" / f"{name}.png"
        if picture.is_file():
            shutil.copyfile(build_report(folder) / "front.png", picture)

        block = "\n".join(list_lines(search) if search.listed else front_lines(search))
        for document in DOCUMENTS:
            replace_block(document, name, block)
    return 0


def replace_block(document: Path, name: str, block: str) -> None:
    """Put a block between a document's marks; a document without them stays as it is."""
    text = document.read_text(encoding="utf-8")
    marks = re.compile(rf"(<!-- {name}: [^\n]*-->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    document.write_text(marks.sub(lambda match: f"{match[1]}{block}\n{match[2]}", text), encoding="utf-8")


def front_lines(search: Search) -> Iterator[str]:
    """The table of a search for a front, and its recommendation."""
    result = build_answer(search.results, search.objectives, search.limits)
    quality, cost = result.quality.name, label(result.cost_name)

    yield f"| configuration | {quality}, val | against best | {cost} | {quality}, test |"
    yield "|---|---|---|---|---|"
    for row in result.rows:
        yield f"| {' | '.join(front_cells(row, result))} |"

    yield ""
    yield f"> {result.sentences[0]}"


def front_cells(row: Row, result: Answer) -> list[str]:
    """A configuration's cells, the recommended one's name in bold."""
    name = f"control: {row.name}" if row.role == "control" else row.name
    gap = row.versus_best
    return [
        f"**{name}**" if row.recommended else name,
        f"{row.values[result.quality.name]:.1f}",
        "" if gap.value == 0 else plus_minus(gap.value, gap.ci95),
        "" if row.cost is None else count(row.cost),
        "" if row.test is None else f"{row.test:.1f}",
    ]


def list_lines(search: Search) -> Iterator[str]:
    """The table of a list of configurations, and which of the paper's key findings hold."""
    yield "| configuration | delta_m, val | delta_m, test | trainable |"
    yield "|---|---|---|---|"
    for row in seed_summaries(search.results):
        val, test = (plus_minus(mean.value, mean.ci95) for mean in (row.val, row.test))
        yield f"| {row.name} | {val} | {test} | {count(row.params)} |"

    yield ""
    yield from (f"- {sentence}" for sentence in key_findings(search.results, list(search.traces.values())))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["rho"]))
