"""The text of a config file, and lines and columns in it."""

from __future__ import annotations

from pathlib import Path

from faar_ray.errors import ConfigError

LARGEST_FILE = 1_000_000
"""Bytes."""


def read_text(path: Path) -> str:
    """The text of a config file.

    Raises:
        ConfigError: no such file, not a file, too large, not UTF-8.
    """
    try:
        if path.is_dir():
            raise ConfigError(f"{path}: is a folder, not a file")
        if not path.exists():
            raise ConfigError(f"{path}: no such file{_neighbour(path)}")
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


def _neighbour(path: Path) -> str:
    twin = next((path.with_suffix(end) for end in (".yaml", ".yml") if path.with_suffix(end).is_file()), None)
    return f" (did you mean '{twin}'?)" if twin and twin != path else ""


def line_column(before: str) -> tuple[int, int]:
    """Line and column, from 1, of what follows a text."""
    lines = f"{before}|".splitlines()
    return len(lines), len(lines[-1])
