"""Files of `torch.save` that somebody may have damaged or forged: checked whole, and nothing in them is executed."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from faar_ray.errors import DataError

NUMBERS = (np.float64, np.float32, np.int64, np.int32, np.bool_)
HARMLESS: tuple[Any, ...] = (
    argparse.Namespace,
    np.float64().__reduce__()[0],  # the function that makes them again, wherever this NumPy has it
    np.dtype,
    *(type(np.dtype(number)) for number in NUMBERS),
)
"""What training programs put beside the weights: their arguments, and best metrics as NumPy's numbers."""


def read_torch_file(path: Path, *, legacy: bool = False) -> Mapping[str, Any]:
    """The mapping that a file holds, on the CPU.

    torch writes a CRC-32 for every part of the file and never looks at it, so a flipped bit would load as another
    number; here it is looked at first.

    Args:
        path: the file.
        legacy: whether it comes from another program: the format before torch 1.6 will do, which has no checksums,
            and beside the tensors the arguments of its command line and NumPy's numbers.

    Raises:
        DataError: naming the file: damaged, another format, or more than tensors and plain values.
    """
    try:
        whole = _checked(path)
    except OSError as fault:
        raise DataError(f"{path}: cannot be read ({fault.strerror or fault})") from None
    if not whole and not legacy:
        raise DataError(f"{path}: empty, cut off or no torch file")
    try:
        allowed = torch.serialization.safe_globals([*HARMLESS] if legacy else [])
        with allowed, path.open("rb") as file:  # given a path, torch goes by its suffix
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as fault:  # torch tells of bad files in many words and classes, some of them bad advice
        odd = _odd_classes(path)
        what = f"; {', '.join(odd[:5])}: save tensors alone" if odd else ""
        raise DataError(
            f"{path}: damaged, no torch file, or one that holds more than tensors and plain values "
            f"({type(fault).__name__}{what}); nothing in it was executed"
        ) from None
    if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        raise DataError(f"{path}: must hold names and values, got {type(state).__name__}")
    return state


def digest_of_values(tensors: Iterable[Tensor]) -> str:
    """One sha256 over the values of tensors on the CPU, whatever their order."""
    each = sorted(hashlib.sha256(_bytes(tensor)).digest() for tensor in tensors)
    return hashlib.sha256(b"".join(each)).hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data


def _odd_classes(path: Path) -> list[str]:
    """Names of what a file would import beyond tensors, as far as they can be told."""
    with contextlib.suppress(Exception):
        known = {f"{thing.__module__}.{thing.__qualname__}" for thing in HARMLESS}
        return sorted(set(torch.serialization.get_unsafe_globals_in_checkpoint(path)) - known)
    return []


def _checked(path: Path) -> bool:
    """Whether it is a whole zip archive, torch's format; False for anything else.

    Raises:
        DataError: an archive whose bytes are not the ones that were written.
    """
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            return False
        try:
            with zipfile.ZipFile(file) as archive:
                broken = archive.testzip()
        except OSError:
            raise
        except Exception as fault:  # whatever a flipped bit in a header makes zipfile say
            raise DataError(f"{path}: damaged ({fault})") from None
    if broken is not None:
        raise DataError(f"{path}: damaged (the checksum of its part {broken} is another one)")
    return True
