"""`bench data`: rates of a tiny data set, and what they mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from faar_ray.bench import loading
from faar_ray.bench.__main__ import main
from faar_ray.bench.loading import sentences

from ..data.photographs.trees import nyud_tree


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "LONGEST_S", 0.02)


def test_every_source_is_measured_and_the_slower_one_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = nyud_tree(tmp_path / "nyud")
    keys = ["data.image_size=32", "data.tasks=[semseg, depth]", "backbone.pretrained=false", "ranks.init_rank=4"]
    arguments = ["--root", str(root), "--images", "6", "--processes", "1", "--steps", "1", "--json"]
    assert main(["data", "nyud", *keys, *arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    measured = {(row["source"], row["augmented"], row["processes"]) for row in result["rows"]}
    sources = ("files", "shards", "decoded cache")
    assert measured == {(source, augmented, n) for source in sources for augmented in (True, False) for n in (0, 1)}
    assert all(row["images_per_s"] > 0 for row in result["rows"]) and result["trained_images_per_s"] > 0
    assert "is the slower one here" in result["says"][0] or "takes longer here" in result["says"][0]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["nyud"], "data.root: must name the folder of nyud, got null"),
        (["scenes"], "data.name: scenes is in memory while it trains"),
        (["nothing.yaml"], "nothing.yaml"),
        (["scenes", "data.image_siz=3"], "data.image_siz=3: unknown key (did you mean 'image_size'?)"),
    ],
)
def test_what_cannot_be_measured_is_a_sentence(
    arguments: list[str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", *arguments]) == 2
    assert fault in capsys.readouterr().err


def test_the_slower_one_is_the_one_with_fewer_images_a_second() -> None:
    of = {"files": 20.0, "decoded cache": 50.0}
    assert sentences(of, 120.0, "cpu", 2, 16)[0].startswith(
        "loading is the slower one here: 100 images/s are read by 2"
    )
    assert sentences(of, 80.0, "cpu", 2, 16)[0].startswith("training is the slower one here")
    assert sentences(of, 80.0, "cpu", 0, 16)[0].startswith("loading takes longer here, where one process does both")
    assert "4 loader processes on such cores read 200 images/s" in sentences(of, 80.0, "cpu", 2, 16)[1]
    assert sentences(of, 80.0, "cpu", 2, 16)[1].endswith("for steps of 16 images below 80 ms.")
