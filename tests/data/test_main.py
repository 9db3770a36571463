"""The command line: a picture, a table, and errors that a person can act on."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import pytest

from faar_ray.data.__main__ import main

SMALL = ["--images", "2", "--size", "32"]


@pytest.fixture(autouse=True)
def _use_test_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAAR_RAY_CACHE", str(cache))


def test_show_writes_a_picture_of_both_domains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "deep" / "sheet.png"
    assert main(["show", "scenes", *SMALL, "--out", str(sheet)]) == 0
    height, width, _ = matplotlib.image.imread(sheet).shape
    assert height > 400 and width > 900
    assert capsys.readouterr().out.strip() == str(sheet)


def test_pack_then_check_finds_nothing_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--out", str(tmp_path)]
    assert main(["pack", "scenes", *SMALL, *folder]) == 0
    assert Path(capsys.readouterr().out.strip()).parent == tmp_path / "scenes"
    assert main(["check", "scenes", *SMALL, *folder]) == 0
    assert capsys.readouterr().out.count("ok") == 3


def test_check_finds_the_damaged_shard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--out", str(tmp_path)]
    main(["pack", "scenes", *SMALL, *folder])
    shard = Path(capsys.readouterr().out.strip()) / "val-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-9])
    assert main(["check", "scenes", *SMALL, *folder]) == 2
    assert f"first {shard}: delete it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["show", "nyu"], "must be one of scenes, pascal_context, nyud, cityscapes, folder, got 'nyu'"),
        (["show", "scenes", "--size", "8"], "--size: "),
        (["pack", "scenes", "--images", "0"], "--images: "),
        (["pack", "scenes", "--seed", "-1"], "--seed: "),
        (["check", "scenes", "--seed", "12345"], "pack scenes"),
    ],
)
def test_errors_exit_2_with_one_message(command: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


@pytest.mark.parametrize("command", [["frame", "scenes"], ["show"], ["show", "scenes", "--domain", "moon"]])
def test_usage_errors_exit_2(command: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(command)
    assert stopped.value.code == 2


@pytest.mark.parametrize("command", ["pack", "check", "show"])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert f"example: python -m faar_ray.data {command} " in capsys.readouterr().out
