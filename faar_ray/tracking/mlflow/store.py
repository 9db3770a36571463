"""Where MLflow keeps things, what names it takes, and how to keep it quiet."""

from __future__ import annotations

import logging
import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faar_ray.errors import ConfigError

SQLITE = "sqlite:///"
LONGEST_NAME = 250


def absolute_uri(uri: str) -> str:
    """A tracking URI that means the same in every working directory; makes a database's folder.

    Raises:
        ConfigError: the URI is a plain folder (MLflow 3 gave up its file store) or a database in memory.
    """
    if uri.startswith(("http://", "https://")):
        return uri
    if not uri.startswith(SQLITE):
        if re.match(r"(postgresql|mysql|mssql|sqlite|databricks)", uri) and uri != "sqlite://":
            return uri
        raise ConfigError(f"tracking.uri: must be sqlite:///FILE, a database or http(s)://SERVER, got {uri!r}")
    name, mark, query = uri.removeprefix(SQLITE).partition("?")
    if name in ("", ":memory:"):
        raise ConfigError(f"tracking.uri: must name a database file, such as sqlite:///mlflow.db, got {uri!r}")
    path = Path(name).resolve()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise ConfigError(f"tracking.uri: {path.parent} cannot be made ({fault.strerror})") from None
    return f"{SQLITE}{path}{mark}{query}"


def database_folder(uri: str) -> Path | None:
    """Folder of a (made absolute) sqlite database; None for anything else."""
    file = database_file(uri)
    return None if file is None else file.parent


def database_file(uri: str) -> Path | None:
    """A (made absolute) sqlite database; None for anything else."""
    return Path(uri.removeprefix(SQLITE).partition("?")[0]) if uri.startswith(SQLITE) else None


def artifact_location(uri: str, experiment: str) -> str | None:
    """`mlartifacts/<experiment>` beside a sqlite database, as a file URI; None lets a server choose."""
    folder = database_folder(uri)
    if folder is None:
        return None
    return (folder / "mlartifacts" / (re.sub(r"[^\w.-]", "_", experiment).strip(".") or "_")).as_uri()


def metric_name(name: str) -> str:
    """`name` with the characters that MLflow refuses replaced by `_`, at most 250 long."""
    clean = posixpath.normpath(re.sub(r"[^/\w.\- ]", "_", name)).lstrip("/")
    return ("_" if clean in ("", ".") or clean.startswith("..") else clean)[:LONGEST_NAME]


@contextmanager
def hushed() -> Iterator[None]:
    """Silence what MLflow and Alembic say about making their tables; warnings still come through."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "mlflow.store.db.utils", "alembic", "alembic.runtime")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(max(logger.level, logging.WARNING))
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
