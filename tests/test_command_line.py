"""Every command ends with its documented exit code and without a traceback."""

from __future__ import annotations

import argparse

import pytest

from faar_ray.command_line import refuse_repeats, run_command
from faar_ray.errors import ConfigError, StorageError, TooManyFailures

RESUME = "python -m faar_ray.tune rho.yaml --resume"
REPAIRED = "no trial failed because of this; once it is repaired, continue with"


def raising(error: BaseException) -> int:
    raise error


def test_a_command_gives_its_own_exit_code_and_0_by_default() -> None:
    assert run_command(lambda: None) == 0
    assert run_command(lambda: 4) == 4


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ConfigError(["a.yaml:1:1: x", "a.yaml:2:1: y"]), 2, "a.yaml:1:1: x\na.yaml:2:1: y\n"),
        (TooManyFailures("6 trials failed"), 3, "6 trials failed\n"),
        (StorageError("disk full"), 1, f"disk full\n{REPAIRED}:\n  {RESUME}\n"),
        (KeyboardInterrupt(), 130, f"\ninterrupted; continue with:\n  {RESUME}\n"),
    ],
)  # fmt: skip
def test_an_error_is_its_message_and_its_exit_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, text: str
) -> None:
    assert run_command(lambda: raising(error), RESUME) == code
    assert capsys.readouterr().err == text


def test_without_a_way_to_resume_none_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(lambda: raising(KeyboardInterrupt())) == 130
    assert run_command(lambda: raising(StorageError("disk full"))) == 1
    assert capsys.readouterr().err == "\ninterrupted\ndisk full\n"


def test_an_unexpected_error_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 // 0)


def test_an_option_with_one_value_is_refused_when_it_is_given_twice(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    refuse_repeats(parser)
    parser.add_argument("images", nargs="+")
    parser.add_argument("--merge")
    parser.add_argument("--json", action="store_true")
    assert parser.parse_args(["a", "b", "--merge", "x", "--json", "--json"]).merge == "x"
    with pytest.raises(SystemExit) as end:
        parser.parse_args(["a", "--merge", "x", "--merge=y"])
    assert end.value.code == 2
    assert "--merge: given twice" in capsys.readouterr().err
