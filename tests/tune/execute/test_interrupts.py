"""A Ctrl-C that nobody hears is not lost."""

from __future__ import annotations

import os
import signal
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faar_ray.tune.execute import interrupts
from faar_ray.tune.execute.ray_tune_adapters import StateCallback


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_was_swallowed_is_raised_at_the_next_turn(number: signal.Signals, tmp_path: Path) -> None:
    class Deaf:
        pass

    def hit(_: Any) -> None:
        os.kill(os.getpid(), number)
        for _ in range(10):  # the signal arrives in here, where Python prints an exception and forgets it
            pass

    interrupts.listen()
    turn: Any = StateCallback(None, tmp_path)
    turn.on_step_begin(0, [])
    deaf = Deaf()
    watch = weakref.ref(deaf, hit)
    del deaf
    assert watch() is None
    with pytest.raises(KeyboardInterrupt):
        turn.on_step_begin(1, [])
    interrupts.listen()
    turn.on_step_begin(2, [])


def test_one_that_is_heard_is_raised_at_once() -> None:
    interrupts.listen()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass
