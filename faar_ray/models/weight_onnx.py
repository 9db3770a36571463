"""Weights in ONNX files that torch exported: the graph is read, never run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from faar_ray.errors import ConfigError, DataError

NAMELESS = "onnx::"
"""What torch's exporter puts before the names of weights that it folded: transposed ones, and sums."""
INSTALL = "pip install onnx"


def is_onnx(start: bytes) -> bool:
    """Whether a file that starts so is an ONNX model: protobuf's field 1 (a version), then 2 (the producer)."""
    return len(start) >= 3 and start[0] == 0x08 and start[2] == 0x12


def read_onnx(path: Path) -> Mapping[str, Tensor]:
    """All weights by the names of the modules that held them.

    A weight that lost its name is called by the node that takes it: `NODE.weight`, transposed back, of a matrix
    product; `NODE.POSITION` else, `POSITION` being its place among the node's inputs.

    Raises:
        ConfigError: the package onnx is not installed.
        DataError: the file is damaged.
    """
    try:
        import onnx  # of the extra [weights]
    except ModuleNotFoundError:
        raise ConfigError(f"backbone.checkpoint: {path} is ONNX, which needs the package onnx ({INSTALL})") from None

    try:
        graph = onnx.load(str(path), load_external_data=False).graph
        arrays = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    except Exception as fault:  # protobuf's, by what is broken, or a weight in another file
        raise DataError(f"{path}: damaged, or not a whole ONNX file ({type(fault).__name__})") from None
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    return dict(_named(name, value, graph.node) for name, value in tensors.items())


def _named(name: str, value: Tensor, nodes: Any) -> tuple[str, Tensor]:
    if not name.startswith(NAMELESS):
        return name, value
    node = next(node for node in nodes if name in node.input)
    module = node.name.strip("/").replace("/", ".")
    if node.op_type == "MatMul":
        return module.rpartition(".")[0] + ".weight", value.T.contiguous()
    return f"{module}.{list(node.input).index(name)}", value
