"""Photographs through the loader: order, sizes, partly labelled samples, labels at their own size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from faar_ray.config.data_section import AugmentConfig, DataConfig
from faar_ray.data import SplitData, load_dataset

from .conftest import CHANNELS


@pytest.fixture
def papers(packed: DataConfig) -> DataConfig:
    return packed.model_copy(update={"protocol": "papers", "loader_workers": 0, "image_size": (32, 48)})


def batches(data: SplitData, **changes: object) -> list[dict[str, Tensor]]:
    settings = {"batch_size": 4, "seed": 1, "epoch": 0, "train": False, **changes}
    return list(data.batches(**settings))


def test_every_image_has_the_size_of_the_config(papers: DataConfig) -> None:
    for train in (True, False):
        for batch in batches(load_dataset(papers, "val"), train=train):
            assert {tuple(values.shape[-2:]) for values in batch.values()} == {(32, 48)}


def test_training_sees_every_image_once_in_an_order_of_its_epoch(papers: DataConfig) -> None:
    data = load_dataset(papers.model_copy(update={"augment": AugmentConfig(flip=False)}), "val")
    plain = torch.stack([data[index]["image"] for index in range(len(data))])

    def order(epoch: int) -> list[int]:
        images = torch.cat([batch["image"] for batch in batches(data, train=True, epoch=epoch)])
        return [int((image == plain).flatten(1).all(1).nonzero()) for image in images]

    assert sorted(order(0)) == list(range(9))
    assert order(0) == order(0) != order(1)


def test_workers_share_the_batches_of_one_and_an_empty_part_is_left_out(papers: DataConfig) -> None:
    alone = batches(load_dataset(papers, "val"))
    shares = [batches(load_dataset(papers, "val"), worker=worker, workers=2) for worker in range(2)]
    assert [len(batch["image"]) for batch in alone] == [4, 4, 1]
    assert [[len(batch["image"]) for batch in share] for share in shares] == [[2, 2, 1], [2, 2]]
    assert torch.equal(alone[0]["image"][1::2], shares[1][0]["image"])


def test_labels_of_their_own_size_are_padded_and_their_sizes_told(papers: DataConfig) -> None:
    first, *_ = batches(load_dataset(papers, "val"), original=True)
    assert first["image"].shape == (4, 3, 32, 48)
    assert first["label_size"].tolist() == [[26, 22], [20, 30], [26, 22], [20, 30]]
    assert {tuple(first[name].shape[-2:]) for name in CHANNELS} == {(26, 30)}
    assert (first["semseg"][0, :, 22:] == 255).all() and (first["semseg"][1, 20:] == 255).all()
    sample = load_dataset(papers, "val").samples.read(1)  # type: ignore[attr-defined]
    assert torch.equal(first["semseg"][1, :20, :30], sample["semseg"].long())


def test_the_loader_leaves_the_global_generator_alone(papers: DataConfig) -> None:
    state = torch.get_rng_state()
    batches(load_dataset(papers, "val"), train=True)
    assert torch.equal(state, torch.get_rng_state())
