"""Files of `torch.save` that somebody may have damaged or forged: checked whole, and nothing in them is executed."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from faar_ray.errors import DataError


def read_torch_file(path: Path, *, legacy: bool = False) -> Mapping[str, Any]:
    """The mapping that a file holds, on the CPU.

    torch writes a CRC-32 for every part of the file and never looks at it, so a flipped bit would load as another
    number; here it is looked at first.

    Args:
        path: the file.
        legacy: whether the format before torch 1.6 will do, which has no checksums.

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
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as fault:  # torch tells of bad files in many words and classes, some of them bad advice
        raise DataError(
            f"{path}: damaged, no torch file, or one that holds more than tensors and plain values "
            f"({type(fault).__name__}); nothing in it was executed"
        ) from None
    if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        raise DataError(f"{path}: must hold names and values, got {type(state).__name__}")
    return state


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
