"""A search on photographs from beginning to end: real ones where they are, else a tree in their layout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from ..commands import SOURCE, run_command
from ..data.photographs.trees import SHARED, needs_real_data, nyud_tree

SMALL = (
    *("base.data.image_size=[32, 64]", "base.optim.epochs=1", "base.optim.batch_size=4", "base.ranks.init_rank=4"),
    *("base.pdrs.start_epoch=0", "base.pdrs.free_epochs=0", "base.data.val_share=0.25", "base.data.loader_workers=0"),
    *("parameters={ranks.init_rank: {values: [4, 8]}}", "budget.trials=2", "search.replicates=null", "controls=[]"),
    *("references={semseg: 5.0, depth: 1.0, normals: 40.0}", "search.lag=1", "-q", "--json"),
)


def search_shards(folder: Path, root: Path) -> Path:
    """Pack, check, show, search and predict as a person would; gives the folder of the predictions."""

    def run(module: str, *arguments: str) -> str:
        result = run_command(module, folder, *arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout

    run("data", "pack", "nyud", "--root", str(root), "--out", "packed", "--processes", "0")
    run("data", "check", "nyud", "--root", "packed")
    run("data", "show", "nyud", "--root", "packed", "--size", "64", "--images", "2", "--out", "sheet.png")
    assert Image.open(folder / "sheet.png").width > 500

    space = SOURCE / "search_spaces" / "nyud.yaml"
    answer = json.loads(run("tune", str(space), "base.data.root=packed", *SMALL).splitlines()[-1])
    assert answer["trials"] == {"complete": 2, "pruned": 0, "failed": 0}
    results = pq.read_table(folder / "runs" / "nyud" / "results.parquet").to_pylist()
    assert len(results) == 2
    assert all({"val/depth/rmse", "test/semseg/miou", "test/normals/mean_angle"} <= row.keys() for row in results)
    config = yaml.safe_load((folder / "runs" / "nyud" / "space.yaml").read_text())
    assert config["base"]["data"]["root"] == "packed"

    photograph = next((root / "images").glob("*.jpg"))
    run("predict", "nyud/t000-s0", str(photograph), "--out", "predicted")
    return folder / "predicted"


@pytest.mark.slow
@pytest.mark.nightly
def test_a_search_reads_packed_photographs_by_a_relative_root(tmp_path: Path) -> None:
    predicted = search_shards(tmp_path, nyud_tree(tmp_path / "NYUD_MT", train=24, val=12, size=(48, 64)))
    assert {path.name.partition("_")[2] for path in predicted.iterdir()} == {"semseg.png", "depth.png", "normals.png"}


@pytest.mark.slow
@needs_real_data
def test_a_search_reads_real_photographs(tmp_path: Path) -> None:
    root = tmp_path / "NYUD_MT"
    for count, split in ((24, "train"), (12, "val")):
        script = [sys.executable, str(SHARED / "make_nyud_mt.py"), str(tmp_path / split), "--images", str(count)]
        subprocess.run(script, check=True, capture_output=True)
    (tmp_path / "train").rename(root)
    for path in (tmp_path / "val").rglob("*"):
        if path.is_file() and not path.name.endswith(".txt"):
            path.rename(root / path.relative_to(tmp_path / "val"))
    (root / "gt_sets" / "val.txt").write_text((tmp_path / "val" / "gt_sets" / "val.txt").read_text())
    predicted = search_shards(tmp_path, root)
    assert all(Image.open(path).size == (320, 240) for path in predicted.iterdir())
