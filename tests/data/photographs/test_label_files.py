"""What label files hold, and what it means."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from faar_ray.config.task_definitions import TaskDefinition
from faar_ray.data.photographs.label_files import read_array, read_label
from faar_ray.errors import DataError

CLASSES = {"type": "segmentation", "classes": ("a", "b", "c")}
COLOURS = ("#ff0000", "#00ff00", "#0000ff")


def label(path: Path, array: Any, **definition: Any) -> torch.Tensor:
    """The label that a file with this array is."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, array)
    else:
        (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(path)
    return read_label(path, "rooms", TaskDefinition.model_validate({**CLASSES, **definition}))


def grey_png(path: Path, rows: list[list[int]], bits: int) -> Path:
    """A grey PNG of few bits, which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lines = b""
    for row in rows:
        digits = "".join(f"{value:0{bits}b}" for value in row)
        digits = digits.ljust(-(-len(digits) // 8) * 8, "0")
        lines += b"\0" + int(digits, 2).to_bytes(len(digits) // 8, "big")
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), bits, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy", "a.npz", "a.bmp"])
def test_classes_are_read_from_every_kind_of_file(tmp_path: Path, name: str) -> None:
    values = np.array([[0, 1], [2, 255]], np.uint8)
    read = label(tmp_path / name, values)
    assert (read.tolist(), read.dtype) == ([[0, 1], [2, 255]], torch.uint8)


def test_of_a_palette_the_indices_count(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[2, 0], [1, 255]], np.uint8), "P")
    picture.putpalette([*range(256)] * 3)
    assert label(tmp_path / "a.png", picture).tolist() == [[2, 0], [1, 255]]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_values_of_a_grey_png_of_few_bits_are_not_spread(tmp_path: Path, bits: int) -> None:
    rows = [[0, 1, 1, 0], [1, 0, 1, 2**bits - 1]]
    assert read_array(grey_png(tmp_path / "a.png", rows, bits)).astype(int).tolist() == rows


def test_values_that_are_not_contiguous_map_to_the_classes_in_their_order(tmp_path: Path) -> None:
    values = np.array([[11, 400], [7, 11]], np.uint16)
    read = label(tmp_path / "a.png", values, values=(7, 11, 400))
    assert read.tolist() == [[1, 2], [0, 1]]


def test_values_that_are_ignored_are_255_and_255_can_be_a_class(tmp_path: Path) -> None:
    values = np.array([[0, 1, 2], [3, 4, 255]], np.uint8)
    assert label(tmp_path / "a.png", values, values=(1, 2, 255), ignore=(0.0, 3.0, 4.0)).tolist() == [
        [255, 0, 1],
        [255, 255, 2],
    ]


def test_masks_in_colours_are_matched_by_the_classes_colours(tmp_path: Path) -> None:
    colours = np.array([[[255, 0, 0], [0, 0, 255]], [[0, 255, 0], [0, 0, 0]]], np.uint8)
    expected = [[0, 2], [1, 255]]
    assert label(tmp_path / "a.png", colours, colours=COLOURS, ignore=0).tolist() == expected
    values = (0xFF0000, 0x00FF00, 0x0000FF)
    assert label(tmp_path / "b.png", colours, values=values, ignore=0).tolist() == expected
    with pytest.raises(DataError, match=r"a\.png: rooms: value #000000 \(1 pixels\) of no class: .*#ff0000"):
        label(tmp_path / "a.png", colours, colours=COLOURS)
    with pytest.raises(DataError, match=r"a\.png: rooms: is a picture in colours: give the classes' `colours`"):
        label(tmp_path / "a.png", colours)


def test_grey_values_saved_in_three_channels_are_values(tmp_path: Path) -> None:
    grey = np.repeat(np.array([[0, 1], [2, 255]], np.uint8)[..., None], 3, axis=2)
    assert label(tmp_path / "a.png", grey).tolist() == [[0, 1], [2, 255]]


@pytest.mark.parametrize("ignore", [None, 255])
def test_a_value_that_is_no_class_is_told_with_file_and_task(tmp_path: Path, ignore: float | None) -> None:
    values = np.array([[0, 3], [9, 3]], np.uint8)
    with pytest.raises(DataError, match=r"a\.png: rooms: values 3, 9 \(3 pixels\) of no class: classes have 0, 1, 2"):
        label(tmp_path / "a.png", values, ignore=ignore)


def test_an_ignored_value_given_takes_the_place_of_255(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="value 255"):
        label(tmp_path / "a.png", np.array([[0, 255]], np.uint8), ignore=254)


@pytest.mark.parametrize("kind", ["binary", "edge"])
def test_two_valued_labels(tmp_path: Path, kind: str) -> None:
    two: dict[str, Any] = {"type": kind, "classes": ()}
    assert label(tmp_path / "a.png", np.array([[0, 255]], np.uint8), **two).tolist() == [[[0, 1]]]
    assert label(tmp_path / "a.npy", np.array([[False, True]]), **two).tolist() == [[[0, 1]]]
    three = np.array([[0, 1, 255]], np.uint8)
    assert label(tmp_path / "a.png", three, ignore=255, **two).tolist() == [[[0, 1, 255]]]
    assert label(tmp_path / "a.png", three, values=(1, 255), ignore=0, **two).tolist() == [[[255, 0, 1]]]
    with pytest.raises(DataError, match=r"a\.png: rooms: holds both 1 and 255: say in dataset\.yaml"):
        label(tmp_path / "a.png", three, **two)
    with pytest.raises(DataError, match=r"value 7 \(1 pixels\): must be 0, and 1 or 255"):
        label(tmp_path / "a.png", np.array([[0, 7]], np.uint8), **two)


def test_normals_of_bytes_and_of_numbers_agree_and_what_has_no_direction_is_zero(tmp_path: Path) -> None:
    normals: dict[str, Any] = {"type": "normals", "classes": ()}
    vectors = np.array([[[0, 0, -1], [0.6, 0, -0.8], [0, 0, 0], [np.nan, 0, 1]]], np.float32)
    read = label(tmp_path / "a.npy", vectors, **normals)
    assert read.shape == (3, 1, 4)
    assert torch.allclose(read[:, 0, 1], torch.tensor([0.6, 0, -0.8]))
    assert read[:, 0, 2:].abs().sum() == 0
    assert torch.equal(label(tmp_path / "b.npy", vectors.transpose(2, 0, 1), **normals), read)

    as_bytes = np.round((np.nan_to_num(vectors) + 1) / 2 * 255).astype(np.uint8)
    as_bytes[0, 3] = 0  # black
    of_bytes = label(tmp_path / "a.png", as_bytes, **normals)
    assert (of_bytes - read).abs().max() < 0.01
    assert of_bytes[:, 0, 2:].abs().sum() == 0
    with pytest.raises(DataError, match="must hold unit vectors, got one of length 3"):
        label(tmp_path / "a.npy", np.full((2, 2, 3), 3**0.5), **normals)


def test_depth_is_scaled_and_what_is_ignored_is_255(tmp_path: Path) -> None:
    raw = np.array([[0, 1500], [2000, 255]], np.uint16)
    depth = label(tmp_path / "a.png", raw, type="depth", classes=(), scale=0.001, ignore=0)
    assert torch.allclose(depth, torch.tensor([[[255, 1.5], [2.0, 0.255]]]))
    metres = label(tmp_path / "a.npy", np.array([[255.0, np.inf]]), type="depth", classes=())
    assert metres[0, 0, 0] != 255, "a depth of 255 m is no missing depth"
    assert metres[0, 0, 0] == pytest.approx(255)
    assert metres[0, 0, 1] == 255


def test_regression_keeps_255_and_what_is_ignored_is_nan(tmp_path: Path) -> None:
    values = np.array([[255, -1], [np.nan, 4]], np.float32)
    heat = label(tmp_path / "a.tif", values, type="regression", classes=(), scale=2.0, ignore=-1)
    assert heat.isnan().tolist() == [[[False, True], [True, False]]]
    assert heat[0, :, :].nan_to_num(0).tolist() == [[510, 0], [0, 8]]


def test_an_npz_of_several_arrays_is_read_by_the_tasks_name(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, rooms=np.array([[1]]), far=np.array([[2.0]]))
    assert read_label(path, "rooms", TaskDefinition.model_validate(CLASSES)).tolist() == [[1]]
    with pytest.raises(DataError, match=r"one called 'heat', got rooms, far"):
        read_array(path, "heat")


def test_files_that_are_no_labels_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 2, 5)))
    np.save(tmp_path / "b.npy", np.array([{"pickled": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "c.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    np.save(tmp_path / "d.npy", np.array([["text"]]))
    for name, reason in {
        "a.npy": r"must be of shape \(H, W\) or \(H, W, 3\), got \(2, 2, 5\)",
        "b.npy": "cannot be read as a label",
        "c.png": "cannot be read as a label",
        "d.npy": "must hold numbers",
        "e.png": "no such file",
    }.items():
        with pytest.raises(DataError, match=rf"{name}: {reason}"):
            read_array(tmp_path / name)
