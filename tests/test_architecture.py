"""The house's walls (DESIGN.md, section 1): floors, nevers, homes, no circles, no file too long."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import faar_ray

ROOT = Path(faar_ray.__file__).parent
LONGEST_FILE = 350
FLOORS = {
    1: "command_line config errors interrupts records seeding streams tools tasks decoders",
    2: "adapters data storage objectives",
    3: "ranks tracking cluster",
    4: "models report",
    5: "train export predict",
    6: "tune",
    7: "bench",
}
FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms.split()}
NEVERS = [
    ({"adapters", "ranks", "decoders", "models", "tasks"}, {"train", "tune", "tracking", "report", "data"}),
    ({"data"}, {"adapters", "models", "train"}),
    ({"train"}, {"tune"}),
    ({"report"}, {"train", "models"}),
]
HOMES = {
    "ray": {"tune", "cluster", "train/runtimes", "bench"},
    "mlflow": {"tracking", "report"},
    "optuna": {"tune", "report", "objectives", "bench"},
    "timm": {"models", "bench"},
}
MOST_FILES = 20


@cache
def imports() -> dict[str, list[str]]:
    """Each file, relative to the package, with the dotted names of the modules it imports, wherever in the file."""
    result = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        result[name] = list(imported(ast.parse(path.read_text(), str(path)), name))
    return result


def imported(tree: ast.AST, file: str) -> Iterator[str]:
    package = ["faar_ray", *file.split("/")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def room_of(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def rooms_used(file: str) -> set[str]:
    parts = [name.split(".") for name in imports()[file]]
    return {part[1] for part in parts if part[0] == "faar_ray" and len(part) > 1 and part[1] in FLOOR_OF}


FILES = [file for file in imports() if file != "__init__.py"]


def test_every_room_has_a_floor() -> None:
    assert {room_of(file) for file in FILES} <= set(FLOOR_OF)


def test_a_file_imports_from_its_own_floor_or_below() -> None:
    up = {(file, room) for file in FILES for room in rooms_used(file) if FLOOR_OF[room] > FLOOR_OF[room_of(file)]}
    assert up == set()


def test_a_file_never_imports_what_its_room_must_not_know() -> None:
    broken = {
        (file, room)
        for file in FILES
        for rooms, others in NEVERS
        if room_of(file) in rooms
        for room in rooms_used(file) & others
    }
    assert broken == set()


def test_a_library_is_imported_at_home_only() -> None:
    strays = {
        (file, library)
        for file in FILES
        for library in {name.split(".")[0] for name in imports()[file]} & set(HOMES)
        if not any(file.startswith(f"{home}/") for home in HOMES[library])
    }
    assert strays == set()


def test_no_file_is_too_long_and_no_folder_too_full() -> None:
    lengths = {file: len((ROOT / file).read_text().splitlines()) for file in FILES}
    assert {file: length for file, length in lengths.items() if length > LONGEST_FILE} == {}
    for top in (ROOT, ROOT.parent / "tests"):
        folders = Counter(path.parent for path in top.rglob("*.py"))
        assert {folder: files for folder, files in folders.items() if files > MOST_FILES} == {}


def test_files_import_each_other_in_no_circle() -> None:
    try:
        TopologicalSorter({file: files_used(file) for file in imports()}).prepare()
    except CycleError as error:
        pytest.fail("circle of imports: " + " -> ".join(error.args[1]))


def files_used(file: str) -> set[str]:
    """The package's files that a file imports; a name out of a package's own __init__ counts as that __init__."""
    used = set()
    for name in imports()[file]:
        parts = name.split(".")
        if parts[0] != "faar_ray":
            continue
        inside = "/".join(parts[1:])
        outer = "/".join(parts[1:-1])
        candidates = (f"{inside}.py", f"{inside}/__init__.py", f"{outer}.py", f"{outer}/__init__.py".lstrip("/"))
        used |= {next((candidate for candidate in candidates if candidate in imports()), file)}
    return used - {file}


def test_the_walls_are_seen_when_broken() -> None:
    source = "from __future__ import annotations\ndef f():\n    from ..tune import space\n    import ray.tune\n"
    assert set(imported(ast.parse(source), "data/x.py")) >= {"faar_ray.tune.space", "ray.tune"}
