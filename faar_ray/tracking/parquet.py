"""Parquet files that a person may have lost or damaged."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from faar_ray.errors import DataError


def read_table(path: Path, what: str) -> pa.Table:
    """One file, whole.

    Args:
        path: the file; its folder's name never becomes a column.
        what: the file's kind, for the message.

    Raises:
        DataError: naming the file, where it is missing or broken.
    """
    try:
        return pq.read_table(path, partitioning=None, page_checksum_verification=True)
    except FileNotFoundError:
        raise DataError(f"{path}: no such {what}") from None
    except (pa.ArrowException, OSError) as fault:
        raise DataError(f"{path}: not a readable Parquet file ({fault})") from None
