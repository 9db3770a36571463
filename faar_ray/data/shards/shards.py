"""Dense images and labels as Parquet: one row per image, one fixed-size binary column per quantity.

A column's field metadata holds its dtype, the shape of a row and the sha256 of all its bytes, so a shard can be decoded
and verified on its own, without pickles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from faar_ray.data.cache_folder import unwritable
from faar_ray.errors import DataError
from faar_ray.storage.atomic import atomic_write

DTYPES = ("uint8", "int8", "float16")


def write_shard(path: Path, columns: Mapping[str, Tensor], description: Mapping[str, str]) -> None:
    """Write tensors (rows, ...) of dtype uint8, int8 or float16; `description` goes into the file's metadata.

    Raises:
        DataError: the folder cannot be written.
    """
    arrays = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in columns.items()}
    fields = [_field(name, array) for name, array in arrays.items()]
    table = pa.Table.from_arrays(
        [_binary(array, field.type) for array, field in zip(arrays.values(), fields, strict=True)],
        schema=pa.schema(fields, metadata=dict(description)),
    )
    try:
        with atomic_write(path) as scratch:
            pq.write_table(table, scratch, compression="zstd", write_page_checksum=True)
    except OSError as error:
        raise unwritable(path, error) from error


def _field(name: str, array: np.ndarray[Any, Any]) -> pa.Field:
    shape = ",".join(str(side) for side in array.shape[1:])
    metadata = {"dtype": array.dtype.name, "shape": shape, "sha256": hashlib.sha256(array.data).hexdigest()}
    return pa.field(name, pa.binary(array[0].nbytes), nullable=False, metadata=metadata)


def _binary(array: np.ndarray[Any, Any], kind: pa.DataType) -> pa.Array:
    return pa.Array.from_buffers(kind, len(array), [None, pa.py_buffer(array)])


def read_shard(path: Path, names: Iterable[str]) -> dict[str, Tensor]:
    """The named columns, each (rows, ...), verified.

    Raises:
        DataError: the file is missing, truncated or altered.
    """
    try:
        table = pq.read_table(path, columns=list(names), page_checksum_verification=True, memory_map=False)
        return {name: _tensor(table, name) for name in names}
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such shard") from error
    except (pa.ArrowException, OSError, KeyError, ValueError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: damaged shard ({reason}); delete this file and make it again") from error


def _tensor(table: pa.Table, name: str) -> Tensor:
    stored = table.schema.field(name).metadata or {}
    metadata = {key.decode(): value.decode() for key, value in stored.items()}
    if metadata["dtype"] not in DTYPES:
        raise ValueError(f"column {name}: dtype must be one of {', '.join(DTYPES)}, got {metadata['dtype']}")

    column = table.column(name).combine_chunks()
    data, width = column.buffers()[1], column.type.byte_width
    raw = np.frombuffer(data, np.uint8)[column.offset * width : (column.offset + len(column)) * width].copy()
    if hashlib.sha256(raw.data).hexdigest() != metadata["sha256"]:
        raise ValueError(f"column {name}: sha256 differs from the one written with it")

    shape = [int(side) for side in metadata["shape"].split(",")]
    return torch.from_numpy(raw.view(metadata["dtype"]).reshape(len(column), *shape))


def shard_digest(path: Path) -> str:
    """One sha256 over the checksums of a shard's columns: equal for equal content, whatever wrote the file."""
    schema = pq.read_schema(path)
    return hashlib.sha256(b"".join(field.name.encode() + field.metadata[b"sha256"] for field in schema)).hexdigest()
