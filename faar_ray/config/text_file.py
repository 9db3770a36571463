"""The text of a config file, and lines and columns in it."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from faar_ray.errors import ConfigError

ENDS = (".yaml", ".yml")
SPACES, RUNS = Path("search_spaces"), Path("runs")
LARGEST_FILE = 1_000_000
"""Bytes."""


def read_text(path: Path) -> str:
    """The text of a config file.

    Raises:
        ConfigError: no such file, not a file, too large, not UTF-8.
    """
    try:
        if path.is_dir():
            raise ConfigError(f"{path}: is a folder, not a file{_within(path)}")
        if not path.exists():
            raise ConfigError(f"{path}: no such file{_nearest(path)}")
        if not path.is_file():
            raise ConfigError(f"{path}: is not a regular file")
        if path.stat().st_size > LARGEST_FILE:
            raise ConfigError(f"{path}: larger than {LARGEST_FILE} bytes, which no config is")
        raw = path.read_bytes()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = line_column(raw[: error.start].decode("utf-8", "replace"))
        raise ConfigError(f"{path}:{line}:{column}: not UTF-8 text (byte 0x{raw[error.start]:02x})") from None


def _nearest(path: Path) -> str:
    """The files that may have been meant: of a near name beside it or among the search spaces, or a run's."""
    found = [file for folder in (path.parent, SPACES) for end in ENDS for file in sorted(folder.glob(f"*{end}"))]
    by_stem = {file.stem.lower(): file for file in reversed(found)}
    wanted = path.stem if path.suffix in (*ENDS, ".json") else path.name
    near = [by_stem[stem] for stem in get_close_matches(wanted.lower(), by_stem, n=1)]

    runs = [folder / "space.yaml" for folder in (path, RUNS / path) if (folder / "space.yaml").is_file()]
    meant = " or ".join(f"'{file}'" for file in near + runs[:1])
    return f" (did you mean {meant}?)" if meant else ""


def _within(folder: Path) -> str:
    """What of a folder may have been meant."""
    if (folder / "space.yaml").is_file():
        return f" (a run's search space is its space.yaml: python -m faar_ray.tune {folder / 'space.yaml'} --resume)"
    files = sorted(file.name for end in ENDS for file in folder.glob(f"*{end}"))
    return f" (it holds {', '.join(files[:5])}{', ...' if len(files) > 5 else ''})" if files else ""


def line_column(before: str) -> tuple[int, int]:
    """Line and column, from 1, of what follows a text."""
    lines = f"{before}|".splitlines()
    return len(lines), len(lines[-1])
