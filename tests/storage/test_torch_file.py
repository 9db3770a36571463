"""Files of torch.save: damage is noticed, and nothing in a file is executed."""

from __future__ import annotations

import ast
import contextlib
import os
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch

import faar_ray
from faar_ray.errors import DataError
from faar_ray.storage.torch_file import read_torch_file

STATE: dict[str, Any] = {"format": 2, "weights": torch.linspace(0, 1, 5000), "metrics": [{"delta_m": 1.5}] * 9}
PACKAGE = Path(faar_ray.__file__).parent
UNPICKLERS = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "_pickle"}


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[str, int]]:
        return os.mkdir, (str(self.target), 0o700)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "epoch_0000.pt"
    torch.save(STATE, path)
    return path


def same(state: Any) -> bool:
    rest = [key for key in STATE if key != "weights"]
    return torch.equal(state["weights"], STATE["weights"]) and all(state[key] == STATE[key] for key in rest)


def test_a_file_comes_back_as_written(file: Path) -> None:
    assert same(read_torch_file(file))


def test_a_flipped_bit_is_noticed_where_torch_alone_would_not(file: Path) -> None:
    whole, noticed, silent_in_torch = file.read_bytes(), 0, 0
    for position in random.Random(0).sample(range(len(whole)), 200):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :])
        try:
            assert same(read_torch_file(file)), position
        except DataError as fault:
            noticed += str(file) in str(fault)
            try:
                silent_in_torch += not same(torch.load(file, weights_only=True))
            except Exception:  # torch noticed too
                continue
    assert noticed > 150
    assert silent_in_torch > 100, "torch verifies its checksums now: read_torch_file need not"


@pytest.mark.parametrize("keep", [0, 1, 100, 10_000, -1])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_cut_file_is_named(file: Path, keep: int, legacy: bool) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match=str(file)):
        read_torch_file(file, legacy=legacy)


@pytest.mark.parametrize("raw", [b"PAR1 of another kind", b"\x80\x04N.", b"{}", b"PK\x03\x04"])
def test_another_format_is_named(file: Path, raw: bytes) -> None:
    file.write_bytes(raw)
    with pytest.raises(DataError, match=str(file)):
        read_torch_file(file)


def test_a_file_without_names_is_refused(file: Path) -> None:
    torch.save([1, 2], file)
    with pytest.raises(DataError, match="must hold names and values, got list"):
        read_torch_file(file)


def test_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        read_torch_file(tmp_path / "nowhere.pt")


@pytest.mark.parametrize("form", ["pickle", "zip", "before 1.6"])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_is_refused_and_not_executed(file: Path, tmp_path: Path, form: str, legacy: bool) -> None:
    bomb = {"model": Bomb(tmp_path / "ran")}
    if form == "pickle":
        file.write_bytes(pickle.dumps(bomb))
    else:
        torch.save(bomb, file, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(DataError) as message:
        read_torch_file(file, legacy=legacy)
    assert not (tmp_path / "ran").exists()
    assert str(file) in str(message.value)
    assert "weights_only" not in str(message.value)  # torch's own advice is to switch it off
    with contextlib.suppress(RuntimeError):  # a bare pickle runs first and is found wanting then
        torch.load(file, weights_only=False)
    assert (tmp_path / "ran").exists()  # it would have run


def test_the_format_before_torch_1_6_is_read_where_asked_for(file: Path) -> None:
    torch.save(STATE, file, _use_new_zipfile_serialization=False)
    assert same(read_torch_file(file, legacy=True))
    with pytest.raises(DataError, match="no torch file"):
        read_torch_file(file)


def calls(tree: ast.AST) -> list[tuple[str, dict[str, Any]]]:
    """Dotted names of what is called, with the constants among their keyword arguments."""
    return [
        (ast.unparse(node.func), {k.arg: getattr(k.value, "value", None) for k in node.keywords if k.arg})
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    ]


def unsafe(source: str) -> list[str]:
    """What of a source would execute a file that it reads."""
    tree, result = ast.parse(source), []
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        result += [name for name in names if name.split(".")[0] in UNPICKLERS]
    for name, options in calls(tree):
        if name in ("torch.load", "load_state_dict_from_url") and options.get("weights_only") is not True:
            result.append(name)
        if name.startswith(("torch.jit.load", "torch.hub.load")) or options.get("allow_pickle"):
            result.append(name)
        if name in ("yaml.load", "yaml.unsafe_load", "yaml.full_load", "pd.read_pickle"):
            result.append(name)
    return result


def test_nothing_in_the_package_unpickles_what_a_user_gives() -> None:
    assert {p.name: bad for p in sorted(PACKAGE.rglob("*.py")) if (bad := unsafe(p.read_text()))} == {}


@pytest.mark.parametrize(
    "source", ["import pickle", "from joblib import load", "torch.load(p)", "torch.load(p, weights_only=False)",
               "np.load(p, allow_pickle=True)", "yaml.load(t)"]
)  # fmt: skip
def test_the_search_for_unpickling_finds_it(source: str) -> None:
    assert unsafe(source)
