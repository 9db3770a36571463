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
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from faar_ray.config.secrets import (
    PASSWORD_VARIABLE,
    URI_VARIABLE,
    USER_VARIABLE,
    is_server,
    take_credentials,
    with_credentials,
    without_secrets,
)
from faar_ray.errors import ConfigError

SQLITE, SQLITE_DRIVER = "sqlite:///", "sqlite+pysqlite:///"
FAILURES = (MlflowException, SQLAlchemyError, ImportError, OSError)
"""What MLflow raises where it cannot be used; ImportError for a database whose driver is not installed."""
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
    """A tracking URI without credentials that does not depend on the working directory.

    Raises:
        ConfigError: the URI is a plain folder (MLflow 3 removed its file store) or a database in memory.
    """
    uri = take_credentials(uri)
    if is_server(uri):
        return uri.rstrip("/")
    if not uri.startswith(SQLITE):
        if re.match(r"(postgresql|mysql|mssql|sqlite|databricks)", uri) and uri != "sqlite://":
            return uri
        raise ConfigError(f"tracking.uri: must be sqlite:///FILE, a database or http(s)://SERVER, got {uri!r}")
    name, query = make_url(uri).database, uri.partition("?")[2]
    if not name or name == ":memory:":
        raise ConfigError(f"tracking.uri: must name a database file, such as sqlite:///mlflow.db, got {uri!r}")
    return sqlite_uri(Path(name).expanduser().resolve()) + (f"?{query}" if query else "")


def sqlite_uri(path: Path) -> str:
    """The URI that SQLAlchemy reads as this path, escaped no more than it takes: its versions differ in that.

    Raises:
        ConfigError: there is none.
    """
    text = str(path)
    for escaped in (text, text.replace("%", "%25").replace("?", "%3F")):
        uri = f"{SQLITE}{escaped}"
        if make_url(uri).database == text and not make_url(uri).query:
            return uri
    raise ConfigError(f"tracking.uri: SQLAlchemy cannot name {path}; put the database into a folder without '?'")


def client(uri: str) -> MlflowClient:
    """MLflow's client of a (made absolute) URI, with the credentials that the environment has for it."""
    uri = with_credentials(uri)
    if uri.startswith(SQLITE) and "%" in uri:  # under this name MLflow does not make the folder before it is unescaped
        uri = uri.replace(SQLITE, SQLITE_DRIVER, 1)
    try:
        if not is_server(uri):
            _connect_once(uri)
        return MlflowClient(uri)
    except FAILURES:
        raise
    except Exception as error:  # a database's driver may raise anything, such as AttributeError for want of a password
        raise MlflowException(f"{type(error).__name__}: {error}") from error


def _connect_once(uri: str) -> None:
    """Raise what a database raises; MLflow alone would try for two minutes whether a wrong password becomes right."""
    url = make_url(uri)
    is_sqlite = url.get_backend_name() == "sqlite"
    engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": 0} if is_sqlite else {})
    try:
        with engine.connect() as connection:
            if is_sqlite:
                connection.exec_driver_sql("PRAGMA schema_version")  # reads the file
    except OperationalError as error:
        if "locked" not in str(error.orig):  # for that, MLflow waits
            raise


def database_folder(uri: str) -> Path | None:
    """Folder of a (made absolute) sqlite database; None for anything else."""
    file = database_file(uri)
    return None if file is None else file.parent


def database_file(uri: str) -> Path | None:
    """A (made absolute) sqlite database; None for anything else."""
    return Path(make_url(uri).database or "") if uri.startswith(SQLITE) else None


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
    return without_secrets((text.splitlines() or [type(error).__name__])[0])


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
    except FAILURES as error:
        cause = root_cause(error)
        raise ConfigError(f"tracking.uri: MLflow cannot use {uri!r}: {cause}{_credentials_hint(uri, cause)}") from error


def _credentials_hint(uri: str, cause: str) -> str:
    """Where user and password come from, if it may be them that are missing."""
    if is_server(uri):
        return f" ({USER_VARIABLE} and {PASSWORD_VARIABLE} hold user and password)" if "error code 40" in cause else ""
    if uri.startswith("sqlite") or with_credentials(uri) != uri:
        return ""
    return f" (a password that is not in tracking.uri is taken from {URI_VARIABLE}, the URI with it)"


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
            return Path(client(uri).download_artifacts(run_id, name, tempfile.mkdtemp(prefix="faar_ray_")))
        except (MlflowException, OSError) as error:
            reason = without_secrets(str(error).splitlines()[0])
            raise ConfigError(f"MLflow run {run_id}: has no artifact {name} ({reason})") from error
