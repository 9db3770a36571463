"""What MLflow's errors mean: whether it is away (try again) or refuses (do not), and why, in a few words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from faar_ray.errors import ConfigError

REFUSALS = {
    "INVALID_PARAMETER_VALUE",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "ALREADY_EXISTS",
    "NOT_IMPLEMENTED",
}
"""Error codes that the same call gets again. All others (a locked database, a server that is down, a gateway's 404 or
403 before it, a full disk) may be over later."""


def is_away(fault: BaseException) -> bool:
    """Whether the same call may succeed later."""
    if isinstance(fault, MlflowException):
        return fault.error_code not in REFUSALS
    return isinstance(fault, (OSError, SQLAlchemyError))


def is_gone(fault: BaseException) -> bool:
    """Whether MLflow answers, and says that it does not know the run."""
    return isinstance(fault, MlflowException) and fault.error_code == "RESOURCE_DOES_NOT_EXIST"


def reason_of(fault: BaseException) -> str:
    """The root of a fault, in a few words and without addresses: `database is locked`, `Connection refused`."""
    root = fault
    while (cause := _cause(root)) is not None:
        root = cause
    if isinstance(root, OSError) and root.strerror:
        return root.strerror + (f": {root.filename}" if root.filename else "")
    text = str(getattr(root, "orig", None) or root).strip()
    return (text.splitlines() or [type(root).__name__])[0]


def _cause(fault: BaseException) -> BaseException | None:
    if isinstance(fault, SQLAlchemyError):
        return getattr(fault, "orig", None)
    return fault.__cause__ or fault.__context__


@contextmanager
def needed(uri: str) -> Iterator[None]:
    """Calls without which nothing starts: MLflow that is away, or refuses, is a fault of `tracking.uri`.

    Raises:
        ConfigError: naming the URI and the reason.
    """
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as fault:
        raise ConfigError(f"tracking.uri: MLflow cannot use {uri!r}: {reason_of(fault)}") from fault
