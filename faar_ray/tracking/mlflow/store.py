"""MLflow's store: its URI and files, the names it accepts, what its errors mean, and how to keep it quiet."""

from __future__ import annotations

import logging
import posixpath
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from faar_ray.errors import ConfigError

SQLITE = "sqlite:///"
LONGEST_NAME = 250
PERMANENT_ERRORS = {
    "INVALID_PARAMETER_VALUE",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "ALREADY_EXISTS",
    "NOT_IMPLEMENTED",
}
"""Error codes that the same call gets again. All others may be temporary: a locked database, a server that is down,
a gateway's 404 or 403 before it, a full disk."""


def absolute_uri(uri: str) -> str:
    """A tracking URI that does not depend on the working directory.

    Raises:
        ConfigError: the URI is a plain folder (MLflow 3 removed its file store) or a database in memory.
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
    return f"{SQLITE}{Path(name).resolve()}{mark}{query}"


def database_folder(uri: str) -> Path | None:
    """Folder of a (made absolute) sqlite database; None for anything else."""
    file = database_file(uri)
    return None if file is None else file.parent


def database_file(uri: str) -> Path | None:
    """A (made absolute) sqlite database; None for anything else."""
    return Path(uri.removeprefix(SQLITE).partition("?")[0]) if uri.startswith(SQLITE) else None


def artifact_location(uri: str, experiment: str) -> str | None:
    """File URI of `mlartifacts/<experiment>` beside a sqlite database; None where the server chooses."""
    folder = database_folder(uri)
    if folder is None:
        return None
    return (folder / "mlartifacts" / (re.sub(r"[^\w.-]", "_", experiment).strip(".") or "_")).as_uri()


def metric_name(name: str) -> str:
    """`name` with the characters that MLflow rejects replaced by `_`, at most 250 long."""
    clean = posixpath.normpath(re.sub(r"[^/\w.\- ]", "_", name)).lstrip("/")
    return ("_" if clean in ("", ".") or clean.startswith("..") else clean)[:LONGEST_NAME]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the messages of MLflow and Alembic about creating their tables; warnings still appear."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "mlflow.store.db.utils", "alembic", "alembic.runtime")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(max(logger.level, logging.WARNING))
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def is_unavailable(error: BaseException) -> bool:
    """Whether the same call may succeed later."""
    if isinstance(error, MlflowException):
        return error.error_code not in PERMANENT_ERRORS
    return isinstance(error, (OSError, SQLAlchemyError))


def is_unknown_run(error: BaseException) -> bool:
    """Whether the error means that MLflow has no such run."""
    return isinstance(error, MlflowException) and error.error_code == "RESOURCE_DOES_NOT_EXIST"


def root_cause(error: BaseException) -> str:
    """The root of an error in a few words, without addresses: `database is locked`, `Connection refused`."""
    while (cause := _cause(error)) is not None:
        error = cause
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else "")

    text = str(getattr(error, "orig", None) or error).strip()
    return (text.splitlines() or [type(error).__name__])[0]


def _cause(error: BaseException) -> BaseException | None:
    if isinstance(error, SQLAlchemyError):
        return getattr(error, "orig", None)
    return error.__cause__ or error.__context__


@contextmanager
def config_error_on_failure(uri: str) -> Iterator[None]:
    """For calls without which nothing starts: any failure of MLflow is an error of `tracking.uri`.

    Raises:
        ConfigError: with the URI and the reason.
    """
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise ConfigError(f"tracking.uri: MLflow cannot use {uri!r}: {root_cause(error)}") from error


def download_artifact(uri: str, run_id: str, name: str) -> Path:
    """A run's artifact, as a file on this machine.

    Raises:
        ConfigError: no such database, run or artifact.
    """
    uri = absolute_uri(uri)
    if (database := database_file(uri)) is not None and not database.is_file():
        raise ConfigError(f"--tracking-uri: there is no {uri}, so MLflow run {run_id} is not known")

    with quiet():
        try:
            client = MlflowClient(uri)
            return Path(client.download_artifacts(run_id, name, tempfile.mkdtemp(prefix="faar_ray_")))
        except (MlflowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"MLflow run {run_id}: has no artifact {name} ({reason})") from error
