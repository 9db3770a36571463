"""Splits of data sets with a published train and val, and with a test split of their own."""

from __future__ import annotations

import pytest

from faar_ray.config.trial import DataConfig
from faar_ray.data.photographs.splits import split_rows
from faar_ray.errors import ConfigError

PUBLISHED = {"train": 100, "val": 30}


def rows(split: str, **keys: object) -> tuple[str, list[int]]:
    return split_rows(DataConfig.model_validate({"tasks": ("semseg",), **keys}), split, PUBLISHED)


def test_a_search_holds_out_a_part_of_train_and_tests_on_the_published_val() -> None:
    (train_from, train), (val_from, val) = rows("train"), rows("val")
    assert (train_from, val_from) == ("train", "train")
    assert (len(train), len(val)) == (85, 15)
    assert sorted(train + val) == list(range(100))
    assert train == sorted(train) and val == sorted(val)
    assert rows("test") == ("val", list(range(30)))


def test_the_held_out_part_depends_on_the_data_s_seed_alone() -> None:
    assert rows("val") == rows("val")
    assert rows("val") != rows("val", seed=1)
    assert len(rows("val", val_share=0.3)[1]) == 30


def test_the_papers_protocol_uses_the_published_val_for_both() -> None:
    assert rows("train", protocol="papers") == ("train", list(range(100)))
    assert rows("val", protocol="papers") == rows("test", protocol="papers") == ("val", list(range(30)))


def test_a_published_test_split_is_taken_as_it_is() -> None:
    config = DataConfig(tasks=("semseg",))
    published = {"train": 5, "val": 2, "test": 3}
    assert [split_rows(config, split, published) for split in published] == [
        ("train", [0, 1, 2, 3, 4]),
        ("val", [0, 1]),
        ("test", [0, 1, 2]),
    ]


def test_a_share_that_leaves_nothing_is_refused() -> None:
    config = DataConfig(tasks=("semseg",), val_share=0.05)
    with pytest.raises(ConfigError, match=r"data\.val_share: 0\.05 of 5 training images leaves 5 to train on and 0"):
        split_rows(config, "val", {"train": 5, "val": 2})
