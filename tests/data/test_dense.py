"""Samples and batches: what they hold, and what order and flips depend on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from faar_ray.data import DenseDataset, load_dataset, unnormalise
from faar_ray.data.dense import decode, flip
from faar_ray.data.scenes.object_table import PERSON

from .conftest import ALL_TASKS, MakeConfig

Batches = list[dict[str, torch.Tensor]]


def all_batches(dataset: DenseDataset, *, seed: int = 0, epoch: int = 0, train: bool = True) -> Batches:
    return list(dataset.batches(batch_size=16, seed=seed, epoch=epoch, train=train))


def same(one: Batches, other: Batches) -> bool:
    return all(torch.equal(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a)


def test_a_sample_has_the_shapes_and_values_that_are_promised(dataset: DenseDataset) -> None:
    size = (64, 64)
    for sample in (dataset[index] for index in range(20)):
        assert set(sample) == {"image", *ALL_TASKS}
        assert sample["image"].shape == sample["normals"].shape == (3, *size)
        assert sample["semseg"].shape == sample["human_parts"].shape == size
        assert sample["saliency"].shape == sample["depth"].shape == sample["edge"].shape == (1, *size)
        assert sample["semseg"].dtype == sample["human_parts"].dtype == torch.int64
        assert all(sample[name].dtype == torch.float32 for name in ("image", "saliency", "normals", "depth", "edge"))
        assert {*sample["saliency"].flatten().tolist(), *sample["edge"].flatten().tolist()} <= {0.0, 1.0}
        assert torch.allclose(sample["normals"].norm(dim=0), torch.ones(size), atol=1e-5)


def test_human_parts_of_an_image_without_a_person_are_ignored(dataset: DenseDataset) -> None:
    samples = [dataset[index] for index in range(len(dataset))]
    without = [sample for sample in samples if not (sample["semseg"] == PERSON).any()]
    assert 0 < len(without) < len(samples)
    assert all((sample["human_parts"] == 255).all() for sample in without)
    assert not any((sample["human_parts"] == 255).any() for sample in samples if (sample["semseg"] == PERSON).any())


def test_only_the_tasks_asked_for_are_stored(make_config: MakeConfig, cache: Path) -> None:
    stored = load_dataset(make_config(tasks=("depth",), image_size=64, root=str(cache)), "train")
    assert set(stored[0]) == {"image", "depth"} and list(stored.tasks) == ["depth"]


def test_indices_are_those_of_a_sequence(dataset: DenseDataset) -> None:
    assert torch.equal(dataset[-1]["image"], dataset[len(dataset) - 1]["image"])
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_unnormalise_gives_the_stored_levels_back(dataset: DenseDataset) -> None:
    levels = (unnormalise(dataset[3]["image"]) * 255).round().to(torch.uint8)
    assert torch.equal(levels, dataset.stored["image"][3])


def test_evaluation_is_in_order_without_flips_and_keeps_the_last_batch(dataset: DenseDataset) -> None:
    read = all_batches(dataset, seed=5, train=False)
    assert [len(batch["image"]) for batch in read] == [16, 16, 16, 12]
    assert torch.equal(torch.cat([batch["image"] for batch in read]), decode(dataset.stored, dataset.tasks)["image"])


def test_training_sees_every_image_once_and_flips_about_half(dataset: DenseDataset) -> None:
    seen = torch.cat([batch["depth"] for batch in all_batches(dataset)])
    plain = decode(dataset.stored, dataset.tasks)["depth"]
    as_is = (seen[:, None] == plain[None]).flatten(2).all(2)
    mirrored = (seen[:, None] == plain.flip(-1)[None]).flatten(2).all(2)
    assert ((as_is | mirrored).sum(0) == 1).all()
    assert 0.25 < mirrored.any(1).float().mean() < 0.75
    assert not torch.equal(as_is | mirrored, torch.eye(len(seen), dtype=torch.bool))


def test_order_and_flips_depend_on_seed_and_epoch_only(dataset: DenseDataset) -> None:
    first = all_batches(dataset, seed=1, epoch=2)
    torch.manual_seed(99)
    assert same(first, all_batches(dataset, seed=1, epoch=2))
    assert not same(first, all_batches(dataset, seed=1, epoch=3))
    assert not same(first, all_batches(dataset, seed=2, epoch=2))


def test_batches_leave_the_global_generator_and_the_stored_data_alone(dataset: DenseDataset) -> None:
    state, stored = torch.get_rng_state(), {name: values.clone() for name, values in dataset.stored.items()}
    all_batches(dataset)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(stored[name], dataset.stored[name]) for name in stored)


def test_the_same_images_are_drawn_whatever_the_tasks(dataset: DenseDataset) -> None:
    fewer = DenseDataset({"image": dataset.stored["image"]}, {})
    assert all(
        torch.equal(a["image"], b["image"]) for a, b in zip(all_batches(fewer), all_batches(dataset), strict=True)
    )


def test_a_flip_moves_pixels_and_turns_normals(dataset: DenseDataset) -> None:
    which = torch.tensor([True, False])
    plain = decode({name: values[:2] for name, values in dataset.stored.items()}, dataset.tasks)
    copies = {name: values[:2].clone() for name, values in dataset.stored.items()}
    flipped = decode(flip(copies, which, dataset.tasks), dataset.tasks)
    turn = torch.tensor([-1.0, 1.0, 1.0])[:, None, None]
    for name in plain:
        expected = plain[name][0].flip(-1) * (turn if name == "normals" else 1)
        assert torch.equal(flipped[name][0], expected), name
        assert torch.equal(flipped[name][1], plain[name][1]), name
