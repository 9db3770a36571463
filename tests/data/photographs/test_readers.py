"""The published data sets, by values: what the files mean (DATA_FORMATS), which images are read, what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import loadmat, savemat
from torch import Tensor

from faar_ray.config.trial import DataConfig
from faar_ray.data import load_dataset, open_split
from faar_ray.data.photographs.cityscapes import TRAIN_IDS, Cityscapes
from faar_ray.data.photographs.nyud import Nyud
from faar_ray.data.photographs.pascal_context import NORMALS_IDS, PascalContext, human_parts
from faar_ray.errors import ConfigError, DataError

from .trees import (
    SHARED,
    SIZE,
    cityscapes_tree,
    needs_real_data,
    nyud_tree,
    pascal_tree,
    person,
    save_array,
    save_parts,
    save_plane,
)

NYUD = ("semseg", "depth", "normals", "edge")
PASCAL = ("semseg", "human_parts", "saliency", "normals", "edge")


def make_config(name: str, root: Path, tasks: tuple[str, ...], **keys: Any) -> DataConfig:
    values = {"name": name, "root": str(root), "tasks": tasks, "protocol": "papers", "loader_workers": 0}
    return DataConfig.model_validate(values | keys)


def label(reader: Any, task: str, index: int = 0) -> Tensor:
    value = reader.sample(index, (task,))[task]
    assert isinstance(value, Tensor)
    return value


def test_nyud_labels_mean_what_the_files_say(tmp_path: Path) -> None:
    root = nyud_tree(tmp_path / "NYUD_MT")
    reader = Nyud(make_config("nyud", root, NYUD), "train")
    assert (len(reader), reader.id(2)) == (8, "train0002")
    written = np.array(Image.open(root / "segmentation" / "train0002.png"))
    semseg = label(reader, "semseg", 2)
    assert semseg.dtype == torch.uint8 and (semseg[0] == 255).all()
    assert torch.equal(semseg[1:], torch.from_numpy(written[1:] - 1))
    depth = np.load(root / "depth" / "train0002.npy")
    assert torch.equal(label(reader, "depth", 2)[0, 1:], torch.from_numpy(depth[1:]))
    assert (label(reader, "depth", 2)[0, 0] == 255).all()
    normals = label(reader, "normals", 2)
    assert (normals[:, 0] == 0).all() and torch.allclose(normals[:, 1:].norm(dim=0), torch.ones(SIZE[0] - 1, SIZE[1]))
    assert set(label(reader, "edge", 2).unique().tolist()) == {0, 1}


def test_depth_in_millimetres_is_told_from_metres(tmp_path: Path) -> None:
    root = nyud_tree(tmp_path)
    reader = Nyud(make_config("nyud", root, NYUD), "train")
    metres = label(reader, "depth")
    path = root / "depth" / "train0000.npy"
    save_array(path, np.load(path) * 1000)
    assert torch.allclose(label(reader, "depth"), metres)


def test_splits_follow_the_protocol(tmp_path: Path) -> None:
    root = nyud_tree(tmp_path)
    papers = [len(open_split(make_config("nyud", root, NYUD), split)) for split in ("train", "val", "test")]
    search = make_config("nyud", root, NYUD, protocol="search", val_share=0.25)
    assert papers == [8, 3, 3]
    assert [len(open_split(search, split)) for split in ("train", "val", "test")] == [6, 2, 3]


@pytest.mark.parametrize(
    ("file", "array", "reason"),
    [
        (
            "segmentation/train0000.png",
            np.full(SIZE, 41, np.uint8),
            r"labels must be 0\.\.39 or 255 .*, got 40",
        ),
        ("segmentation/train0000.png", np.zeros((*SIZE, 3), np.uint8), r"one value per pixel, got shape \(24, 32, 3\)"),
        ("depth/train0000.npy", np.full(SIZE, -1.0), "depth must not be negative, got -1"),
        ("normals/train0000.npy", np.zeros(SIZE), r"must have the axes HWC, got shape \(24, 32\)"),
        ("normals/train0000.npy", np.full((*SIZE, 3), np.nan), "must be finite"),
        ("edge/train0000.npy", np.full(SIZE, 7), r"edges must be 0 or 1, got 7\.\.7"),
        ("depth/train0000.npy", None, "cannot be read as an array"),
        ("images/train0000.jpg", None, "train0000.jpg"),
    ],
)
def test_a_file_that_is_odd_or_missing_is_named(
    tmp_path: Path, file: str, array: np.ndarray[Any, Any] | None, reason: str
) -> None:
    root = nyud_tree(tmp_path)
    (root / file).unlink()
    if array is not None:
        (save_plane if file.endswith("png") else save_array)(root / file, array)
    reader = Nyud(make_config("nyud", root, NYUD), "train")
    with pytest.raises(DataError, match=reason) as error:
        reader.sample(0, ("image", *NYUD))
    assert str(root / file) in str(error.value)


def test_a_label_of_another_size_than_its_image_is_refused(tmp_path: Path) -> None:
    root = nyud_tree(tmp_path)
    save_plane(root / "segmentation" / "val0000.png", np.ones((12, 16), np.uint8))
    with pytest.raises(DataError, match=r"val0000\.png: semseg: must be 24x32 .*, got 12x16"):
        load_dataset(make_config("nyud", root, NYUD), "val")[0]


@pytest.mark.parametrize(("text", "reason"), [("", "lists no image"), ("a\nb\na\n", "lists a more than once")])
def test_an_empty_or_repeating_list_of_ids_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    root = nyud_tree(tmp_path)
    (root / "gt_sets" / "val.txt").write_text(text)
    with pytest.raises(DataError, match=rf"val\.txt: {reason}"):
        open_split(make_config("nyud", root, NYUD), "val")


@pytest.mark.parametrize(
    ("name", "tasks", "reason"),
    [
        ("nyud", ("depth",), r"has no gt_sets/train\.txt, so it is not nyud\. NYUD_MT comes as NYUD_MT\.tgz"),
        ("pascal_context", ("semseg",), r"has no ImageSets/Context/train\.txt, so it is not pascal_context"),
        ("cityscapes", ("semseg",), r"so it is not cityscapes\. Cityscapes comes from www\.cityscapes-dataset\.com"),
    ],
)
def test_a_folder_without_the_data_set_says_where_it_comes_from(
    tmp_path: Path, name: str, tasks: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        open_split(make_config(name, tmp_path, tasks), "train")
    with pytest.raises(ConfigError, match="is no folder"):
        open_split(make_config(name, tmp_path / "absent", tasks), "train")


def test_the_folder_that_holds_the_data_set_is_taken_too(tmp_path: Path) -> None:
    nyud_tree(tmp_path / "NYUD_MT")
    assert len(open_split(make_config("nyud", tmp_path, NYUD), "val")) == 3


def test_pascal_labels_mean_what_the_files_say(tmp_path: Path) -> None:
    root = pascal_tree(tmp_path / "PASCAL_MT")
    reader = PascalContext(make_config("pascal_context", root, PASCAL), "train")
    id = reader.id(1)  # its classes are in pascal-context, not in VOC12
    assert torch.equal(
        label(reader, "semseg", 1), torch.from_numpy(np.array(Image.open(root / "semseg/pascal-context" / f"{id}.png")))
    )
    saliency = np.array(Image.open(root / "sal_distill" / f"{id}.png"))
    assert torch.equal(label(reader, "saliency", 1)[0], torch.from_numpy((saliency >= 128).astype(np.uint8)))
    normals, half = label(reader, "normals", 1), SIZE[1] // 2
    assert (normals[:, :, half:] == 0).all()  # no class of NYUv2
    steps = np.array(Image.open(root / "normals_distill" / f"{id}.png")).astype(np.float32)
    raw = torch.from_numpy(2 * steps / 255 - 1).permute(2, 0, 1)
    expected = torch.nn.functional.normalize(raw, dim=0)[:, :, :half]
    assert torch.allclose(normals[:, :, :half], expected, atol=1e-6)
    edge = label(reader, "edge", 1)[0]
    assert SIZE[0] - 2 <= edge.sum() <= SIZE[0] and edge.sum(1).max() == 1  # one pixel wide
    assert set(edge.nonzero()[:, 1].tolist()) <= {half - 1, half}


def test_voc_s_classes_win_over_pascal_context_s(tmp_path: Path) -> None:
    root = pascal_tree(tmp_path)
    reader = PascalContext(make_config("pascal_context", root, ("semseg",)), "train")
    save_plane(root / "semseg" / "pascal-context" / f"{reader.id(0)}.png", np.zeros(SIZE, np.uint8), palette=True)
    voc = np.array(Image.open(root / "semseg" / "VOC12" / f"{reader.id(0)}.png"))
    assert torch.equal(label(reader, "semseg"), torch.from_numpy(voc))


def test_parts_of_all_persons_are_painted_in_the_file_s_order(tmp_path: Path) -> None:
    first, second, horse = np.zeros(SIZE, bool), np.zeros(SIZE, bool), np.ones(SIZE, bool)
    first[2:8, 2:8], second[6:12, 6:12] = True, True
    path = tmp_path / "parts.mat"
    objects = [person({"lear": first}), person({"ruarm": second}), person({"head": horse}, category=13)]
    save_parts(path, "parts", objects)
    painted = human_parts(path)
    assert painted[3, 3] == 1 and painted[7, 7] == painted[10, 10] == 3 and painted[20, 20] == 0
    save_parts(path, "parts", [person({"lhand": first}), person({"rfoot": second, "neck": first & second})])
    assert human_parts(path)[3, 3] == 4 and human_parts(path)[10, 10] == 6 and human_parts(path)[7, 7] == 2


def test_an_image_without_a_part_is_ignored_or_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAAR_RAY_CACHE", str(tmp_path / "cache"))
    root = pascal_tree(tmp_path / "PASCAL_MT")
    reader = PascalContext(make_config("pascal_context", root, PASCAL), "train")
    assert (label(reader, "human_parts", 1) == 255).all() and set(label(reader, "human_parts").unique().tolist()) == {
        0,
        1,
        2,
    }
    for _ in range(2):  # the second time from the cache
        alone = PascalContext(make_config("pascal_context", root, ("human_parts",)), "train")
        assert [alone.id(index) for index in range(len(alone))] == [reader.id(index) for index in (0, 2, 4)]


def test_a_part_that_nobody_knows_and_a_file_that_is_none_are_named(tmp_path: Path) -> None:
    path = tmp_path / "odd.mat"
    save_parts(path, "odd", [person({"tail": np.ones(SIZE, bool)})])
    with pytest.raises(DataError, match=r"odd\.mat: a person has the part 'tail'"):
        human_parts(path)
    path.write_bytes(b"no matlab file")
    with pytest.raises(DataError, match=r"odd\.mat: cannot be read as a MATLAB file with anno"):
        human_parts(path)


def test_there_are_170_classes_with_normals() -> None:
    assert len(NORMALS_IDS) == len(set(NORMALS_IDS.tolist())) == 170


def test_cityscapes_labels_mean_what_the_files_say(tmp_path: Path) -> None:
    root = cityscapes_tree(tmp_path / "cityscapes")
    reader = Cityscapes(make_config("cityscapes", root, ("semseg", "depth")), "train")
    assert (len(reader), reader.id(0)) == (6, "train/traincity0/traincity0_000000_000019")
    ids = np.array(Image.open(root / "gtFine" / f"{reader.id(1)}_gtFine_labelIds.png"))
    expected = torch.full(SIZE, 255, dtype=torch.uint8)
    for train_id, raw in enumerate(TRAIN_IDS):
        expected[torch.from_numpy(ids == raw)] = train_id
    assert torch.equal(label(reader, "semseg", 1), expected)

    steps = np.array(Image.open(root / "disparity" / f"{reader.id(1)}_disparity.png")).astype(np.float64)
    known = torch.from_numpy(steps > 1)
    disparity = label(reader, "depth", 1)[0]
    assert torch.allclose(disparity[known].double(), torch.from_numpy((steps - 1) / 256)[known])
    assert (disparity[torch.from_numpy(steps == 0)] == 255).all()
    metres = Cityscapes(make_config("cityscapes", root, ("depth",), disparity="depth"), "train")
    assert torch.allclose(label(metres, "depth", 1)[0][known], 0.2 * 2000 / disparity[known])


@needs_real_data
def test_real_pascal_photographs_have_parts_and_classes(tmp_path: Path) -> None:
    sample = SHARED / "pascal_sample"
    files = sorted((sample / "human_parts").glob("*.mat"))
    persons = 0
    for path in files:
        parts = human_parts(path)
        size = Image.open(sample / "JPEGImages" / f"{path.stem}.jpg").size
        assert tuple(parts.shape) == size[::-1]
        assert set(parts.unique().tolist()) <= {*range(7)} or (parts == 255).all()
        persons += bool((parts != 255).any())
        assert loadmat(path)["anno"].size == 1
    assert (len(files), persons) == (18, 8)


@needs_real_data
def test_the_real_cityscapes_pair_is_read(tmp_path: Path) -> None:
    root = SHARED / "cityscapes_sample"
    train = tmp_path / "leftImg8bit" / "train"
    for part in ("leftImg8bit", "gtFine"):
        (tmp_path / part).mkdir()
        for split in ("train", "val"):
            (tmp_path / part / split).symlink_to(root / part / "val")
    assert train.exists()
    reader = Cityscapes(make_config("cityscapes", tmp_path, ("semseg",)), "val")
    semseg = label(reader, "semseg")
    assert semseg.shape == (128, 256)  # the sample is smaller than the original
    assert (semseg == 0).float().mean() > 0.2  # road


@needs_real_data
def test_real_nyud_photographs_are_read(tmp_path: Path) -> None:
    script = [sys.executable, str(SHARED / "make_nyud_mt.py"), str(tmp_path), "--images", "4"]
    subprocess.run(script, check=True, capture_output=True)
    data = load_dataset(make_config("nyud", tmp_path, NYUD, image_size=(120, 160)), "val")
    assert len(data) == 4
    sample = data[0]
    known = sample["depth"][sample["depth"] != 255]
    assert known.min() > 0.4 and known.max() < 10.1
    assert (sample["semseg"] != 255).float().mean() > 0.5


@needs_real_data
def test_real_pascal_photographs_train_as_pascal_mt(tmp_path: Path) -> None:
    """18 photographs with PASCAL-Part and VOC's masks; normals, saliency and PASCAL-Context's labels are generated."""
    sample = SHARED / "pascal_sample"
    ids = sorted(path.stem for path in (sample / "human_parts").glob("*.mat"))
    for folder in ("JPEGImages", "human_parts"):
        (tmp_path / folder).symlink_to(sample / folder)
    (tmp_path / "semseg").mkdir()
    (tmp_path / "semseg" / "VOC12").symlink_to(sample / "semseg_voc")
    for split, part in (("train", ids[:12]), ("val", ids[12:])):
        lists = tmp_path / "ImageSets" / "Context" / f"{split}.txt"
        lists.parent.mkdir(parents=True, exist_ok=True)
        lists.write_text("\n".join(part) + "\n")
    (tmp_path / "pascal-context" / "trainval").mkdir(parents=True)
    for index, id in enumerate(ids):
        size = Image.open(sample / "JPEGImages" / f"{id}.jpg").size[::-1]
        rng = np.random.default_rng(index)
        save_plane(tmp_path / "normals_distill" / f"{id}.png", rng.integers(0, 256, (*size, 3), np.uint8))
        save_plane(tmp_path / "sal_distill" / f"{id}.png", rng.integers(0, 256, size, np.uint8))
        labels = np.where(np.arange(size[1]) < size[1] // 2, 9, 2).astype(np.uint16)
        savemat(tmp_path / "pascal-context" / "trainval" / f"{id}.mat", {"LabelMap": np.tile(labels, (size[0], 1))})

    config = make_config("pascal_context", tmp_path, PASCAL, image_size=(64, 96))
    batches = list(load_dataset(config, "train").batches(batch_size=4, seed=0, epoch=0, train=True))
    assert [len(batch["image"]) for batch in batches] == [4, 4, 4]
    parts = torch.cat([batch["human_parts"] for batch in batches])
    assert set(parts.unique().tolist()) > {0, 1, 2, 255}
    assert all(batch[task].shape[-2:] == (64, 96) for batch in batches for task in PASCAL)
