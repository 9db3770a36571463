"""Which sources travel with a search to other machines."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

from faar_ray.cluster.ray_cluster import parents_of, sources_of

Import = Callable[[str], None]


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path of Python with a module and a package."""
    (tmp_path / "lone_data.py").write_text("X = 1\n")
    (tmp_path / "data_package" / "inner").mkdir(parents=True)
    (tmp_path / "data_package" / "__init__.py").write_text("")
    (tmp_path / "data_package" / "inner" / "reader.py").write_text("X = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("lone_data", "data_package.inner.reader"):
        importlib.import_module(name)
    return tmp_path.resolve()


def test_a_module_is_its_file_and_a_package_its_whole_folder(own_module: Path) -> None:
    assert sources_of(["lone_data"]) == [str(own_module / "lone_data.py")]
    assert sources_of(["data_package.inner.reader", "data_package.inner"]) == [str(own_module / "data_package")]
    assert parents_of(["data_package.inner.reader", "lone_data"]) == [str(own_module)]


def test_what_is_installed_and_this_package_do_not_travel_again() -> None:
    assert sources_of(["json", "numpy.linalg", "faar_ray.data"]) == []
