"""The campaign's bookkeeping, without a search."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from faar_ray.bench.faults.campaign import TARGETS, FaultResult, draws, rows, table_of
from faar_ray.bench.faults.watch import MOMENTS, Trigger, Watch, draw_trigger


def test_a_campaign_kills_every_target_at_every_moment_equally_often() -> None:
    drawn = Counter((target, moment) for _, target, moment in draws(32, 0, 1))
    assert drawn == {(target, moment): 2 for target in TARGETS[1] for moment in MOMENTS}


def test_a_seed_gives_the_same_campaign_again() -> None:
    once, again = ([(target, moment) for _, target, moment in draws(9, 7, 2)] for _ in range(2))
    assert once == again
    assert once != [(target, moment) for _, target, moment in draws(9, 8, 2)]


def test_a_trigger_after_a_shrink_is_of_a_trial_and_epoch_that_shrank_and_never_its_last() -> None:
    shrinks = {"t000-s0": [1, 3], "lora": []}
    for seed in range(10):
        trigger = draw_trigger(random.Random(seed), "after a shrink", shrinks, 1.0, 4)
        assert (trigger.trial, trigger.epoch) == ("t000-s0", 1)


def test_the_moment_of_writing_a_checkpoint_is_seen_by_its_temporary_file(tmp_path: Path) -> None:
    trigger = Trigger("while writing a checkpoint", "t", 2, 0.0)
    folder = tmp_path / "trials" / "t" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / ".epoch_0001.pt.77.tmp").touch()
    assert not trigger.wait(tmp_path, lambda: True, 0.02)
    (folder / ".epoch_0002.pt.77.tmp").touch()
    assert trigger.wait(tmp_path, lambda: True, 5)


def test_a_checkpoint_that_is_written_again_is_seen_again(tmp_path: Path) -> None:
    path = tmp_path / "trials" / "t" / "checkpoints" / "epoch_0000.pt"
    path.parent.mkdir(parents=True)
    watch = Watch(tmp_path)
    for text in ("a", "b"):
        scratch = path.with_name("x")
        scratch.write_text(text)
        before = len(watch.written)
        scratch.replace(path)
        while len(watch.written) == before:
            pass
    watch.close()
    assert [(note.trial, note.epoch) for note in watch.written] == [("t", 0), ("t", 0)]


def test_a_kill_passes_only_if_nothing_was_lost() -> None:
    good = FaultResult("driver", "any", hit=True, recovered=True, equal=True, retrained=1)
    assert good.passed(exactly=True)
    for flaw in ({"hit": False}, {"recovered": False}, {"retrained": 2}, {"leaked": ["process x"]}):
        assert not FaultResult(**{**good.__dict__, **flaw}).passed(exactly=False)
    other_bits = FaultResult(**{**good.__dict__, "equal": False})
    assert other_bits.passed(exactly=False) and not other_bits.passed(exactly=True)


def test_the_table_has_a_row_for_each_target_and_moment() -> None:
    kills = [FaultResult("driver", "any", hit=True, back_s=s) for s in (1.0, 3.0)] + [
        FaultResult("node", "any", leaked=["x"])
    ]
    result = rows(kills)
    assert [(row["target"], row["kills"], row["median_s"], row["worst_s"]) for row in result] == [
        ("driver", 2, 2.0, 3.0),
        ("node", 0, None, None),
    ]
    assert table_of({"seed": 0, "workers": 1, "seconds": 5, "rows": result}).row_count == 2
