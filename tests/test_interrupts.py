"""A Ctrl-C that nobody hears is not lost."""

from __future__ import annotations

import os
import pty
import shlex
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faar_ray import interrupts
from faar_ray.storage.interruption import clear_note, described, read_note, write_note
from faar_ray.tune.execute.ray_tune_adapters import StateCallback
from tests.commands import environment


@pytest.fixture(autouse=True)
def _as_in_a_terminal() -> Iterator[None]:
    """Signals as a terminal's commands have them: what runs the tests in the background may ignore some."""
    usual = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
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


SEARCH = """
import sys, time
from pathlib import Path
from faar_ray.command_line import run_command, run_process
from faar_ray.interrupts import hangups_held_back

def work():
    with hangups_held_back():  # as Ray's processes are started
        child = __import__("subprocess").Popen(["sleep", "60"])
    try:
        Path("started").write_text(str(child.pid))
        time.sleep(60)
    finally:
        time.sleep(0.3)  # closes its runs, while the shell sends the second signal
        Path("closed").write_text(str(child.poll()))
        child.kill()

run_process(lambda: run_command(work, "resume it"))
"""


def started(folder: Path, *before: str, **options: Any) -> subprocess.Popen[bytes]:
    """A process that waits to be interrupted, the leader of its session."""
    command = [*before, sys.executable, "-c", SEARCH]
    options |= {"cwd": folder, "env": environment(), "start_new_session": True}
    process: subprocess.Popen[bytes] = subprocess.Popen(command, **options)
    deadline = time.monotonic() + 60
    while not (folder / "started").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    return process


def test_a_closed_terminal_ends_a_command_as_sigterm_does_and_what_it_started_outlives_the_signal(
    tmp_path: Path,
) -> None:
    """The shell and the system each send SIGHUP to the whole group, and no write reaches the terminal any more."""
    master, slave = pty.openpty()
    process = started(tmp_path, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    os.close(master)
    os.killpg(process.pid, signal.SIGHUP)
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGHUP)
    assert process.wait(60) == 130
    assert (tmp_path / "closed").read_text() == "None"


def test_nohup_keeps_a_command_alive(tmp_path: Path) -> None:
    process = started(tmp_path, "nohup", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    os.killpg(process.pid, signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    process.terminate()
    assert b"continue with:\n  resume it" in process.communicate(timeout=60)[1]
    assert process.returncode == 130


def test_the_note_says_how_to_go_on_from_where_and_what_ended_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "it's here").mkdir()
    monkeypatch.chdir(tmp_path / "it's here")
    interrupts.listen()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGHUP)
    note = write_note(tmp_path, described(KeyboardInterrupt()), "python -m x --resume")
    assert note is not None
    first, _, command = read_note(tmp_path).partition("\ncontinue with:\n  ")
    assert first.endswith(": interrupted by SIGHUP")
    assert command == f"cd {shlex.quote(str(Path.cwd()))} && python -m x --resume"
    clear_note(tmp_path)
    assert read_note(tmp_path) == ""
    (tmp_path / "file").write_text("")
    assert write_note(tmp_path / "file", "a full disk", "python") is None
