"""`data pack` and `data show` of photographs, as a person types them."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import pytest

from faar_ray.data.__main__ import main
from faar_ray.data.packed.manifest import read_manifest

from .trees import nyud_tree


def test_pack_writes_shards_that_show_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = nyud_tree(tmp_path / "NYUD_MT"), tmp_path / "packed"
    assert main(["pack", "nyud", "--root", str(root), "--out", str(out), "--processes", "0"]) == 0
    captured = capsys.readouterr()
    assert captured.out.strip() == str(out)
    assert "8 train, 3 val; semseg, normals, depth, edge;" in captured.err
    manifest = read_manifest(out)
    assert (manifest.name, manifest.images("train"), manifest.images("val")) == ("nyud", 8, 3)

    shown = ["show", "nyud", "--root", str(out), "--size", "32", "--images", "1", "--out", str(tmp_path / "sheet.png")]
    assert main(shown) == 0
    plain = matplotlib.image.imread(tmp_path / "sheet.png").shape
    assert main([*shown[:-1], str(tmp_path / "more.png"), "--augmented", "--split", "train"]) == 0
    more = matplotlib.image.imread(tmp_path / "more.png").shape
    assert more[0] > 2 * plain[0] and more[1] == plain[1]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--out", "p"], "data.root: must name the folder of nyud, got null"),
        (["--root", "absent", "--out", "p"], "is no folder, so it is not nyud"),
        (["--root", "."], "--out: must name a folder or URI for the shards, got none"),
        (["--root", ".", "--out", "ftp://there"], "--out: must be a folder or s3://"),
    ],
)
def test_a_command_that_cannot_pack_says_why(
    options: list[str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(nyud_tree(tmp_path))
    assert main(["pack", "nyud", *options]) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


def test_a_fault_in_a_process_that_reads_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = nyud_tree(tmp_path / "NYUD_MT")
    damaged = root / "depth" / "train0003.npy"
    damaged.write_bytes(b"no array")
    assert main(["pack", "nyud", "--root", str(root), "--out", str(tmp_path / "packed"), "--processes", "1"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"{damaged}: cannot be read as an array")
    assert "Traceback" not in error and "\n" not in error
