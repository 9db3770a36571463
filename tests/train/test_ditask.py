"""A trial of DiTASK: it learns, and a resumed one is bit for bit what an undisturbed one is."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.models.trials import run


def test_flows_learn_and_resume_bit_for_bit_without_their_decompositions_in_the_checkpoint(tmp_path: Path) -> None:
    keys = {
        "method": "ditask_release",
        "ranks.kind": "fixed",
        "data.image_size": 32,
        "data.tasks": ["semseg", "depth"],
        "data.train_images": 16,
        "optim.epochs": 2,
        "optim.accumulate": 1,
    }
    whole = run(tmp_path / "whole", keys)
    assert whole[-1].metrics["train/loss"] < whole[0].metrics["train/loss"]
    assert whole[-1].ranks == ()
    assert not [name for name in whole[-1].metrics if name.startswith("rank/")]

    run(tmp_path / "cut", keys, epochs=1)
    torch.rand(5)
    assert run(tmp_path / "cut", keys) == whole
    files = [next((tmp_path / side).rglob("epoch_0001.pt")) for side in ("whole", "cut")]
    ours, theirs = (torch.load(file, weights_only=True)["model"] for file in files)
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    assert ours.keys() == theirs.keys()
    assert all(value.shape[0] == 1 for name, value in theirs.items() if "adapter" in name)
