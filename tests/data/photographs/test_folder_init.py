"""`data init` writes a dataset.yaml that can be trained on, from what lies in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faar_ray.data.__main__ import main
from faar_ray.data.photographs.dataset_yaml import describe, read_dataset_file
from faar_ray.data.photographs.folder import Folder
from faar_ray.data.photographs.guesses import Guess, guess
from faar_ray.errors import DataError

from .conftest import data_config

Make = Callable[..., Path]


def guessed(folder: Path, *arrays: object, suffix: str = ".png") -> Guess:
    """What files with these arrays are taken for."""
    folder.mkdir(parents=True)
    paths = [folder / f"{number}{suffix}" for number in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        if suffix == ".npy":
            np.save(path, np.asarray(array))
        else:
            (array if isinstance(array, Image.Image) else Image.fromarray(np.asarray(array, np.uint8))).save(path)
    return guess(folder.name, paths)


@pytest.fixture
def unknown(make_folder: Make) -> Path:
    """A folder without its dataset.yaml."""
    root = make_folder()
    (root / "dataset.yaml").unlink()
    return root


def test_the_file_says_what_was_found_and_every_sample_can_be_read(
    unknown: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(unknown)]) == 0
    out = capsys.readouterr().out
    assert "12 images" in out and f"python -m faar_ray.data check folder --root {unknown}" in out

    tasks = describe(str(unknown))
    types = {name: task.type for name, task in tasks.items()}
    assert types == {
        "rooms": "segmentation",
        "pets": "binary",
        "marked": "binary",
        "slope": "normals",
        "far": "segmentation",  # three values, and a name that says nothing
        "heat": "regression",
    }
    assert (tasks["rooms"].values, tasks["rooms"].classes) == ((0, 7, 300), ("class_0", "class_1", "class_2"))
    assert tasks["marked"].values == (0, 255)
    assert read_dataset_file(str(unknown)).tasks["pets"].folder == "Pets"
    for split in ("train", "val", "test"):
        reader = Folder(data_config(unknown), split)
        for index in range(len(reader)):
            reader.sample(index, ("image", *tasks))


def test_comments_tell_what_was_guessed_and_what_a_person_should_check(unknown: Path) -> None:
    main(["init", str(unknown)])
    text = (unknown / "dataset.yaml").read_text()
    assert "    type: normals  # guessed\n" in text
    assert "    # check: names of the classes\n" in text
    assert "shares: {train: 0.7, val: 0.15, test: 0.15}" in text


def test_a_file_that_is_there_is_never_overwritten(unknown: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (unknown / "dataset.yaml").write_text("mine\n")
    assert main(["init", str(unknown)]) == 2
    assert "exists, and is never overwritten" in capsys.readouterr().err
    assert (unknown / "dataset.yaml").read_text() == "mine\n"


def test_shares_are_left_out_where_there_are_lists(unknown: Path) -> None:
    (unknown / "splits").mkdir()
    for split, names in {"train": "0000\n0001\n", "val": "0002\n"}.items():
        (unknown / "splits" / f"{split}.txt").write_text(names)
    assert main(["init", str(unknown)]) == 0
    assert read_dataset_file(str(unknown)).shares is None


def test_folders_that_are_no_tasks_are_named_with_the_reason(unknown: Path) -> None:
    (unknown / "notes").mkdir()
    (unknown / "Shared").mkdir()
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(unknown / "Shared" / "0000.png")
    (unknown / "far" / "0000.png").write_bytes(b"cut")
    assert main(["init", str(unknown)]) == 0
    text = (unknown / "dataset.yaml").read_text()
    assert "#   notes: no label files" in text
    assert "#   far: " in text and "cannot be read as a label" in text
    assert "shared_labels" in describe(str(unknown)), "`shared` is no name for a task"


def test_a_folder_without_images_or_labels_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path / "nowhere")]) == 2
    assert main(["init", str(tmp_path)]) == 2
    (tmp_path / "images").mkdir()
    assert main(["init", str(tmp_path)]) == 2
    Image.new("RGB", (4, 4)).save(tmp_path / "images" / "a.png")
    (tmp_path / "masks").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "masks" / "b.png")
    assert main(["init", str(tmp_path)]) == 2
    words = capsys.readouterr().err
    for reason in ("no such folder", "no folder of images", "no images", "masks: no file has the name of an image"):
        assert reason in words
    assert not (tmp_path / "dataset.yaml").exists()


def test_types_are_guessed_by_what_the_files_hold(tmp_path: Path) -> None:
    few = [[0, 3], [1, 255]]
    classes = guessed(tmp_path / "masks", few)
    assert classes.type == "segmentation"
    assert classes.keys == {"classes": [f"class_{i}" for i in range(4)], "ignore": 255}
    assert guessed(tmp_path / "edges", [[0, 255]]).type == "edge"
    assert guessed(tmp_path / "mask", [[0, 1], [255, 0]]).keys == {"values": [0, 1], "ignore": 255}

    metres = guessed(tmp_path / "depth", np.array([[0.5, 3.25]]), suffix=".npy")
    assert (metres.type, metres.keys) == ("depth", {"unit": "m"})
    millimetres = guessed(tmp_path / "Depth16", np.array([[0, 1200]], np.uint16), suffix=".npy")
    assert (millimetres.type, millimetres.keys) == ("depth", {"unit": "m", "scale": 0.001, "ignore": 0})
    assert guessed(tmp_path / "depth8", np.arange(200)[None]).check[0].endswith("is one step in metres, 0 as no label")
    assert guessed(tmp_path / "ndvi", np.array([[0.5, -0.25]]), suffix=".npy").type == "regression"
    assert guessed(tmp_path / "signed", np.array([[-3, 2]]), suffix=".npy").type == "regression"


def test_three_channels_are_normals_or_colours_of_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(20, 20, 3))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    assert guessed(tmp_path / "a", vectors, suffix=".npy").type == "normals"
    assert guessed(tmp_path / "b", (vectors + 1) / 2 * 255).type == "normals"

    colours = guessed(tmp_path / "c", np.array([[[255, 0, 0], [0, 0, 128]], [[255, 0, 0], [255, 0, 0]]]))
    assert colours.keys == {"classes": ["class_0", "class_1"], "colours": ["#000080", "#ff0000"]}
    with pytest.raises(DataError, match="neither unit vectors nor at most 255 colours"):
        guessed(tmp_path / "d", rng.integers(0, 256, (40, 40, 3)))


def test_colours_of_a_palette_are_taken(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[2, 0], [1, 2]], np.uint8), "P")
    picture.putpalette([200, 100, 0, 5, 5, 5, 9, 9, 9])
    assert guessed(tmp_path / "a", picture).keys["colours"] == ["#c86400", "#050505", "#090909"]
