"""A reader that goes away ends nothing: output is dropped, and the exit code is the command's own."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import faar_ray
from tests.commands import environment, start_command

PACKAGE = Path(faar_ray.__file__).parent
WORK = """
import functools, logging, sys
from rich.console import Console
from rich.live import Live
from faar_ray.command_line import run_command, run_process

def work(path):
    logging.warning("log")
    for console in (Console(), Console(stderr=True), Console(force_terminal=True)):
        for line in range(90):
            console.print("rich " + 1000 * "x", soft_wrap=True)
    with Live("live", console=Console(force_terminal=True)) as live:
        live.update("again")
    for stream in (sys.stdout, sys.stderr):
        for line in range(90):
            print(1000 * "x", file=stream)
    sys.stdout.buffer.write(b"x" * 100_000)
    open(path, "w").write("done")
    return 4

run_process(lambda: run_command(functools.partial(work, sys.argv[1])))
"""


def python(*arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
    process: subprocess.Popen[bytes] = subprocess.Popen(
        [sys.executable, *map(str, arguments)], env=environment(), **options
    )
    return process


@pytest.mark.parametrize("flags", [[], ["-u"]], ids=["buffered", "unbuffered"])
def test_a_pipe_that_nobody_reads_drops_output_and_the_work_goes_on(tmp_path: Path, flags: list[str]) -> None:
    process = python(*flags, "-c", WORK, tmp_path / "end", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    assert process.wait(60) == 4
    assert (tmp_path / "end").read_text() == "done"


def test_a_reader_that_leaves_in_the_middle_has_what_it_read(tmp_path: Path) -> None:
    process = python("-c", WORK, tmp_path / "end", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"rich xxx")
    process.stdout.close()
    assert process.wait(60) == 4


def test_a_terminal_that_is_gone_drops_output(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    process = python("-c", WORK, tmp_path / "end", stdout=slave, stderr=slave)
    os.close(slave)
    os.read(master, 100)
    os.close(master)
    assert process.wait(60) == 4


def test_streams_that_are_closed_from_the_start_lead_nowhere(tmp_path: Path) -> None:
    command = f'exec "{sys.executable}" -c "$0" "$1" >&- 2>&-'
    process = subprocess.Popen(["sh", "-c", command, WORK, str(tmp_path / "end")], env=environment())
    assert process.wait(60) == 4


def test_a_full_disk_is_still_an_error() -> None:
    script = "from faar_ray.command_line import run_process\nrun_process(lambda: print('x', flush=True) or 0)"
    with open("/dev/full", "w") as full:
        process = python("-c", script, stdout=full.fileno(), stderr=subprocess.PIPE)
    assert b"No space left on device" in process.communicate(timeout=60)[1]
    assert process.returncode != 0


def test_help_that_nobody_reads_is_no_error(tmp_path: Path) -> None:
    process = start_command("tune", tmp_path, "--help")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    assert (process.wait(60), errors) == (0, "")


@pytest.mark.parametrize("command", ["tune", "train", "report", "data", "bench", "export", "predict"])
def test_every_command_runs_by_the_one_that_drops_unread_output_and_hears_signals(command: str) -> None:
    path = PACKAGE / command / "__main__.py" if (PACKAGE / command).is_dir() else PACKAGE / f"{command}.py"
    assert path.read_text().endswith('if __name__ == "__main__":\n    run_process(main)\n')
