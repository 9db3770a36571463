"""`data check` of photographs: what it counts, and that it names what is wrong; the quick check before training."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from faar_ray.config.trial import TrialConfig
from faar_ray.data.__main__ import main
from faar_ray.data.checks.survey import survey
from faar_ray.data.loading import check_root
from faar_ray.errors import ConfigError
from faar_ray.train.preflight import preflight

from .conftest import write_folder
from .test_readers import NYUD, PASCAL, make_config
from .trees import SHARED, SIZE, cityscapes_tree, needs_real_data, nyud_tree, pascal_tree, save_array, save_plane

PIXELS = SIZE[0] * SIZE[1]
Damage = Callable[[Path], None]


@dataclass
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    monkeypatch.setenv("COLUMNS", "200")

    def run(name: str, root: Path, *options: str) -> Outcome:
        code = main(["check", name, "--root", str(root), "--size", "32", *options])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


def rows(text: str) -> list[list[str]]:
    """Cells of all tables."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]


def test_a_whole_data_set_is_counted_and_measured(tmp_path: Path, check: Callable[..., Outcome]) -> None:
    outcome = check("nyud", nyud_tree(tmp_path))
    assert outcome.code == 0, outcome.err
    assert "nyud: 7 train, 1 val, 3 test (data.protocol: search)" in outcome.out
    cells = rows(outcome.out)
    assert [row[:3] for row in cells[:2]] == [["train", "8", "24x32"], ["val", "3", "24x32"]]
    labelled = f"{(PIXELS - SIZE[1]) / PIXELS:.1%}"
    task = {row[0]: row[1:] for row in cells if row[0] in NYUD}
    assert task["semseg"] == ["segmentation", "train", "8 of 8", labelled, "40 of 40 classes"]
    assert task["normals"][:4] == ["normals", "train", "8 of 8", labelled]
    assert task["depth"][:4] == ["depth", "train", "8 of 8", labelled] and task["depth"][4].endswith("m")
    assert task["edge"][4].endswith("% yes")
    assert sum(row[0].isdecimal() for row in cells) == 40
    assert "reading an epoch: about" in outcome.out and "for 7 images at 32x32" in outcome.out


def test_totals_are_those_of_the_files(tmp_path: Path) -> None:
    root = nyud_tree(tmp_path)
    found = survey(make_config("nyud", root, NYUD))
    ids = (root / "gt_sets" / "train.txt").read_text().split()
    labels = np.stack([np.array(Image.open(root / "segmentation" / f"{id}.png")) for id in ids])
    depth = np.stack([np.load(root / "depth" / f"{id}.npy") for id in ids])
    images = np.stack([np.array(Image.open(root / "images" / f"{id}.jpg")) for id in ids]) / 255

    train = found.splits["train"]
    counts = np.bincount(labels.ravel(), minlength=41)[1:]
    assert (
        train.tasks["semseg"].counts[:40].tolist() == counts.tolist() and train.tasks["semseg"].counts[40:].sum() == 0
    )
    in_images = [(labels == value + 1).any((1, 2)).sum() for value in range(40)]
    assert train.tasks["semseg"].class_images[:40].tolist() == in_images
    known = depth[depth > 0]
    assert (train.tasks["depth"].low, train.tasks["depth"].high) == (known.min(), known.max())
    assert np.allclose(train.mean, images.mean((0, 1, 2))) and np.allclose(train.std, images.std((0, 1, 2)))
    assert dict(train.tasks["depth"].units) == {"m": 8}


def test_processes_find_what_one_process_finds(tmp_path: Path) -> None:
    root = nyud_tree(tmp_path, train=4, val=2)
    save_array(root / "depth" / "val0001.npy", np.full(SIZE, -1.0))
    config = make_config("nyud", root, NYUD)
    alone, together = survey(config, processes=0), survey(config, processes=1)
    assert together.faults == alone.faults != []
    for split in alone.splits:
        assert np.array_equal(alone.splits[split].mean, together.splits[split].mean)


def _in_millimetres(root: Path, *ids: str) -> None:
    for id in ids:
        path = root / "depth" / f"{id}.npy"
        save_array(path, np.load(path) * 1000)


def test_depth_in_millimetres_is_told_and_a_mixture_is_a_fault(tmp_path: Path, check: Callable[..., Outcome]) -> None:
    root = nyud_tree(tmp_path, train=8, val=2)
    _in_millimetres(root, *(path.stem for path in (root / "depth").iterdir()))
    outcome = check("nyud", root, "--tasks", "depth")
    assert outcome.code == 0 and outcome.out.count("m (files: mm)") == 2
    save_array(root / "depth" / "train0001.npy", np.load(root / "depth" / "train0001.npy") / 1000)
    outcome = check("nyud", root, "--tasks", "depth")
    assert outcome.code == 2 and "depth: train mixes units: 7 files in mm, 1 files in m" in outcome.err


@pytest.mark.parametrize(
    ("file", "array", "reason"),
    [
        ("segmentation/val0001.png", np.full(SIZE, 60, np.uint8), "labels must be 0..39 or 255 (ignored), got 59"),
        ("segmentation/val0001.png", np.ones((12, 16), np.uint8), "semseg: must be 24x32 (height x width), as "),
        ("depth/val0001.npy", np.full(SIZE, -2.0), "depth must not be negative, got -2"),
        (
            "normals/val0001.npy",
            np.full((*SIZE, 3), 3.0, np.float32),
            "unit vectors or zeros, got lengths 5.2",
        ),
        ("normals/val0001.npy", np.full((*SIZE, 3), np.nan, np.float32), "must be finite"),
        ("edge/val0001.npy", np.full(SIZE, 7), "edges must be 0 or 1, got 7..7"),
        ("edge/val0001.npy", None, "edge: 1 of 10 files are missing, first "),
        ("images/val0001.jpg", None, "image: 1 of 10 files are missing, first "),
    ],
)
def test_a_fault_is_told_by_file_and_exits_2(
    tmp_path: Path, check: Callable[..., Outcome], file: str, array: np.ndarray[Any, Any] | None, reason: str
) -> None:
    root = nyud_tree(tmp_path, train=8, val=2)
    (root / file).unlink()
    if array is not None:
        (save_plane if file.endswith("png") else save_array)(root / file, array)
    outcome = check("nyud", root)
    assert outcome.code == 2 and "Traceback" not in outcome.err
    assert outcome.err.startswith("1 fault:\n") and reason in outcome.err and str(root / file) in outcome.err
    assert "reading an epoch" not in outcome.out and rows(outcome.out)


def test_all_faults_are_counted_and_the_first_are_listed(tmp_path: Path, check: Callable[..., Outcome]) -> None:
    root = nyud_tree(tmp_path, train=12, val=2)
    for path in (root / "depth").glob("*.npy"):
        save_array(path, np.full(SIZE, -1.0))
    (root / "edge" / "train0003.npy").write_bytes(b"none")
    outcome = check("nyud", root)
    lines = outcome.err.splitlines()
    assert (outcome.code, lines[0], len(lines)) == (2, "15 faults:", 12)
    assert lines[-1] == "  ... and 5 more"


def test_depth_that_is_not_finite_is_a_note(tmp_path: Path, check: Callable[..., Outcome]) -> None:
    root = nyud_tree(tmp_path, train=8, val=2)
    path = root / "depth" / "val0000.npy"
    depth = np.load(path)
    depth[3, :5] = np.nan
    save_array(path, depth)
    outcome = check("nyud", root)
    assert outcome.code == 0
    assert f"1 note:\n  {path}: depth: 5 pixels are not finite, so without label" in outcome.out


def test_labels_of_which_none_count_and_images_in_two_splits_are_faults(
    tmp_path: Path, check: Callable[..., Outcome]
) -> None:
    root = nyud_tree(tmp_path, train=8, val=2)
    for index in range(2):
        save_plane(root / "segmentation" / f"val000{index}.png", np.zeros(SIZE, np.uint8))
    with (root / "gt_sets" / "train.txt").open("a") as file:
        file.write("val0001\n")
    outcome = check("nyud", root)
    assert outcome.code == 2
    assert "1 images of val are in train too, first val0001" in outcome.err
    assert "semseg: no pixel of val has a label" in outcome.err


def test_a_task_without_any_file_can_be_left_out(tmp_path: Path, check: Callable[..., Outcome]) -> None:
    root = cityscapes_tree(tmp_path, train=8, val=2)
    for path in (root / "disparity").rglob("*.png"):
        path.unlink()
    outcome = check("cityscapes", root)
    assert outcome.code == 2
    assert "depth: 10 of 10 files are missing" in outcome.err and "leave depth out of the tasks" in outcome.err
    assert outcome.err.startswith("1 fault:")
    assert check("cityscapes", root, "--tasks", "semseg").code == 0


def test_the_other_data_sets_are_checked_whole_and_packed(tmp_path: Path, check: Callable[..., Outcome]) -> None:
    outcome = check("pascal_context", pascal_tree(tmp_path / "PASCAL_MT"))
    assert outcome.code == 0, outcome.err
    task = {row[0]: row[1:] for row in rows(outcome.out) if row[0] in PASCAL}
    assert task["human_parts"][2:] == ["3 of 6", "50.0%", "3 of 7 classes"]
    assert task["normals"][2:4] == ["6 of 6", "50.0%"]

    assert check("folder", write_folder(tmp_path / "own")).code == 0

    root, out = nyud_tree(tmp_path / "NYUD_MT"), tmp_path / "packed"
    assert main(["pack", "nyud", "--root", str(root), "--out", str(out), "--processes", "0"]) == 0
    whole, packed = check("nyud", root), check("nyud", out)
    assert packed.code == 0 and rows(packed.out) == rows(whole.out)


def test_a_missing_shard_is_told_before_anything_is_read(tmp_path: Path, check: Callable[..., Outcome]) -> None:
    root, out = nyud_tree(tmp_path / "NYUD_MT"), tmp_path / "packed"
    assert main(["pack", "nyud", "--root", str(root), "--out", str(out), "--processes", "0"]) == 0
    (out / "val-00000.parquet").unlink()
    with pytest.raises(ConfigError, match=r"data\.root: image: 1 of 2 files are missing, first .*val-00000\.parquet"):
        check_root(make_config("nyud", out, NYUD))


def test_shards_in_object_storage_are_checked(tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAAR_RAY_CACHE", str(tmp_path / "cache"))
    root = nyud_tree(tmp_path / "NYUD_MT")
    assert main(["pack", "nyud", "--root", str(root), "--out", s3, "--processes", "0"]) == 0
    assert main(["check", "nyud", "--root", s3, "--size", "32"]) == 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([], r"must name the folder of nyud, got null. NYUD_MT comes as NYUD_MT.tgz"),
        (["--root", "."], "has no gt_sets/train.txt, so it is not nyud. NYUD_MT comes as NYUD_MT.tgz"),
        (["--root", "ftp://there"], "--root: must be a folder or s3://"),
        (["--root", ".", "--tasks", "saliency"], "data.tasks: nyud has semseg, normals, depth, edge, got saliency"),
        (["--root", ".", "--tasks", "people"], "--tasks: must be of semseg"),
    ],
)
def test_what_cannot_be_checked_is_refused_with_the_reason(
    options: list[str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check", "nyud", *options]) == 2
    assert reason in capsys.readouterr().err


def test_names_in_another_case_are_found(tmp_path: Path, check: Callable[..., Outcome]) -> None:
    root = nyud_tree(tmp_path / "nyud_mt", train=8, val=2)
    (root / "segmentation").rename(root / "Segmentation")
    for path in (root / "images").iterdir():
        path.rename(path.with_suffix(".JPG"))
    (root / "gt_sets").rename(root / "GT_sets")
    config = make_config("nyud", tmp_path, NYUD)  # the folder that holds it
    check_root(config)
    assert check("nyud", tmp_path).code == 0


def test_missing_files_are_told_before_a_trial_starts(tmp_path: Path) -> None:
    root = nyud_tree(tmp_path, train=8, val=2)
    config = {"data.name": "nyud", "data.root": str(root), "data.tasks": ("semseg", "depth"), "data.image_size": 64}
    preflight(TrialConfig.resolve(**config))
    gone = [root / "depth" / "train0002.npy", root / "depth" / "val0001.npy", root / "images" / "val0000.jpg"]
    for path in gone:
        path.unlink()
    with pytest.raises(ConfigError) as error:
        preflight(TrialConfig.resolve(**config))
    assert error.value.faults == (
        f"data.root: image: 1 of 10 files are missing, first {gone[2]}",
        f"data.root: depth: 2 of 10 files are missing, first {gone[0]}",
    )


def test_the_quick_check_lists_each_folder_once_and_opens_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = pascal_tree(tmp_path, train=30, val=10)
    for path in root.rglob("*.png"):
        path.write_bytes(b"")  # not a picture, which is not looked at
    listed: list[Path] = []
    real = os.listdir

    def listdir(path: Path) -> list[str]:
        listed.append(path)
        return real(path)

    monkeypatch.setattr("faar_ray.data.photographs.listing.os.listdir", listdir)
    check_root(make_config("pascal_context", root, PASCAL))
    assert len(listed) < 40  # 7 folders for each of three readers and for the check, whatever the number of images


@needs_real_data
def test_the_real_photographs_of_pascal_are_checked(tmp_path: Path, check: Callable[..., Outcome]) -> None:
    sample = SHARED / "pascal_sample"
    ids = sorted(path.stem for path in (sample / "JPEGImages").iterdir())
    lists = tmp_path / "ImageSets" / "Context"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("\n".join(ids[:12]))
    (lists / "val.txt").write_text("\n".join(ids[12:]))
    (tmp_path / "semseg").mkdir()
    (tmp_path / "semseg" / "VOC12").symlink_to(sample / "semseg_voc")
    for folder in ("JPEGImages", "human_parts"):
        (tmp_path / folder).symlink_to(sample / folder)
    outcome = check("pascal_context", tmp_path, "--tasks", "semseg,human_parts")
    assert outcome.code == 0, outcome.err
    images = [row[3] for row in rows(outcome.out) if row[2:3] in (["train"], ["val"]) and "of" in row[3]]
    assert len(images) == 4 and sum(int(text.split()[0]) for text in images[2:]) == 8
