"""A folder of somebody's data: images, labels, splits."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from faar_ray.data import load_dataset
from faar_ray.data.datasets import SPLITS, FileReader
from faar_ray.data.photographs.folder import Folder
from faar_ray.errors import ConfigError, DataError

from .conftest import DATASET, data_config

Make = Callable[..., Path]
TASKS = ("rooms", "pets", "marked", "slope", "far", "heat")


def splits(root: Path, **changes: object) -> dict[str, list[str]]:
    """The images of each split."""
    return {split: Folder(data_config(root, **changes), split).ids for split in SPLITS}


def write_lists(root: Path, **lists: str) -> None:
    """Files of splits/."""
    (root / "splits").mkdir()
    for name, text in lists.items():
        (root / "splits" / f"{name}.txt").write_text(text)


def test_a_sample_has_compact_tensors_of_its_own_size_and_none_for_a_label_that_is_not_there(folder: Path) -> None:
    reader = Folder(data_config(folder), "train")
    samples = {reader.id(i): reader.sample(i, ("image", *TASKS)) for i in range(len(reader))}
    full = samples["0008"]
    kinds = {name: (tuple(value.shape), value.dtype) for name, value in full.items() if value is not None}
    assert kinds == {
        "image": ((3, 24, 32), torch.uint8),
        "rooms": ((24, 32), torch.uint8),
        "pets": ((24, 32), torch.uint8),
        "marked": ((1, 24, 32), torch.uint8),
        "slope": ((3, 24, 32), torch.float32),
        "far": ((1, 24, 32), torch.float32),
        "heat": ((1, 24, 32), torch.float32),
    }
    for name, sample in samples.items():
        missing = {task for task, value in sample.items() if value is None}
        assert missing == {*(["heat"] if int(name) % 3 == 0 else []), *(["pets"] if int(name) % 2 else [])}


def test_the_labels_of_a_sample_agree_with_each_other(folder: Path) -> None:
    reader = Folder(data_config(folder), "train")
    sample = {name: value for name, value in reader.sample(reader.ids.index("0008"), TASKS).items()}
    rooms = sample["rooms"]
    assert rooms is not None and rooms.unique().tolist() == [0, 1, 2]
    assert torch.equal(sample["pets"], (rooms == 2).byte())
    assert torch.equal(sample["marked"][0], (rooms == 1).byte())
    assert torch.equal(sample["far"][0], torch.where(rooms == 0, 255.0, rooms.float()))
    assert torch.equal(sample["heat"][0], rooms.float() - 1)


def test_a_reader_gives_the_images_files_as_they_lie(folder: Path) -> None:
    reader = Folder(data_config(folder), "val")
    assert isinstance(reader, FileReader)
    assert reader.image_bytes(0) == (folder / "images" / f"{reader.id(0)}.jpg").read_bytes()


def test_shares_are_drawn_by_the_seed_and_leave_nothing_out(folder: Path) -> None:
    first = splits(folder)
    assert {split: len(ids) for split, ids in first.items()} == {"train": 8, "val": 2, "test": 2}
    assert sorted(name for ids in first.values() for name in ids) == [f"{i:04d}" for i in range(12)]
    assert splits(folder) == first
    assert splits(folder, seed=1) != first


def test_without_a_share_for_test_the_protocol_says_what_is_tested(make_folder: Make) -> None:
    root = make_folder(dataset=DATASET + "shares: {train: 0.75, val: 0.25, test: 0}\n")
    search, papers = splits(root), splits(root, protocol="papers")
    assert {split: len(ids) for split, ids in papers.items()} == {"train": 9, "val": 3, "test": 3}
    assert papers["val"] == papers["test"] == search["test"]
    assert sorted(search["train"] + search["val"]) == papers["train"]
    assert search["val"]


def test_lists_are_taken_as_they_stand_with_or_without_suffixes(make_folder: Make) -> None:
    root = make_folder()
    write_lists(root, train="0005\n0001.jpg\n\n", val="0002\n", test="0000\r\n0003\r\n")
    assert splits(root) == {"train": ["0005", "0001"], "val": ["0002"], "test": ["0000", "0003"]}


@pytest.mark.parametrize(
    ("lists", "fault"),
    [
        ({"train": "0001\n0010\n0012\n", "val": "0002\n"}, r"train\.txt:3: no image is called '0012' \(did you mean"),
        ({"train": "0001\n", "val": "0002\n0001\n"}, r"val\.txt:2: '0001' is in train\.txt:1 too"),
        ({"train": "0001\n0001\n", "val": "0002\n"}, r"train\.txt:2: '0001' is on line 1 already"),
        ({"train": "0001\n"}, r"val\.txt: cannot be read as a list"),
        ({"train": "\n", "val": "0002\n"}, r"train\.txt: no images"),
    ],
)
def test_a_list_that_does_not_fit_is_told_with_its_line(make_folder: Make, lists: dict[str, str], fault: str) -> None:
    root = make_folder()
    write_lists(root, **lists)
    with pytest.raises(DataError, match=fault):
        splits(root)


def test_lists_and_shares_exclude_each_other(make_folder: Make) -> None:
    root = make_folder(dataset=DATASET + "shares: {train: 0.5, val: 0.25, test: 0.25}\n")
    write_lists(root, train="0001\n", val="0002\n")
    with pytest.raises(ConfigError, match=r"dataset\.yaml:13:1: shares: must not be given where there is .*splits"):
        splits(root)


def test_images_in_folders_below_are_matched_by_their_paths(make_folder: Make) -> None:
    root = make_folder(images=8)
    for kind in ("images", "rooms"):
        (root / kind / "kitchen").mkdir()
    Image.new("RGB", (4, 4)).save(root / "images" / "kitchen" / "0000.PNG")
    Image.fromarray(np.full((4, 4), 7, np.uint8)).save(root / "rooms" / "kitchen" / "0000.png")
    write_lists(root, train="kitchen/0000.PNG\n0001\n", val="0002\n", test="0003\n")
    reader = Folder(data_config(root, tasks=("rooms",)), "train")
    label = reader.sample(0, ("image", "rooms"))["rooms"]
    assert (reader.id(0), label is not None and label.unique().tolist()) == ("kitchen/0000", [1])


def test_what_is_missing_or_double_is_named(make_folder: Make) -> None:
    root = make_folder()
    shutil.copy(root / "images" / "0000.jpg", root / "images" / "0000.jpeg")
    with pytest.raises(DataError, match=r"0000\.jpg: has the same name as 0000\.jpeg"):
        splits(root)
    (root / "images" / "0000.jpeg").unlink()
    for path in (root / "rooms").iterdir():
        path.rename(path.with_stem(f"{path.stem}_label"))
    with pytest.raises(DataError, match=r"rooms: rooms: no file has .* \(first label '0000_label', first image '0000'"):
        splits(root)
    shutil.rmtree(root / "images")
    (root / "images").mkdir()
    with pytest.raises(DataError, match="images: no images"):
        splits(root)


def test_a_label_of_another_size_is_named_with_its_image(make_folder: Make) -> None:
    root = make_folder()
    Image.fromarray(np.zeros((32, 24), np.uint8)).save(root / "rooms" / "0008.png")
    reader = Folder(data_config(root), "train")
    with pytest.raises(DataError, match=r"rooms/0008\.png: rooms: must be 24x32 .*0008\.jpg, got 32x24"):
        reader.sample(reader.ids.index("0008"), ("image", "rooms"))


def test_a_task_that_the_file_does_not_have_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.tasks: .*dataset\.yaml has rooms, .*, got semseg"):
        Folder(data_config(folder, tasks=("semseg",)), "train")


def test_too_few_images_for_a_share_are_refused(make_folder: Make) -> None:
    with pytest.raises(DataError, match=r"shares: leaves no image for val, of 2"):
        splits(make_folder(images=2))


def test_loader_processes_read_the_same(folder: Path) -> None:
    batches = [
        next(
            iter(
                load_dataset(data_config(folder, loader_workers=workers), "train").batches(
                    batch_size=4, seed=0, epoch=0, train=True
                )
            )
        )
        for workers in (0, 1)
    ]
    for name in ("image", *TASKS):
        assert torch.equal(batches[0][name].nan_to_num(-9), batches[1][name].nan_to_num(-9))
